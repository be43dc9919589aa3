"""Sleeping until something happens: at the broker, at a time, or in another thread."""

import math
import select
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_agent.mqtt.connection import Connection


class Waiting:
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
