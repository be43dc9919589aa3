"""A guest's lines of log: none of them makes a runtime wait, none is lost or out of order."""

import logging
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge_agent.wasm.guestlog import HOLD_S, INFO, MAX_HELD, WARN, AgentLog, GuestLog
from tests.host.house import House


class _Told(logging.Handler):
    """Lines of plugins, and what sockets sent, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[str] = []

    def agent_log(self, identity: str) -> AgentLog:
        """One that writes here alone: pytest's handlers want more than a plugin's record has."""
        log = AgentLog(identity)
        log._logger = logging.Logger("told")  # noqa: SLF001 - pytest adds its handlers to all others
        log._logger.addHandler(self)  # noqa: SLF001
        return log

    def emit(self, record: logging.LogRecord) -> None:
        self.order.append(record.getMessage())


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> _Told:
    handler = _Told()
    send = socket.socket.sendmsg

    def sent(link: socket.socket, pieces: Sequence[bytes | bytearray]) -> int:
        count = send(link, pieces)
        handler.order.append("sent")
        return count

    monkeypatch.setattr(socket.socket, "sendmsg", sent)  # the simulated runtime has `sendall`
    return handler


def test_the_answer_goes_before_the_lines_of_its_call(tmp_path: Path, told: _Told) -> None:
    with House(tmp_path) as house:
        house.loader.log_sink = told.agent_log
        house.run(house.release("10-bench", "bench"))
        house.during(lambda: house.runtime.run_pod("pod"))
        [pod] = house.runtime.pods.values()
        told.order.clear()
        outcome = house.during(lambda: house.runtime.create_container(pod, "main", start=False))
        assert outcome.ok
        house.until(lambda: len(told.order) >= 2, "the line is written")
    assert told.order[:2] == ["sent", "adjusted main"]


def test_lines_that_wait_come_in_their_order_and_with_their_time(told: _Told) -> None:
    log = told.agent_log("10-a")
    log(INFO, "before")
    log.hold()
    log(WARN, "first")
    log(INFO, "second")
    assert told.order == ["before"]
    log.release()
    log(INFO, "after")
    assert told.order == ["before", "first", "second", "after"]


def test_no_more_than_some_lines_wait(told: _Told) -> None:
    """A call that ends the process takes few lines with it."""
    log = told.agent_log("10-a")
    log.hold()
    for number in range(MAX_HELD + 5):
        log(INFO, str(number))
    assert told.order == [str(number) for number in range(MAX_HELD + 5)]


def test_no_line_waits_for_one_that_comes_late(
    told: _Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = told.agent_log("10-a")
    log.hold()
    log(INFO, "early")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + HOLD_S)
    log(INFO, "late")
    assert told.order == ["early", "late"]


def test_what_a_guest_that_is_gone_said_is_written(told: _Told) -> None:
    log = GuestLog(told.agent_log("10-a"), 100, 100)
    log.hold()
    log.say(WARN, "a line")
    log.stream(1, b"and one without its end")
    log.flush()
    assert told.order == ["a line", "and one without its end"]
