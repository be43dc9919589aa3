"""When to try again to reach a runtime that is away. Pure: monotonic seconds in, seconds out."""

FIRST_S = 0.002
"""After a socket has appeared: a runtime binds it a moment before it listens."""
EARLY_FOR_S = 10.0
"""A restart is over by then; whatever takes longer is an upgrade, or the runtime's end."""
EARLY_MAX_S, LATE_MAX_S = 0.25, 2.0
"""An attempt costs one stat and one refused connect: no reason to wait longer, ever."""


class Reconnect:
    """One wait for each runtime, however many plugins wait for it.

    `early_s` is the longest wait in the first EARLY_FOR_S, `late_s` afterwards; neither counts
    above its maximum. There is no jitter: one process waits for one socket of its own machine.
    """

    def __init__(self, early_s: float, late_s: float) -> None:
        self._early_s = min(early_s, EARLY_MAX_S)
        self._late_s = min(late_s, LATE_MAX_S)
        self._next_s = FIRST_S
        self._since: float | None = None  # the first failure

    def failed(self, now: float) -> float:
        """An attempt failed: seconds until the next one."""
        if self._since is None:
            self._since = now
        limit = self._early_s if now - self._since < EARLY_FOR_S else self._late_s
        wait = min(self._next_s, limit)
        self._next_s = min(self._next_s * 2, self._late_s)
        return wait

    def reset(self) -> None:
        """The runtime was reached, or its socket is another: begin with the shortest wait."""
        self._since, self._next_s = None, FIRST_S
