"""How much may happen at once and then in a second. No clock of its own."""

import math


class Allowance:
    """A bucket of tokens: `burst` at first, refilled at `per_s`."""

    def __init__(self, burst: int, per_s: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._left = float(burst)
        self._at = -math.inf  # when `_left` was counted

    def spend(self) -> None:
        """Take one; there may be a debt afterwards."""
        self._left -= 1

    def due(self, now: float) -> float:
        """When there is one to take: not after `now` if there is."""
        if now > self._at:
            gained = (now - self._at) * self._per_s
            self._left = min(float(self._burst), self._left + gained)
            self._at = now
        return now if self._left >= 1 else now + (1 - self._left) / self._per_s
