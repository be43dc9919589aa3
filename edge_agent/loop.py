"""A thread that waits for many things: a selector, timers and a wake-up. One answers the
runtimes, and the link to the broker has one.

Callbacks run on the thread that called `run`, one at a time; none may wait for disk,
network, a compiler or a lock that another thread holds meanwhile. Other threads hand
work over with `call_soon`, the only method that they may call.
"""

import heapq
import itertools
import logging
import math
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

log = logging.getLogger(__name__)


class HasFileno(Protocol):
    """What a selector can watch."""

    def fileno(self) -> int:
        """The open file descriptor."""


class Timer:
    """A callback due at a monotonic time; `cancel` makes it never run."""

    __slots__ = ("_callback", "when")

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self._callback = None

    def fire(self) -> None:
        """Run the callback unless it ran or was cancelled."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()

    @property
    def pending(self) -> bool:
        return self._callback is not None


class Loop:
    """A selector loop; also a context manager that closes its own descriptors."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._handed_over: deque[Callable[[], None]] = deque()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self.watch(self._wake_reader, selectors.EVENT_READ, self._woken)
        self._running = False
        self.turns = 0  # grows while the loop really turns; a watchdog reads it

    def __enter__(self) -> "Loop":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._selector.close()
        self._wake_reader.close()
        self._wake_writer.close()

    @property
    def wake_fd(self) -> int:
        """A descriptor for `signal.set_wakeup_fd`: a byte written there turns the loop."""
        return self._wake_writer.fileno()

    def watch(self, file: HasFileno, events: int, callback: Callable[[int], None]) -> None:
        """Call `callback(ready events)` whenever `file` is ready; replaces an earlier watch."""
        try:
            self._selector.modify(file, events, callback)
        except KeyError:
            self._selector.register(file, events, callback)

    def unwatch(self, file: HasFileno) -> None:
        """Stop watching; a file that is not watched is fine."""
        try:
            self._selector.unregister(file)
        except (KeyError, ValueError):
            pass

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Run `callback` once, `seconds` from now or as soon after as the loop turns."""
        timer = Timer(time.monotonic() + seconds, callback)
        heapq.heappush(self._timers, (timer.when, next(self._order), timer))
        return timer

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run `callback` on the loop's thread soon. Safe from any thread, never blocks."""
        self._handed_over.append(callback)
        try:
            self._wake_writer.send(b"\0")
        except (BlockingIOError, OSError):
            pass  # full: a wake-up is pending already; closed: the loop is over

    def stop(self) -> None:
        """Make `run` return after the present turn. Loop thread, or through `call_soon`."""
        self._running = False

    def run(self) -> None:
        """Turn until `stop`. An exception in a callback is logged, the loop goes on."""
        self._running = True
        while self._running:
            self.turn()

    def turn(self, until: float = math.inf) -> None:
        """Wait for the next thing to do, at most until then (monotonic), and do all that is due."""
        watched = self._selector.get_map()
        for key, events in self._selector.select(self._wait_s(until)):
            # A callback may have ended another's watch; one that was changed is ready again.
            if watched.get(key.fd) is key:
                self._guarded(key.data, events)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            self._guarded(heapq.heappop(self._timers)[2].fire)
        self.turns += 1

    def _wait_s(self, until: float) -> float | None:
        while self._timers and not self._timers[0][2].pending:
            heapq.heappop(self._timers)
        due = min(until, self._timers[0][0]) if self._timers else until
        return None if due == math.inf else max(0.0, due - time.monotonic())

    def _woken(self, _events: int) -> None:
        try:
            while len(self._wake_reader.recv(4096)) == 4096:
                pass
        except BlockingIOError:
            pass
        for _ in range(len(self._handed_over)):  # what these add waits for the next turn
            self._guarded(self._handed_over.popleft())

    def _guarded(self, callback: Callable[..., None], *arguments: int) -> None:
        try:
            callback(*arguments)
        except Exception:
            # A defect in one session must not end the others.
            log.exception("a callback of the loop failed; the loop goes on")
