"""Results on their way to the broker: bounded, numbered, kept until acknowledged.

    put (any thread) -> ingress queue -> pack -> keep: journal, else memory -> take -> acknowledge
                                                                 ^--- rewind ---'

Ordinary and important records have streams of their own, so that what is important can
overtake. Everything gets a number in its stream, without gaps; what a bound forces out
leaves a jump, which the batch that meets it tells (stream.py).

What the journal has on disk outlives this process; while a broker is there it may hold records
in memory for a while (journal.py). What the disk would not take is in memory, in streams of
its own: a number of the journal is never given to something else.

`put` is all that the thread answering a runtime ever calls. Everything else belongs to one
other thread: describing, packing and writing are its work.
"""

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from edge_agent.errors import StoreError
from edge_agent.fleet_protocol.packing import NUMBER_BYTES, PACKINGS, Body
from edge_agent.fleet_protocol.topics import MAX_MESSAGE_BYTES
from edge_agent.mqtt.journal import Journal
from edge_agent.mqtt.stream import Batch, MemoryLane, Stream, Unnumbered

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


# Packed records that wait to be written together: a few messages' worth.
UNWRITTEN_BYTES = 128 * 1024
# A packed record has 300 bytes or so. The bound in bytes follows the one in records, so
# that `queue_records` alone says how much memory a long time without a network takes.
RECORD_BYTES = 1024
# How often a disk that failed is tried again.
RETRY_DISK_S = 30.0


