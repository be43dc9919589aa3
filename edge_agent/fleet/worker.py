"""The thread that runs the Updater; no other thread waits for it.

The thread makes the Updater, so what that imports is loaded while everything else is
starting. Its inbox is bounded: of documents the latest of each kind waits, of parts twice
what was asked for; a part that finds no room is asked for again by and by.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from edge_agent import process
from edge_agent.fleet_protocol.topics import DocumentOf, PartOf

if TYPE_CHECKING:
    from edge_agent.fleet.updater import Updater

log = logging.getLogger(__name__)

# Twice the window of edge_agent.fleet.transfer.parts: 1 MiB.
MAX_PARTS = 16
# JSON, signatures and the disk fit; the default of 8 MB counts where memory is locked.
STACK_BYTES = 512 * 1024
# After an error of ours, which is not to become a loop without a rest.
ERROR_PAUSE_S = 60.0
STOP_TIMEOUT_S = 1.0

T = TypeVar("T")


class Worker:
    """Owns the thread and the Updater on it. Any thread may call any method."""

    def __init__(
        self,
        make: Callable[[Callable[[], None]], "Updater"],
        attempted: Callable[[], None] = lambda: None,
    ) -> None:
        """`make` is called on the thread, with the Updater's `wake`; `attempted` once it has
        begun, or has failed to for the first time."""
        self._make = make
        self._attempted: Callable[[], None] | None = attempted
        self._change = threading.Condition()
        self._documents: dict[DocumentOf, bytes] = {}  # the latest of each kind
        self._parts: deque[tuple[PartOf, bytes]] = deque()
        self._calls: deque[Callable[[Updater], None]] = deque()
        self._woken = self._stopping = False
        self._updater: Updater | None = None
        self._thread: threading.Thread | None = None
        self.dropped = 0  # parts that found no room

    def start(self) -> None:
        """Begin, once."""
        self._thread = process.start(self._run, name="fleet", stack_bytes=STACK_BYTES)

    def received(self, what: DocumentOf | PartOf, payload: bytes) -> None:
        """A message came from the broker; returns at once."""
        with self._change:
            if isinstance(what, DocumentOf):
                self._documents[what] = payload
            elif len(self._parts) == MAX_PARTS:
                self.dropped += 1
                return
            else:
                self._parts.append((what, payload))
            self._change.notify()

    def call(self, work: Callable[["Updater"], T], done: Callable[[T], None] | None = None) -> None:
        """Have `work` done, and `done` called with what it gives; both on the thread."""

        def both(updater: "Updater") -> None:
            result = work(updater)
            if done is not None:
                done(result)

        with self._change:
            self._calls.append(both)
            self._change.notify()

    def wake(self) -> None:
        """There is something to do."""
        with self._change:
            self._woken = True
            self._change.notify()

    def status(self) -> dict[str, Any]:
        """`Updater.status`; empty before the updater has begun."""
        updater = self._updater
        return updater.status() if updater is not None else {}

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End soon; what is under way goes on with the next start."""
        with self._change:
            self._stopping = True
            self._change.notify()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        due = -math.inf
        while not self._stopping:
            try:
                due = self._turn(due)
            except Exception:  # a defect here must not end what runs
                log.exception("the fleet's part failed; it goes on in a minute")
                self._rest()
                due = -math.inf
        if self._updater is not None:
            self._updater.stop()

    def _begin(self) -> "Updater":
        try:
            updater = self._make(self.wake)
            updater.start()
        finally:
            attempted, self._attempted = self._attempted, None
            if attempted is not None:
                attempted()
        return updater

    def _rest(self) -> None:
        """Whatever comes meanwhile: what made it fail may come without end."""
        with self._change:
            self._change.wait_for(lambda: self._stopping, ERROR_PAUSE_S)

    def _turn(self, due: float) -> float:
        """Wait until something is to be done, and do it; when to come back."""
        updater = self._updater
        if updater is None:
            updater = self._updater = self._begin()
        messages, calls = self._wait(due)
        for work in calls:
            try:
                work(updater)
            except Exception:  # the others may be verdicts, which come once
                log.exception("the fleet's part could not do what it was asked for")
        for what, payload in messages:
            updater.received(what, payload)
        return updater.step(time.monotonic())

    def _wait(
        self, due: float
    ) -> tuple[list[tuple[DocumentOf | PartOf, bytes]], list[Callable[["Updater"], None]]]:
        with self._change:
            self._change.wait_for(self._anything, _timeout(due - time.monotonic()))
            messages: list[tuple[DocumentOf | PartOf, bytes]] = [*self._documents.items()]
            messages += self._parts
            calls = list(self._calls)
            self._documents.clear()
            self._parts.clear()
            self._calls.clear()
            self._woken = False
            return messages, calls

    def _anything(self) -> bool:
        waiting = self._documents or self._parts or self._calls
        return bool(waiting) or self._woken or self._stopping


def _timeout(seconds: float) -> float | None:
    # More than a day overflows on some platforms, and is no matter.
    return None if seconds == math.inf else min(max(seconds, 0.0), 86_400.0)
