"""How the link's thread waits: for the broker, a time or another thread, and while another
thread connects.

Names, TCP and TLS may take their time-outs each; the link's thread goes on keeping what is
reported meanwhile: nothing waits in memory for a broker.
"""

import threading
import time
from collections.abc import Callable
from selectors import EVENT_READ, EVENT_WRITE
from typing import TYPE_CHECKING, Protocol

from edge_agent import process
from edge_agent.loop import Loop

if TYPE_CHECKING:
    from edge_agent.mqtt.connection import Connection

# TLS handshakes and name lookups fit; the default of 8 MB counts where memory is locked.
STACK_BYTES = 512 * 1024


class Poller:
    """`wait` belongs to one thread, `wake` to all."""

    def __init__(self) -> None:
        self._loop = Loop()
        self._events = 0  # what the connection's socket is ready for
        self.close = self._loop.close

    def wake(self) -> None:
        """End the sleep, the present one or the next."""
        self._loop.call_soon(_nothing)

    def wait(self, until: float, connection: "Connection | None") -> None:
        """Sleep until then (monotonic) or until something happens, and let `connection` read
        and write what there is. LinkError: it is over.
        """
        if connection is None:
            self._loop.turn(until)
            return
        now = time.monotonic()
        read_due = connection.read_due(now)
        if connection.has_read or read_due > now:
            until = min(until, read_due)
        wanted = EVENT_WRITE if connection.wants_write else 0
        self._sleep(
            min(until, connection.tick_due),
            connection,
            wanted | EVENT_READ if read_due <= now else wanted,
        )
        now = time.monotonic()
        readable = bool(self._events & EVENT_READ) or (
            connection.has_read and connection.read_due(now) <= now
        )
        connection.ready(readable, bool(self._events & EVENT_WRITE))
        connection.tick(now)

    def _sleep(self, until: float, connection: "Connection", wanted: int) -> None:
        self._events = 0
        if wanted:
            self._loop.watch(connection, wanted, self._note)
        try:
            self._loop.turn(until)
        finally:
            self._loop.unwatch(connection)  # it may close before the next wait

    def _note(self, events: int) -> None:
        self._events = events


def _nothing() -> None:
    """To be waken is all."""


class Connectable(Protocol):
    """The part of a connection that is needed here."""

    def open(self) -> None:
        """Connect. LinkError."""

    def close(self) -> None:
        """Drop it."""


class Connector:
    """Begins at once. After `finished` the connection belongs to the caller."""

    def __init__(self, connection: Connectable, done: Callable[[], None]) -> None:
        """`done` is called on the other thread, at the end."""
        self._connection = connection
        self._done = done
        self._error: Exception | None = None
        self._lock = threading.Lock()
        self._finished = self._abandoned = False
        process.start(self._run, name="mqtt-connect", stack_bytes=STACK_BYTES)

    @property
    def finished(self) -> bool:
        """There is a result."""
        return self._finished

    def result(self) -> None:
        """Once finished: raises what went wrong."""
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """The result is not wanted any more: unless it has finished, it closes what it opens."""
        with self._lock:
            self._abandoned = True

    def _run(self) -> None:
        try:
            self._connection.open()
        except Exception as error:
            self._error = error
        with self._lock:
            self._finished = True
            if self._abandoned:
                self._connection.close()
        self._done()
