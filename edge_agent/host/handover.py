"""When a successor takes over from its predecessor: pure decisions (docs/adr/0004).

Both sessions stand under the same index and name, and the runtime sends each event to
both, one event after the other, in an order that is its own. The predecessor answers
until the border between two events at which the successor is known to be in the
runtime's list: an event that reached both, or a time in which nothing was halfway.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field

SETTLE_S = 1.0
"""After this long without an event under way the successor is in the runtime's list: the
runtime appends it right after its Synchronize, before it lets go of container requests."""

FORGET_S = 3.0
"""An event that reached one side only was given up by the runtime: its time-out (2 s by
default) has passed."""


@dataclass
class Handover:
    """One replacement under way. Times are monotonic seconds."""

    started: float
    old_events: int  # masks of what each side is subscribed to
    new_events: int
    _half: tuple[bool, Hashable] | None = field(default=None, init=False)
    _half_since: float = field(default=0.0, init=False)

    def seen(self, by_old: bool, bit: int, key: Hashable, now: float) -> bool:
        """One side has been sent the event `key`. True: switch once it is answered."""
        if not (self.old_events & bit and self.new_events & bit):
            return False
        if self._half == (not by_old, key):
            return True
        self._half, self._half_since = (by_old, key), now
        return False

    def may_switch(self, now: float, old_failed: bool) -> bool:
        """Whether it is safe to switch between events, by time alone.

        A failed predecessor may end each event before the successor sees it; it is
        relieved as soon as the successor has settled.
        """
        if now - self.started < SETTLE_S:
            return False
        return old_failed or self._half is None or now - self._half_since > FORGET_S
