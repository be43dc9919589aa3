"""Requests of the fleet, from what arrives to what is answered."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, get_args

import pytest

from edge_agent import Verb
from edge_agent.config import RequestsConfig
from edge_agent.errors import RepeatedError, RequestError, StoreError
from edge_agent.fleet_protocol.requests import MAX_OPEN, Request
from edge_agent.loop import Loop
from edge_agent.mqtt.inbound import InboundMessage
from edge_agent.node.requests import REQUEST_BURST, REQUEST_S, TELL_S, Job, Requests, Ticket


class Board:
    """A loop, what is done on it, and what was answered."""

    def __init__(self, loop: Loop, config: RequestsConfig) -> None:
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
            config,
            lambda: self.now,
        )

    def ask(self, verb: str, payload: bytes, **more: Any) -> None:
        plain = InboundMessage("request", payload, False, None, None)
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
        yield Board(loop, RequestsConfig(unsigned=get_args(Verb)))


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


@contextmanager
def strict(**config: Any) -> Iterator[Board]:
    with Loop() as loop:
        yield Board(loop, RequestsConfig(**config))


SEALED = b'{"id": "outside", "payloadType": "x", "arguments": {"lines": 5}}'


def test_what_is_not_signed_is_refused_by_name_where_signatures_are_needed() -> None:
    with strict() as board:
        board.requests.verify = lambda *_: None
        for verb in ("restart", "logs", "diagnose", "release"):
            board.ask(verb, b'{"id": "a", "arguments": {"plugin": "20-guard"}}')
        board.ask("sync", b'{"id": "b"}')
    reasons = [answer.get("reason", "") for _, answer, _ in board.answers]
    assert board.states == ["failed"] * 4 + ["accepted", "succeeded"]
    assert reasons[0].startswith("unsigned: restart needs the signature of a trusted key")
    assert not board.jobs


def test_without_trusted_keys_the_refusal_says_so_and_what_is_allowed_unsigned_is_done() -> None:
    with strict(unsigned=("logs",)) as board:
        board.ask("restart", SEALED.replace(b'{"lines": 5}', b"{}"))
        board.ask("logs", SEALED)
    assert board.states == ["failed", "accepted", "succeeded"]
    assert "none is trusted here" in board.answers[0][1]["reason"]
    assert board.answers[-1][1]["result"] == {"lines": [5]}


def test_a_verb_that_the_configuration_is_without_is_refused_signed_or_not() -> None:
    with strict(allow=("sync",)) as board:
        board.requests.verify = lambda *_: pytest.fail("no signature need be looked at")
        board.ask("logs", b'{"id": "a"}')
        board.ask("logs", SEALED)
    assert board.states == ["failed", "failed"]
    assert "logs is not in [requests] allow" in board.answers[0][1]["reason"]


def test_what_is_signed_is_carried_out_as_signed_and_not_as_it_says_outside() -> None:
    with strict() as board:
        signed = Request("inside", "logs", {"lines": 9}, ("abcd",))
        board.requests.verify = lambda _verb, _sealed, done: done(signed)
        board.ask("logs", SEALED)
    assert [(answer["id"], answer["state"]) for _, answer, _ in board.answers] == [
        ("inside", "accepted"),
        ("inside", "succeeded"),
    ]
    assert board.answers[-1][1]["result"] == {"lines": [9]}


def test_what_is_refused_when_its_signature_is_looked_at_is_answered() -> None:
    with strict() as board:
        refusal = RequestError("outside", "signature: none is good")
        board.requests.verify = lambda _verb, _sealed, done: done(refusal)
        board.ask("restart", SEALED)
    assert [(answer["id"], answer["reason"]) for _, answer, _ in board.answers] == [
        ("outside", "signature: none is good")
    ]
    assert not board.jobs


def test_a_signed_request_that_the_broker_sends_twice_is_answered_once() -> None:
    with strict() as board:
        found: list[Request | RequestError] = [
            Request("a", "restart", {}, ("abcd",)),
            RepeatedError("a", "replayed"),
        ]
        board.requests.verify = lambda _verb, _sealed, done: done(found.pop(0))
        board.ask("restart", SEALED)
        board.ask("restart", SEALED)
        assert board.states == ["accepted"]
        found.append(RepeatedError("b", "replayed: of another day"))
        board.ask("restart", SEALED)
    assert board.states == ["accepted", "failed"]
    assert len(board.jobs) == 1


def test_signatures_that_wait_to_be_looked_at_are_few() -> None:
    waiting: list[Callable[[Request | RequestError], None]] = []
    with strict() as board:
        board.requests.verify = lambda _verb, _sealed, done: waiting.append(done)
        for _ in range(MAX_OPEN + 1):
            board.ask("restart", SEALED)
        assert board.states == ["failed"]
        waiting[0](RequestError("outside", "signature: none is good"))
        board.ask("restart", SEALED)
    assert len(waiting) == MAX_OPEN + 1
