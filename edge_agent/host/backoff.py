"""Trying again after a while that doubles each time, with jitter."""

import random
from collections.abc import Callable

from edge_agent.loop import Loop, Timer

MIN_S, MAX_S = 0.25, 60.0
_MAX_DOUBLINGS = 8  # beyond MAX_S; keeps the power small


class Backoff:
    """Calls `action` on the loop; one attempt is planned at a time."""

    def __init__(self, loop: Loop, action: Callable[[], None]) -> None:
        self._loop = loop
        self._action = action
        self._attempts = 0
        self._timer: Timer | None = None

    def again(self) -> None:
        """Plan the next attempt, later than the last time."""
        wait = min(MAX_S, MIN_S * 2**self._attempts)
        self._attempts = min(self._attempts + 1, _MAX_DOUBLINGS)
        self.cancel()
        self._timer = self._loop.call_later(wait * random.uniform(0.75, 1.25), self._action)

    def reset(self) -> None:
        """The next wait is the shortest."""
        self._attempts = 0

    def cancel(self) -> None:
        """What was planned is not done."""
        if self._timer is not None:
            self._timer.cancel()

    @property
    def waiting(self) -> bool:
        return self._timer is not None and self._timer.pending
