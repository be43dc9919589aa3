"""What was reported: a queue for items of all threads, and how they become packed records.

The queue is the only part of an outbox that other threads touch.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

from edge_agent.fleet_protocol.limits import MAX_MESSAGE_BYTES
from edge_agent.fleet_protocol.packing import NUMBER_BYTES, PACKINGS, Body

log = logging.getLogger(__name__)

# Raw items hold requests and replies as they came (4 KB is usual): a thousand or so may
# wait while the thread that packs them is busy connecting.
INGRESS_BYTES = 4 * 1024 * 1024
# Room for the batch's head (node, stream) and one gap in front of the largest record.
HEAD_BYTES = 512
# What a record too large for one message keeps: short texts and numbers, the first of them.
SHORT_TEXT = 256
SHORT_FIELDS = 32

Describe = Callable[[object], Mapping[str, object] | None]


class Taken(NamedTuple):
    """An item, and how many of its kind were dropped just before it."""

    item: object
    important: bool
    skipped: int


_Raw = tuple[int, int, object]
"""Place among those of its kind, from 1; size; item. Plain: one is made for each event."""


class IngressQueue:
    """At most `max_items` of together `max_bytes`; the oldest ordinary item is dropped first.

    Every step is O(1), and the lock is held for one append or one pop.
    """

    def __init__(self, max_items: int, max_bytes: int = INGRESS_BYTES) -> None:
        self.put_so_far = 0
        self.dropped = 0
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._ordinary: deque[_Raw] = deque()
        self._important: deque[_Raw] = deque()
        self._places = {False: 0, True: 0}  # of the newest of each kind
        self._taken = {False: 0, True: 0}  # of the last one that left
        self._bytes = self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def put(self, item: object, size: int, important: bool) -> int:
        """Take over `item`, `size` bytes large; any thread, never waits. How many wait now."""
        with self._lock:
            self.put_so_far += 1
            self._places[important] = place = self._places[important] + 1
            if size > self._max_bytes:
                self.dropped += 1  # alone too large: nothing else has to go for it
                return self._waiting
            (self._important if important else self._ordinary).append((place, size, item))
            self._bytes += size
            self._waiting += 1
            while self._waiting > self._max_items or self._bytes > self._max_bytes:
                _, least, _ = (self._ordinary or self._important).popleft()
                self._bytes -= least
                self._waiting -= 1
                self.dropped += 1
            return self._waiting

    def pop(self) -> Taken | None:
        """The oldest important item, else the oldest ordinary one, else None."""
        with self._lock:
            important = bool(self._important)
            lane = self._important or self._ordinary
            if not lane:
                return None
            place, size, item = lane.popleft()
            self._bytes -= size
            self._waiting -= 1
            skipped = place - self._taken[important] - 1
            self._taken[important] = place
            return Taken(item, important, skipped)


class RecordPacker:
    """Describes items and packs the records; slow beside the queue, for one thread."""

    def __init__(self, describe: Describe, encoding: str) -> None:
        self._describe = describe
        self._packing = PACKINGS[encoding]()

    def body(self, item: object) -> Body | None:
        """The packed record of `item`, cut where it is too large; None: it has no record."""
        try:
            record = self._describe(item)
        except Exception as error:
            # A defect there must not cost the number, nor end this thread.
            log.exception("a result could not be described")
            record = {"error": f"this result could not be described: {error}"}
        if record is None:
            return None
        try:
            body = self._packing.body(record)
        except (ValueError, TypeError, OverflowError) as error:
            return self._packing.body({"error": f"not packed: {error}"})
        if len(body.packed) <= MAX_MESSAGE_BYTES - HEAD_BYTES - NUMBER_BYTES:
            return body
        short = [(key, value) for key, value in record.items() if _is_short(value)]
        return self._packing.body({**dict(short[:SHORT_FIELDS]), "cut_bytes": len(body.packed)})


def _is_short(value: object) -> bool:
    if isinstance(value, str | bytes):
        return len(value) <= SHORT_TEXT
    return value is None or isinstance(value, bool | int | float)
