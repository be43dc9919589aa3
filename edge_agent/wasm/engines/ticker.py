"""Wakes an engine while guests run, so that it looks at the clock and stops who is late.

A tick says nothing of the time: a thread that a busy machine lets wait comes late, and ticks
that were counted would stretch every deadline. Who is late is told by the clock alone, where
the engine looks at it (docs/adr/0036). The thread runs only while calls are made: a quiet
board is not woken.
"""

import threading
import time
from collections.abc import Callable, Iterable

from edge_agent import threads

TICK_S = 0.025  # at most between two ticks: a call with an earlier deadline may have begun
_SHORTEST_S = 0.001  # a thread sleeps no less than some tenths of that
_LINGER_S = 0.25  # after the last call, so that a burst of calls starts it once
_STACK_BYTES = 128 << 10  # it calls one C function; a default stack reserves 8 MB


def until_next_tick(now: float, deadlines: Iterable[float]) -> float:
    """Seconds to the next tick: at the first deadline that is ahead, at most TICK_S away."""
    return max(_SHORTEST_S, min((TICK_S, *(due - now for due in deadlines if due > now))))


class Ticker:
    """One daemon thread that calls `tick` again and again while anybody is within `enter`."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick = tick
        # Until when, by who; changed by single operations, atomic under the GIL.
        self._running: dict[int, float] = {}
        self._last = 0.0
        self._idle = True
        self._wanted = threading.Semaphore(0)
        # Here and not at the first call, which has other things to do.
        threads.start(self._run, name="ticker", stack_bytes=_STACK_BYTES)

    def enter(self, who: int, now: float, until: float) -> None:
        """`who` begins a call at `now` (monotonic), which is to end at `until`."""
        self._running[who] = until
        self._last = now
        if self._idle:
            self._idle = False
            self._wanted.release()

    def leave(self, who: int) -> None:
        """The call is over."""
        self._running.pop(who, None)

    def within(self, who: int) -> bool:
        """Whether `who` is in a call."""
        return who in self._running

    def _run(self) -> None:
        while True:
            self._wanted.acquire()
            while self._running or time.monotonic() - self._last < _LINGER_S:
                deadlines = list(self._running.values())
                time.sleep(until_next_tick(time.monotonic(), deadlines))
                self._tick()
            self._idle = True
            if self._running:  # began between the last look and the line above
                self._idle = False
                self._wanted.release()
