"""How often something may happen, and when to try again. Pure: the caller has the clock."""

import math
import random


class TokenBucket:
    """`burst` tokens at first, refilled at `per_s` tokens in a second."""

    def __init__(self, burst: int, per_s: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._left = float(burst)
        self._at = -math.inf  # when `_left` was counted

    def spend(self) -> None:
        """Take a token; there may be a debt afterwards."""
        self._left -= 1

    def due(self, now: float) -> float:
        """When there is a token to take: not after `now` if there is one."""
        if now > self._at:
            gained = (now - self._at) * self._per_s
            self._left = min(float(self._burst), self._left + gained)
            self._at = now
        return now if self._left >= 1 else now + (1 - self._left) / self._per_s


def backoff_s(failures: int, least_s: float, most_s: float) -> float:
    """How long to wait after `failures` failures in a row: doubling, and up to half less.

    Nodes that lost their broker at the same moment do not come back at the same moment.
    """
    full = min(most_s, least_s * 2.0 ** min(failures - 1, 63))
    return full * random.uniform(0.5, 1.0)
