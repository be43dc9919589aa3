"""Requests of the fleet, from what arrives to what is answered."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edge_agent.errors import StoreError
from edge_agent.fleet.requests import MAX_OPEN
from edge_agent.loop import Loop
from edge_agent.mqtt.incoming import Incoming
from edge_agent.node.requests import REQUEST_BURST, REQUEST_S, TELL_S, Job, Requests, Ticket


class Board:
    """A loop, what is done on it, and what was answered."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.now = 0.0
        self.answers: list[tuple[str, dict[str, Any], bytes | None]] = []
        self.jobs: list[Job] = []
        self.actions: dict[str, Callable[[Job], None]] = {
            "sync": lambda job: job.succeeded(),
            "logs": lambda job: job.succeeded({"lines": [job.arguments["lines"]]}),
            "restart": self.jobs.append,
        }
        self.requests = Requests(
            loop,
            lambda verb: f"usual/{verb}",
            lambda topic, payload, correlation: self.answers.append(
                (topic, json.loads(payload), correlation)
            ),
            self.actions,
            lambda: self.now,
        )

    def ask(self, verb: str, payload: bytes, **more: Any) -> None:
        plain = Incoming("request", payload, False, None, None)
        self.requests.received(verb, plain._replace(**more))
        self.turn()

    def turn(self) -> None:
        self.loop.call_soon(lambda: None)  # not to wait where nothing was handed over
        self.loop.turn()

    @property
    def states(self) -> list[str]:
        return [answer["state"] for _, answer, _ in self.answers]


@pytest.fixture
def board() -> Iterator[Board]:
    with Loop() as loop:
        yield Board(loop)


def test_a_quick_request_is_accepted_and_succeeds(board: Board) -> None:
    board.ask("logs", b'{"id": "a", "arguments": {"lines": 7}}')
    assert board.answers == [
        ("usual/logs", {"id": "a", "verb": "logs", "state": "accepted"}, None),
        (
            "usual/logs",
            {"id": "a", "verb": "logs", "state": "succeeded", "result": {"lines": [7]}},
            None,
        ),
    ]


def test_a_slow_request_says_that_it_runs_and_ends_once(board: Board) -> None:
    board.ask("restart", b'{"id": "a"}')
    (job,) = board.jobs
    job.running()
    job.succeeded()
    job.failed("too late")
    assert board.states == ["accepted", "running", "succeeded"]


def test_answers_go_to_the_topic_that_was_asked_for_with_its_data(board: Board) -> None:
    board.ask("sync", b'{"id": "a"}', response_topic="inbox/1", correlation=b"\x01")
    assert {(topic, data) for topic, _, data in board.answers} == {("inbox/1", b"\x01")}


def test_what_cannot_be_read_is_answered_failed_and_not_carried_out(board: Board) -> None:
    board.ask("restart", b'{"id": "a", "arguments": {"plugin": 5}}')
    board.ask("restart", b"garbage")
    board.ask("explode", b'{"id": "a"}')
    assert [answer["id"] for _, answer, _ in board.answers] == ["a", "", ""]
    assert board.states == ["failed"] * 3
    assert all(answer["reason"] for _, answer, _ in board.answers)
    assert not board.jobs


def test_a_retained_request_would_come_again_with_each_connection(board: Board) -> None:
    board.ask("restart", b'{"id": "a"}', retained=True)
    assert board.states == ["failed"]
    assert not board.jobs


def test_a_request_that_comes_twice_is_carried_out_once(board: Board) -> None:
    board.ask("restart", b'{"id": "a"}')
    board.ask("restart", b'{"id": "a"}')
    assert len(board.jobs) == 1
    assert board.states == ["accepted"]


def test_a_flood_is_answered_busy(board: Board) -> None:
    for number in range(MAX_OPEN + 1):
        board.ask("restart", b'{"id": "%d"}' % number)
    assert board.states == ["accepted"] * MAX_OPEN + ["failed"]
    assert "busy" in board.answers[-1][1]["reason"]
    board.jobs[0].succeeded()
    board.ask("restart", b'{"id": "again"}')
    assert len(board.jobs) == MAX_OPEN + 1


def test_an_action_that_fails_says_why_and_the_next_is_served(board: Board) -> None:
    def no_room(_job: Job) -> None:
        raise StoreError("the disk is full")

    def defect(_job: Job) -> None:
        raise ZeroDivisionError

    board.actions |= {"sync": no_room, "diagnose": defect}
    board.ask("sync", b'{"id": "a"}')
    board.ask("diagnose", b'{"id": "b"}')
    board.ask("logs", b'{"id": "c"}')
    reasons = [answer.get("reason") for _, answer, _ in board.answers]
    assert reasons[1] == "the disk is full"
    assert "ZeroDivisionError" in str(reasons[3])
    assert board.states[-1] == "succeeded"


def test_a_long_flood_costs_no_more_than_one_request_in_a_while(
    board: Board, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(5000):  # 200 in a second, which is what the link lets through
        board.now = number / 200
        board.ask("sync", b'{"id": "%d"}' % number)
        board.ask("sync", b"rubbish")
    carried_out = board.states.count("succeeded") + board.states.count("failed")
    assert REQUEST_BURST <= carried_out <= REQUEST_BURST + board.now / REQUEST_S + 1
    assert len(caplog.records) <= carried_out + 1 + board.now / TELL_S
    assert "passed over" in caplog.text
    board.now += REQUEST_S
    board.ask("sync", b'{"id": "anna"}')
    assert board.states[-1] == "succeeded"


def test_a_request_of_the_life_before_is_not_carried_out_again(board: Board) -> None:
    board.requests.carried_out(Ticket("a", "restart", "usual/restart", None))
    board.ask("restart", b'{"id": "a"}')
    assert not board.jobs
    assert not board.answers
