"""How often something may happen, and when to try again."""

import math
import random
from collections.abc import Callable

from edge_agent.loop import Loop, Timer


class TokenBucket:
    """`burst` tokens at first, refilled at `per_s` tokens in a second. Pure: the caller has the
    clock."""

    def __init__(self, burst: int, per_s: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._left = float(burst)
        self._at = -math.inf  # when `_left` was counted

    def take(self, now: float) -> bool:
        """Take a token; False: there is none."""
        if now > self._at:
            self._refill(now)
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def spend(self) -> None:
        """Take a token in any case; there may be a debt afterwards."""
        self._left -= 1

    def due(self, now: float) -> float:
        """When there is a token to take: not after `now` if there is one."""
        self._refill(now)
        return now if self._left >= 1 else now + (1 - self._left) / self._per_s

    def _refill(self, now: float) -> None:
        if now > self._at:
            gained = (now - self._at) * self._per_s
            self._left = min(float(self._burst), self._left + gained)
            self._at = now


def backoff_s(failures: int, least_s: float, most_s: float) -> float:
    """Seconds to wait after `failures` failures in a row: doubling, and up to half less.

    Nodes that lost their broker at the same moment do not come back at the same moment.
    """
    full = min(most_s, least_s * 2.0 ** min(failures - 1, 63))
    return full * random.uniform(0.5, 1.0)


class Backoff:
    """Calls `action` on the loop after each failure; one attempt is planned at a time."""

    LEAST_S, MOST_S = 0.25, 60.0

    def __init__(self, loop: Loop, action: Callable[[], None]) -> None:
        self._loop = loop
        self._action = action
        self._failures = 0
        self._timer: Timer | None = None

    def again(self) -> None:
        """Plan the next attempt, later than the last time."""
        self._failures += 1
        self.cancel()
        wait_s = backoff_s(self._failures, self.LEAST_S, self.MOST_S)
        self._timer = self._loop.call_later(wait_s, self._action)

    def reset(self) -> None:
        """The next wait is the shortest."""
        self._failures = 0

    def cancel(self) -> None:
        """Cancel the attempt that is planned."""
        if self._timer is not None:
            self._timer.cancel()

    @property
    def waiting(self) -> bool:
        """Whether an attempt is planned."""
        return self._timer is not None and self._timer.pending
