"""Results on their way to the broker: bounded, numbered, kept until acknowledged.

    put (any thread) -> intake, raw -> pack -> packed records -> take -> in flight -> acknowledge
                                                      ^------------ rewind ------------'

Everything that is put gets a number, without gaps. What a bound forces out leaves a jump
in the numbers; where one is met while a batch is built, the batch says so with a record
`{"gap": {"from", "to", "count"}}`. A consumer therefore finds each number in a record or
in a gap, removes duplicates by (node, stream, seq), and believes a record before a gap.

`put` is all that the thread answering a runtime ever calls. Everything else belongs to one
other thread: describing and packing is its work.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping

from edge_agent.mqtt.lanes import Entry, Lanes
from edge_agent.mqtt.packing import Packing, Record

log = logging.getLogger(__name__)

# The fleet protocol's: what every common broker takes, beside the topic.
MESSAGE_BYTES = 64 * 1024
# Raw items hold requests and replies as they came (4 KB is usual): a thousand or so may
# wait while the thread that packs them is busy connecting.
INTAKE_BYTES = 4 * 1024 * 1024
# A packed record has 300 bytes or so. The bound in bytes follows the one in records, so
# that `queue_records` alone says how much memory a long time without a network takes.
RECORD_BYTES = 1024
# Room for the batch's head (node, stream) and one gap in front of the largest record.
HEAD_BYTES = 512
# What a record too large for one message keeps: short texts and numbers, the first of them.
SHORT_TEXT = 256
SHORT_FIELDS = 32

Describe = Callable[[object], Mapping[str, object] | None]


class Batch:
    """Records in one message, in flight from `take` until `acknowledge` or `rewind`."""

    __slots__ = ("acknowledged", "entries", "first", "payload")

    def __init__(self, first: int, entries: list[Entry[bytes]], payload: bytes) -> None:
        self.first = first  # the lowest number that the batch accounts for, gaps included
        self.entries = entries
        self.payload = payload
        self.acknowledged = False


class Outbox:
    """One stream of records of one node; `stream` is its random name for this boot."""

    def __init__(
        self,
        node: str,
        packing: Packing,
        describe: Describe,
        *,
        queue_records: int,
        batch_records: int,
    ) -> None:
        self.stream = os.urandom(8).hex()
        self._head: Record = {"version": 1, "node": node, "stream": self.stream}
        self._head_bytes = len(packing.pack(self._head)) + packing.overhead
        self._packing = packing
        self._describe = describe
        self._batch_records = batch_records
        # Shared with the threads that put; the lock is held for one append or one pop.
        self._lock = threading.Lock()
        self._intake: Lanes[object] = Lanes(queue_records, INTAKE_BYTES)
        self._put = 0  # items put so far, and so the place of the newest
        self._dropped_raw = 0
        # The packing thread's own.
        self._packed: Lanes[bytes] = Lanes(queue_records, queue_records * RECORD_BYTES)
        self._in_flight: deque[Batch] = deque()
        self._skipped = 0  # items without a record
        self._place = 0  # place of the last item that left the intake
        self._number = 0  # number of the last record
        self._next = 1  # number that the next batch begins with
        self._sent = 0
        self._dropped_packed = 0

    def put(self, item: object, size: int = 0, important: bool = False) -> int:
        """Take over `item`, `size` bytes large; any thread, never waits, O(1).

        Returns how many items wait to be packed. Important items are dropped last.
        """
        with self._lock:
            self._put += 1
            self._dropped_raw += self._intake.push(Entry(self._put, size, important, item))
            return len(self._intake)

    @property
    def waiting(self) -> int:
        """Items that were put and not packed yet."""
        return len(self._intake)

    @property
    def packed(self) -> int:
        """Records that `take` would take."""
        return len(self._packed)

    @property
    def queued(self) -> int:
        """Items and records that no broker has acknowledged."""
        return self._put - self._skipped - self._sent - self.dropped

    @property
    def sent(self) -> int:
        """Records that a broker acknowledged."""
        return self._sent

    @property
    def dropped(self) -> int:
        """Items and records that a bound forced out."""
        return self._dropped_raw + self._dropped_packed

    def pack(self, most: int) -> None:
        """Describe and pack up to `most` of the items that wait."""
        for _ in range(most):
            with self._lock:
                if not self._intake:
                    return
                entry = self._intake.pop()
            self._number += entry.number - self._place - 1  # what the intake dropped
            self._place = entry.number
            record = self._described(entry.item)
            if record is None:
                self._skipped += 1
                continue
            self._number += 1
            packed = self._packed_record({**record, "seq": self._number})
            self._dropped_packed += self._packed.push(
                Entry(self._number, len(packed), entry.important, packed)
            )

    def take(self, max_bytes: int = MESSAGE_BYTES) -> Batch | None:
        """The next batch, its payload at most `max_bytes` long; None if nothing is packed."""
        first, records, entries = self._next, list[bytes](), list[Entry[bytes]]()
        room = max_bytes - self._head_bytes
        while len(entries) < self._batch_records and (entry := self._packed.first()):
            parts = [entry.item]
            if entry.number > self._next:
                parts.insert(0, self._gap(self._next, entry.number - 1))
            needed = sum(map(len, parts)) + len(parts) * self._packing.separator
            if needed > room:
                if entries:
                    break
                # Alone too large for this broker: it becomes part of a gap.
                self._packed.pop()
                self._dropped_packed += 1
                continue
            room -= needed
            records += parts
            entries.append(self._packed.pop())
            self._next = entry.number + 1
        if not entries:
            return None
        batch = Batch(first, entries, self._packing.batch(self._head, records))
        self._in_flight.append(batch)
        return batch

    def acknowledge(self, batch: Batch) -> None:
        """The broker has `batch`. One overtaken by a later one keeps that one waiting too."""
        batch.acknowledged = True
        while self._in_flight and self._in_flight[0].acknowledged:
            self._sent += len(self._in_flight.popleft().entries)

    def rewind(self) -> None:
        """Nothing in flight counts any more: it will be taken again, in the same order."""
        while self._in_flight:
            batch = self._in_flight.pop()
            self._next = batch.first
            for entry in reversed(batch.entries):
                self._packed.push_back(entry)

    def _described(self, item: object) -> Mapping[str, object] | None:
        try:
            return self._describe(item)
        except Exception as error:
            # A defect there must not cost the number, nor end this thread.
            log.exception("a result could not be described")
            return {"error": f"this result could not be described: {error}"}

    def _packed_record(self, record: Record) -> bytes:
        try:
            packed = self._packing.pack(record)
        except (ValueError, TypeError, OverflowError) as error:
            return self._packing.pack({"seq": record["seq"], "error": f"not packed: {error}"})
        if len(packed) <= MESSAGE_BYTES - HEAD_BYTES:
            return packed
        short = [(key, value) for key, value in record.items() if _is_short(value)]
        kept = {**dict(short[:SHORT_FIELDS]), "seq": record["seq"], "cut_bytes": len(packed)}
        return self._packing.pack(kept)

    def _gap(self, first: int, last: int) -> bytes:
        gap = {"from": first, "to": last, "count": last - first + 1}
        return self._packing.pack({"gap": gap})


def _is_short(value: object) -> bool:
    if isinstance(value, str | bytes):
        return len(value) <= SHORT_TEXT
    return value is None or isinstance(value, bool | int | float)
