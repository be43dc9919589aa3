"""From numbered records to batches: windows, gaps, acknowledgements. No I/O of its own.

    Source (memory or disk): records in the order of their numbers
        peek, advance -> batch, in flight -> acknowledged: the source may forget them
              ^--- rewind: the source goes back to the oldest batch in flight ---'

Where numbers jump, the batch says so with a record `{"gap": {"from", "to", "count"}}` in
front of the next one. A consumer therefore finds each number in a record or in a gap,
removes duplicates by (node, stream, seq), and believes a record before a gap.
"""

import os
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from edge_agent.fleet_protocol.packing import PACKINGS, Body, Packing
from edge_agent.fleet_protocol.topics import MAX_MESSAGE_BYTES


class StreamKey(NamedTuple):
    """The name of a stream, whose records are numbered from 1, and how they are packed."""

    name: str  # 16 hexadecimal digits
    encoding: str  # a key of PACKINGS


class Entry(NamedTuple):
    """One packed record."""

    stream: StreamKey
    number: int
    packed: bytes


class Unnumbered(NamedTuple):
    """A record on its way into a source; `skipped` numbers are left out before its own."""

    skipped: int
    body: Body


class Source(Protocol):
    """Records that wait. All of one stream come before those of the next."""

    @property
    def queued(self) -> int:
        """Records that no broker has acknowledged, in flight or not."""

    @property
    def dropped(self) -> int:
        """Records that a bound or damage cost."""

    def peek(self) -> Entry | None:
        """The next record, left in place; None: there is none yet."""

    def advance(self) -> None:
        """Past the record that `peek` gave."""

    def discard(self) -> None:
        """Past the record that `peek` gave, which counts as dropped."""

    def end_batch(self) -> None:
        """The last record that was advanced past is the last of a batch in flight."""

    def rewind(self, discarded: int) -> None:
        """To the first record of the oldest batch in flight: no batch is in flight any more.
        `discarded` is how many were discarded behind what was acknowledged."""

    def acknowledged(self, stream: StreamKey, through: int, count: int) -> None:
        """The broker has the oldest batch in flight: `count` records, numbers up to `through`."""

    def accounted(self, stream: StreamKey) -> int:
        """The number up to which everything of `stream` was acknowledged."""


class MemoryLane:
    """A Source in memory; its stream has a random name, for nothing of it survives this process."""

    def __init__(self, encoding: str) -> None:
        self.dropped = 0
        self.bytes = 0
        self.stream = StreamKey(os.urandom(8).hex(), encoding)
        self._packing = PACKINGS[encoding]()
        self._number = 0  # of the newest record
        self._entries: deque[Entry] = deque()
        self._accounted = 0  # the number up to which everything was acknowledged
        self._read = 0  # of `_entries`, how many are in flight

    @property
    def queued(self) -> int:
        return len(self._entries)

    def append(self, records: Sequence[Unnumbered]) -> None:
        for skipped, body in records:
            self._number += skipped + 1
            packed = self._packing.numbered(body, self._number)
            self._entries.append(Entry(self.stream, self._number, packed))
            self.bytes += len(packed)

    def peek(self) -> Entry | None:
        return self._entries[self._read] if self._read < len(self._entries) else None

    def advance(self) -> None:
        self._read += 1

    def discard(self) -> None:
        self.bytes -= len(self._entries[self._read].packed)
        del self._entries[self._read]
        self.dropped += 1

    def drop_oldest(self) -> bool:
        """Give up the oldest record that is not in flight; False: there is none."""
        if self.peek() is None:
            return False
        self.discard()
        return True

    def end_batch(self) -> None:
        """`acknowledged` says how many records a batch has."""

    def rewind(self, discarded: int) -> None:  # noqa: ARG002 - those do not come again
        self._read = 0

    def acknowledged(self, stream: StreamKey, through: int, count: int) -> None:  # noqa: ARG002
        for _ in range(count):
            self.bytes -= len(self._entries.popleft().packed)
        self._read -= count
        self._accounted = through

    def accounted(self, stream: StreamKey) -> int:  # noqa: ARG002
        return self._accounted


