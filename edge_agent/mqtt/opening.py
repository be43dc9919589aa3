"""Connecting on a thread of its own: names, TCP and TLS may take their time-outs each.

The link's thread goes on keeping what is reported: nothing waits in memory for a broker.
"""

import threading
from collections.abc import Callable
from typing import Protocol

from edge_agent import threads

# TLS handshakes and name lookups fit; the default of 8 MB counts where memory is locked.
STACK_BYTES = 512 * 1024


class Opened(Protocol):
    """The part of a connection that is needed here."""

    def open(self) -> None:
        """Connect. LinkError."""

    def close(self) -> None:
        """Drop it."""


class Opening:
    """Begins at once. After `finished` the connection belongs to whoever made this."""

    def __init__(self, connection: Opened, done: Callable[[], None]) -> None:
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
