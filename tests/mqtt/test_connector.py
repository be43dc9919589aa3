"""A connection that is opened elsewhere, and perhaps not wanted any more."""

import threading

import pytest

from edge_agent.errors import LinkError
from edge_agent.mqtt.connection import Connector
from edge_agent.mqtt.link import STACK_BYTES
from tests.support.wait import TIMEOUT_S


class Slow:
    """Opens when it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.may_open = threading.Event()
        self.closed = False
        self._error = error

    def open(self) -> None:
        assert self.may_open.wait(TIMEOUT_S)
        if self._error:
            raise self._error

    def close(self) -> None:
        self.closed = True


def finished(connection: Slow) -> tuple[Connector, threading.Event]:
    """An opening, and what is set at its end."""
    done = threading.Event()
    return Connector(connection.open, connection.close, done.set, STACK_BYTES), done


def test_who_waits_is_told_and_gets_the_connection() -> None:
    slow = Slow()
    opening, done = finished(slow)
    assert not opening.finished
    slow.may_open.set()
    assert done.wait(TIMEOUT_S)
    assert opening.finished
    opening.result()
    assert not slow.closed


def test_what_goes_wrong_is_raised_where_it_is_waited_for() -> None:
    slow = Slow(LinkError("refused"))
    opening, done = finished(slow)
    slow.may_open.set()
    assert done.wait(TIMEOUT_S)
    with pytest.raises(LinkError, match="refused"):
        opening.result()


def test_a_connection_that_nobody_waits_for_any_more_is_closed() -> None:
    slow = Slow()
    opening, done = finished(slow)
    opening.abandon()
    assert not slow.closed
    slow.may_open.set()
    assert done.wait(TIMEOUT_S)
    assert slow.closed