class Batch:
    """Records in one message, in flight from `take` until `acknowledge` or `rewind`."""

    __slots__ = ("acknowledged", "count", "discarded", "first", "last", "owner", "payload")

    def __init__(self, owner: "Stream", first: int, last: int, count: int, payload: bytes) -> None:
        self.owner = owner
        self.first = first  # the lowest number that the batch accounts for, gaps included
        self.last = last
        self.count = count
        self.payload = payload
        self.acknowledged = False
        self.discarded = 0  # records between the batch before this one and its own


class Stream:
    """Batches of at most `batch_records` out of one source, for one node."""

    def __init__(self, node: str, source: Source, batch_records: int) -> None:
        self.source = source
        self.sent = 0
        self.in_flight_records = 0
        self._node = node
        self._batch_records = batch_records
        self._packings: Mapping[str, Packing] = {name: make() for name, make in PACKINGS.items()}
        self._in_flight: deque[tuple[StreamKey, Batch]] = deque()
        self._discarded = 0  # records since the last batch
        self._key: StreamKey | None = None  # of what is taken at present
        self._next = 1  # number that the next batch of that stream begins with

    @property
    def waiting(self) -> int:
        """Records that `take` would take."""
        return self.source.queued - self.in_flight_records

    def take(self, max_bytes: int = MAX_MESSAGE_BYTES) -> Batch | None:
        """The next batch, its payload at most `max_bytes` long; None if nothing waits."""
        source, records, count = self.source, list[bytes](), 0
        first, room, head = 0, 0, dict[str, object]()
        while count < self._batch_records and (entry := source.peek()) is not None:
            stream, number, packed = entry
            if stream != self._key:
                if records:
                    break
                self._key, self._next = stream, source.accounted(stream) + 1
            if not records:
                packing = self._packings[stream.encoding]
                first, head = self._next, self._head(stream)
                room = max_bytes - len(packing.pack(head)) - packing.overhead
            needed, gap = len(packed) + packing.separator, b""
            if number > self._next:
                gap = _gap(packing, self._next, number - 1)
                needed += len(gap) + packing.separator
            if needed > room:
                if records:
                    break
                source.discard()  # alone too large for this broker: it becomes part of a gap
                self._discarded += 1
                continue
            room -= needed
            if gap:
                records.append(gap)
            records.append(packed)
            count += 1
            self._next = number + 1
            source.advance()
        if not records:
            return None
        source.end_batch()
        batch = Batch(self, first, self._next - 1, count, packing.batch(head, records))
        batch.discarded, self._discarded = self._discarded, 0
        assert self._key is not None  # of the first record
        self._in_flight.append((self._key, batch))
        self.in_flight_records += count
        return batch

    def acknowledge(self, batch: Batch) -> None:
        """The broker has `batch`. One overtaken by a later one keeps that one waiting too."""
        batch.acknowledged = True
        while self._in_flight and self._in_flight[0][1].acknowledged:
            key, first = self._in_flight.popleft()
            self.sent += first.count
            self.in_flight_records -= first.count
            self.source.acknowledged(key, first.last, first.count)

    def rewind(self) -> None:
        """The connection is gone: records in flight are taken again, in the same order."""
        discarded = sum(each.discarded for _, each in self._in_flight) + self._discarded
        self.source.rewind(discarded)
        self._key = None  # the source says with which number its stream goes on
        self._discarded = 0
        self._in_flight.clear()
        self.in_flight_records = 0

    def _head(self, stream: StreamKey) -> dict[str, object]:
        return {"version": 1, "node": self._node, "stream": stream.name}


def _gap(packing: Packing, first: int, last: int) -> bytes:
    return packing.pack({"gap": {"from": first, "to": last, "count": last - first + 1}})
