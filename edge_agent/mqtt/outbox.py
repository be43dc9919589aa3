"""Results on their way to the broker: bounded, numbered, kept until acknowledged.

    put (any thread) -> intake, raw -> pack -> keep: disk, else memory -> take -> acknowledge
                                                              ^--- rewind ---'

Ordinary and important records have streams of their own, so that what is important can
overtake. Everything gets a number in its stream, without gaps; what a bound forces out
leaves a jump, which the batch that meets it tells (stream.py).

What is on disk outlives this process. What the disk would not take is in memory, in
streams of its own: a number on disk is never given to something else.

`put` is all that the thread answering a runtime ever calls. Everything else belongs to one
other thread: describing, packing and writing are its work.
"""

import logging
import math
from collections.abc import Callable, Mapping

from edge_agent.errors import StoreError
from edge_agent.mqtt.diskstore import DiskStore
from edge_agent.mqtt.intake import Intake
from edge_agent.mqtt.memory import MemoryStore
from edge_agent.mqtt.packing import MESSAGE_BYTES, NUMBER_BYTES, PACKINGS, Body, Record
from edge_agent.mqtt.stream import Batch, Stream, Unnumbered

log = logging.getLogger(__name__)

# Room for the batch's head (node, stream) and one gap in front of the largest record.
HEAD_BYTES = 512
# What a record too large for one message keeps: short texts and numbers, the first of them.
SHORT_TEXT = 256
SHORT_FIELDS = 32
# Packed records that wait to be written together: a few messages' worth.
UNWRITTEN_BYTES = 128 * 1024
# How often a disk that failed is tried again.
RETRY_DISK_S = 30.0

Describe = Callable[[object], Mapping[str, object] | None]


class Outbox:
    """The records of one node's topic, on `disk` if there is one."""

    def __init__(
        self,
        node: str,
        encoding: str,
        describe: Describe,
        *,
        queue_records: int,
        batch_records: int,
        disk: DiskStore | None = None,
    ) -> None:
        self.disk = disk
        self.disk_trouble = ""  # why new records are kept in memory only
        self._packing = PACKINGS[encoding]()
        self._describe = describe
        self._batch_records = batch_records
        self._intake = Intake(queue_records)
        self._memory = MemoryStore(encoding, queue_records)
        # In the order in which they are sent: what is on disk is older.
        stores = (disk, self._memory) if disk is not None else (self._memory,)
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
        if self.disk is None:
            return
        try:
            self._open(self.disk)
        except StoreError as error:
            self._disk_fails(error, now)

    def put(self, item: object, size: int = 0, important: bool = False) -> int:
        """Take over `item`, `size` bytes large; any thread, never waits, O(1).

        Returns how many items wait to be packed. Important items are dropped last.
        """
        return self._intake.put(item, size, important)

    @property
    def waiting(self) -> int:
        """Items that were put and not packed yet."""
        return len(self._intake)

    @property
    def unkept(self) -> int:
        """Items that would be lost if this process ended now."""
        return self.waiting + self._unwritten_records

    def packed(self, important: bool = False) -> int:
        """Records that `take` would take."""
        return sum(stream.waiting for stream in self._streams[important])

    @property
    def queued(self) -> int:
        """Items and records that no broker has acknowledged."""
        return self._found + self._intake.put_so_far - self._skipped - self.sent - self.dropped

    @property
    def sent(self) -> int:
        """Records that a broker acknowledged."""
        return sum(stream.sent for stream in self._all_streams())

    @property
    def dropped(self) -> int:
        """Items and records that a bound or damage cost."""
        lost = sum(stream.source.dropped for stream in self._all_streams())
        return self._intake.dropped + lost

    def pack(self, most: int, now: float) -> None:
        """Describe and pack up to `most` of the items that wait, and keep them together."""
        for _ in range(most):
            taken = self._intake.pop()
            if taken is None:
                break
            important = taken.important
            self._unnumbered[important] += taken.skipped
            record = self._described(taken.item)
            if record is None:
                self._skipped += 1
                continue
            body = self._body(record)
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

    def take(self, important: bool = False, max_bytes: int = MESSAGE_BYTES) -> Batch | None:
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
        """Nothing in flight counts any more: it will be taken again, in the same order."""
        for stream in self._all_streams():
            stream.rewind()

    def tend(self, now: float) -> float:
        """Bring to the disk what waited long; when that is due next (infinity: not yet)."""
        if self.disk is None:
            return math.inf
        try:
            due = self.disk.tend(now)
        except StoreError as error:
            self._disk_fails(error, now)
            due = None
        return math.inf if due is None else due

    def finish(self) -> None:
        """The last step of a process that ends well."""
        if self.disk is not None:
            self.disk.finish()

    def _keep(self, now: float) -> None:
        """Number what is packed and put it where it outlives this process, if that goes."""
        for important, records in self._unwritten.items():
            if records and not self._on_disk(important, records, now):
                self._memory.append(important, records)
            records.clear()
        self._unwritten_records = self._unwritten_bytes = 0

    def _on_disk(self, important: bool, records: list[Unnumbered], now: float) -> bool:
        if self.disk is None or now < self._retry_at:
            return False
        try:
            self._open(self.disk)
            self.disk.append(important, records, now)
        except StoreError as error:
            self._disk_fails(error, now)
            return False
        if self.disk_trouble:
            self.disk_trouble = ""
            log.info("results are kept on disk again")
        return True

    def _open(self, disk: DiskStore) -> None:
        if not disk.opened:
            disk.open()
            # What has to go at once, under a lower bound than before, was found too.
            self._found = disk.queued + sum(lane.dropped for lane in disk.lanes.values())

    def _disk_fails(self, error: StoreError, now: float) -> None:
        if not self.disk_trouble:
            log.warning("results are kept in memory only, until it goes again: %s", error)
        self.disk_trouble = str(error)
        self._retry_at = now + RETRY_DISK_S

    def _all_streams(self) -> list[Stream]:
        return [*self._streams[True], *self._streams[False]]

    def _described(self, item: object) -> Mapping[str, object] | None:
        try:
            return self._describe(item)
        except Exception as error:
            # A defect there must not cost the number, nor end this thread.
            log.exception("a result could not be described")
            return {"error": f"this result could not be described: {error}"}

    def _body(self, record: Record) -> Body:
        try:
            body = self._packing.body(record)
        except (ValueError, TypeError, OverflowError) as error:
            return self._packing.body({"error": f"not packed: {error}"})
        if len(body.packed) <= MESSAGE_BYTES - HEAD_BYTES - NUMBER_BYTES:
            return body
        short = [(key, value) for key, value in record.items() if _is_short(value)]
        return self._packing.body({**dict(short[:SHORT_FIELDS]), "cut_bytes": len(body.packed)})


def _is_short(value: object) -> bool:
    if isinstance(value, str | bytes):
        return len(value) <= SHORT_TEXT
    return value is None or isinstance(value, bool | int | float)
