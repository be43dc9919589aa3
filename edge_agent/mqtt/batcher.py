"""When what was put into an outbox is packed: after a short wait for company."""

import math

from edge_agent.mqtt.outbox import Outbox

# Packing holds the interpreter, which the thread that answers the runtime needs: a few
# records (about a millisecond), then a pause in which that thread goes first.
PACK_AT_ONCE = 16
PAUSE_S = 0.001

_NEVER = 1 << 62


class Batcher:
    """Lets the items of `outbox` wait `batch_s` for others, or until `batch_items` wait.

    Only then is the packing thread woken, and only if it sleeps: putting an item costs no
    system call while a batch is gathering.
    """

    def __init__(self, outbox: Outbox, batch_s: float, batch_items: int) -> None:
        self.outbox = outbox
        self._batch_s = batch_s
        self._batch_items = batch_items
        self._due: float | None = None  # when those that wait now have waited enough
        self._wake_at = _NEVER  # number of waiting items that ends the thread's sleep

    def put(self, item: object, size: int, important: bool) -> bool:
        """Any thread. True: wake the packing thread, once."""
        if self.outbox.put(item, size, important) < self._wake_at:
            return False
        self._wake_at = _NEVER
        return True

    def hurry(self) -> None:
        """Wait for nothing any more."""
        self._batch_s = 0.0
        if self._due is not None:
            self._due = -math.inf

    def step(self, now: float) -> None:
        """Pack some if they have waited enough."""
        if self._due is None and self.outbox.waiting:
            self._due = now + self._batch_s
        if self._ripe(now):
            self.outbox.pack(PACK_AT_ONCE, now)
        if not self.outbox.waiting:
            self._due = None

    def sleep_until(self, now: float) -> float:
        """When `step` is due (monotonic; infinity: when woken). Arms the wake-up."""
        if self._ripe(now):
            return now + PAUSE_S
        self._wake_at = 1 if self._due is None else self._batch_items
        # What was put before the wake-up was armed wakes nobody: look again.
        if self.outbox.waiting >= self._wake_at:
            return now
        return math.inf if self._due is None else self._due

    def _ripe(self, now: float) -> bool:
        if self._due is None:
            return False
        return now >= self._due or self.outbox.waiting >= self._batch_items
