"""How the link's thread waits: for the broker, a time or another thread, and while another
thread connects.

Names, TCP and TLS may take their time-outs each; the link's thread goes on keeping what is
reported meanwhile: nothing waits in memory for a broker.
"""

import math
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from edge_agent import threads

if TYPE_CHECKING:
    from edge_agent.mqtt.connection import Connection

# TLS handshakes and name lookups fit; the default of 8 MB counts where memory is locked.
STACK_BYTES = 512 * 1024


class Poller:
    """`wait` belongs to one thread, `wake` to all."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def wake(self) -> None:
        """End the sleep, the present one or the next."""
        try:
            self._writer.send(b"\0")
        except OSError:
            pass  # full: a wake-up is pending already; closed: nobody is left to wake

    def wait(self, until: float, connection: "Connection | None") -> None:
        """Sleep until then (monotonic) or until something happens, and let `connection` read
        and write what there is. LinkError: it is over.
        """
        poller = select.poll()
        poller.register(self._reader, select.POLLIN)
        if connection is not None:
            now = time.monotonic()
            read_due = connection.read_due(now)
            wanted = select.POLLOUT if connection.wants_write else 0
            if read_due <= now:
                wanted |= select.POLLIN
            if connection.has_read or read_due > now:
                until = min(until, read_due)
            poller.register(connection.fileno(), wanted)
            until = min(until, connection.tend_due)
        rest = until - time.monotonic()
        timeout_ms = max(0, math.ceil(rest * 1000)) if until < math.inf else None
        readable = writable = False
        for file, events in poller.poll(timeout_ms):
            if file == self._reader.fileno():
                self._reader.recv(4096)
            else:
                readable = bool(events & ~select.POLLOUT)
                writable = bool(events & select.POLLOUT)
        if connection is not None:
            now = time.monotonic()
            readable = readable or (connection.has_read and connection.read_due(now) <= now)
            connection.ready(readable, writable)
            connection.tend(now)

    def close(self) -> None:
        """Nobody waits any more."""
        self._reader.close()
        self._writer.close()


class Connectable(Protocol):
    """The part of a connection that is needed here."""

    def open(self) -> None:
        """Connect. LinkError."""

    def close(self) -> None:
        """Drop it."""


class Connector:
    """Begins at once. After `finished` the connection belongs to whoever made this."""

    def __init__(self, connection: Connectable, done: Callable[[], None]) -> None:
        """`done` is called on the other thread, at the end."""
        self._connection = connection
        self._done = done
        self._error: Exception | None = None
        self._lock = threading.Lock()
        self._finished = self._abandoned = False
        threads.start(self._run, name="mqtt-connect", stack_bytes=STACK_BYTES)

    @property
    def finished(self) -> bool:
        """There is a result."""
        return self._finished

    def result(self) -> None:
        """Once finished: raises what went wrong."""
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """Nobody waits for it any more; unless it has finished, it closes what it opens."""
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
