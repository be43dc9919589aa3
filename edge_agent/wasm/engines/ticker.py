"""Moves an engine's clock while guests run, so that a guest out of time is stopped.

A call sets its deadline as a number of ticks; this thread makes the ticks. It runs only
while calls are made: a quiet board is not woken.
"""

import threading
import time
from collections.abc import Callable

from edge_agent import threads

TICK_S = 0.025  # the precision of a deadline; 40 wake-ups a second while guests run
_LINGER_S = 0.25  # after the last call, so that a burst of calls starts it once
_STACK_BYTES = 128 << 10  # it calls one C function; a default stack reserves 8 MB


class Ticker:
    """One daemon thread that calls `tick` every TICK_S while anybody is within `enter`."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick = tick
        self._running: set[int] = set()  # changed by single operations, atomic under the GIL
        self._last = 0.0
        self._idle = True
        self._wanted = threading.Semaphore(0)
        # Here and not at the first call: two first calls on two threads would make two
        # clocks, and time would run twice as fast for every guest.
        threads.start(self._run, name="ticker", stack_bytes=_STACK_BYTES)

    @staticmethod
    def ticks(seconds: float) -> int:
        """How many ticks last at least `seconds`, of which nothing may be left."""
        # The first may come at once, and a fraction counts. A negative number would be an
        # enormous one to the engine.
        return int(max(0.0, seconds) / TICK_S) + 2

    def enter(self, who: int, now: float) -> None:
        """`who` begins a call at `now` (monotonic)."""
        self._running.add(who)
        self._last = now
        if self._idle:
            self._idle = False
            self._wanted.release()

    def leave(self, who: int) -> None:
        """The call is over."""
        self._running.discard(who)

    def within(self, who: int) -> bool:
        """Whether `who` is in a call."""
        return who in self._running

    def _run(self) -> None:
        while True:
            self._wanted.acquire()
            while self._running or time.monotonic() - self._last < _LINGER_S:
                time.sleep(TICK_S)
                self._tick()
            self._idle = True
            if self._running:  # began between the last look and the line above
                self._idle = False
                self._wanted.release()