class Outbox:
    """The records of one node's topic, in `journal` if there is one."""

    def __init__(
        self,
        node: str,
        encoding: str,
        describe: Describe,
        *,
        queue_records: int,
        batch_records: int,
        journal: Journal | None = None,
    ) -> None:
        self.journal = journal
        self.disk_trouble = ""  # why new records are kept in memory only
        self._packer = RecordPacker(describe, encoding)
        self._batch_records = batch_records
        self._ingress = IngressQueue(queue_records)
        self._memory = MemoryStore(encoding, queue_records)
        # In the order in which they are sent: what is on disk is older.
        stores = (journal, self._memory) if journal is not None else (self._memory,)
        self._streams = {
            important: [Stream(node, store.lanes[important], batch_records) for store in stores]
            for important in (False, True)
        }
        self._found = 0  # records that an earlier process left
        self._skipped = 0  # items without a record
        # Packed and not kept yet, so without numbers.
        self._unwritten: dict[bool, list[Unnumbered]] = {False: [], True: []}
        self._unwritten_records = self._unwritten_bytes = 0
        self._unnumbered = {False: 0, True: 0}  # numbers to leave out before the next record
        self._retry_at = -math.inf

    def open(self, now: float) -> None:
        """Take over what is on disk; on the thread that does all the rest."""
        if self.journal is None:
            return
        try:
            self._open(self.journal)
        except StoreError as error:
            self._disk_fails(error, now)

    def put(self, item: object, size: int = 0, important: bool = False) -> int:
        """Take over `item`, `size` bytes large; any thread, never waits, O(1).

        Returns how many items wait to be packed. Important items are dropped last.
        """
        return self._ingress.put(item, size, important)

    @property
    def waiting(self) -> int:
        """Items that were put and not packed yet."""
        return len(self._ingress)

    @property
    def unkept(self) -> int:
        """Items that would be lost if this process ended now."""
        held = self.journal.held if self.journal is not None else 0
        return self.waiting + self._unwritten_records + held

    def packed(self, important: bool = False) -> int:
        """Records that `take` would take."""
        return sum(stream.waiting for stream in self._streams[important])

    @property
    def queued(self) -> int:
        """Items and records that no broker has acknowledged."""
        return self._found + self._ingress.put_so_far - self._skipped - self.sent - self.dropped

    @property
    def sent(self) -> int:
        """Records that a broker acknowledged."""
        return sum(stream.sent for stream in self._all_streams())

    @property
    def dropped(self) -> int:
        """Items and records that a bound or damage cost."""
        lost = sum(stream.source.dropped for stream in self._all_streams())
        return self._ingress.dropped + lost

    def pack(self, most: int, now: float) -> None:
        """Describe and pack up to `most` of the items that wait, and keep them together."""
        for _ in range(most):
            taken = self._ingress.pop()
            if taken is None:
                break
            important = taken.important
            self._unnumbered[important] += taken.skipped
            body = self._packer.body(taken.item)
            if body is None:
                self._skipped += 1
                continue
            self._unwritten[important].append(Unnumbered(self._unnumbered[important], body))
            self._unnumbered[important] = 0
            self._unwritten_records += 1
            self._unwritten_bytes += len(body.packed)
            if (
                self._unwritten_records >= self._batch_records
                or self._unwritten_bytes >= UNWRITTEN_BYTES
            ):
                self._keep(now)
        if not self.waiting:
            self._keep(now)

    def take(self, important: bool = False, max_bytes: int = MAX_MESSAGE_BYTES) -> Batch | None:
        """The next batch, its payload at most `max_bytes` long; None if nothing is packed."""
        for stream in self._streams[important]:
            batch = stream.take(max_bytes)
            if batch is not None:
                return batch
        return None

    def acknowledge(self, batch: Batch) -> None:
        """The broker has `batch`."""
        batch.owner.acknowledge(batch)

    def rewind(self) -> None:
        """The connection is gone: records in flight are taken again, in the same order."""
        for stream in self._all_streams():
            stream.rewind()

    def tick(self, now: float) -> float:
        """Bring to the disk what waited long; when that is due next (infinity: not yet)."""
        if self.journal is None:
            return math.inf
        if now < self._retry_at:
            return self._retry_at
        try:
            return self.journal.tick(now)
        except StoreError as error:
            self._disk_fails(error, now)
            return self._retry_at

    def connected(self, up: bool, now: float) -> None:
        """Whether a broker is there. If not, nothing stays in memory that can be on disk."""
        if self.journal is None:
            return
        self.journal.link_up = up
        if up or now < self._retry_at:
            return
        try:
            self.journal.flush()
        except StoreError as error:
            self._disk_fails(error, now)

    def finish(self) -> None:
        """The last step of a process that ends well."""
        if self.journal is not None:
            self.journal.finish()

    def _keep(self, now: float) -> None:
        """Number what is packed and put it where it outlives this process, if that goes."""
        for important, records in self._unwritten.items():
            if records and not self._on_disk(important, records, now):
                self._memory.append(important, records)
            records.clear()
        self._unwritten_records = self._unwritten_bytes = 0

    def _on_disk(self, important: bool, records: list[Unnumbered], now: float) -> bool:
        if self.journal is None or now < self._retry_at:
            return False
        try:
            self._open(self.journal)
            self.journal.append(important, records, now)
        except StoreError as error:
            self._disk_fails(error, now)
            return False
        if self.disk_trouble:
            self.disk_trouble = ""
            log.info("results are kept on disk again")
        return True

    def _open(self, journal: Journal) -> None:
        if not journal.opened:
            journal.open()
            # What has to go at once, under a lower bound than before, was found too.
            self._found = journal.queued + sum(lane.dropped for lane in journal.lanes.values())

    def _disk_fails(self, error: StoreError, now: float) -> None:
        if not self.disk_trouble:
            log.warning("results are kept in memory only, until it goes again: %s", error)
        self.disk_trouble = str(error)
        self._retry_at = now + RETRY_DISK_S

    def _all_streams(self) -> list[Stream]:
        return [*self._streams[True], *self._streams[False]]


class MemoryStore:
    """Ordinary and important records, together at most `max_records`."""

    def __init__(self, encoding: str, max_records: int) -> None:
        self.lanes = {important: MemoryLane(encoding) for important in (False, True)}
        self._max_records = max_records

    def append(self, important: bool, records: Sequence[Unnumbered]) -> None:
        """Keep them, and give up the oldest ordinary ones that are too many."""
        self.lanes[important].append(records)
        ordinary, urgent = self.lanes[False], self.lanes[True]
        while (
            ordinary.queued + urgent.queued > self._max_records
            or ordinary.bytes + urgent.bytes > self._max_records * RECORD_BYTES
        ):
            if not ordinary.drop_oldest() and not urgent.drop_oldest():
                return  # all in flight
