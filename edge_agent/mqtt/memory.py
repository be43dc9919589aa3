"""Numbered records in memory: where there is no disk, or none that can be written."""

import os
from collections import deque
from collections.abc import Sequence

from edge_agent.mqtt.packing import PACKINGS
from edge_agent.mqtt.stream import Entry, StreamKey, Unnumbered

# A packed record has 300 bytes or so. The bound in bytes follows the one in records, so
# that `queue_records` alone says how much memory a long time without a network takes.
RECORD_BYTES = 1024


class MemoryLane:
    """A Source; its stream has a random name, for nothing of it survives this process."""

    def __init__(self, encoding: str) -> None:
        self.dropped = 0
        self.bytes = 0
        self.stream = StreamKey(os.urandom(8).hex(), encoding)
        self._packing = PACKINGS[encoding]()
        self._number = 0  # of the newest record
        self._entries: deque[Entry] = deque()
        self._gone = 0  # records that were acknowledged
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

    def restored(self, count: int) -> None:
        """Nothing that was discarded comes again."""

    def drop_oldest(self) -> bool:
        """Give up the oldest record that is not in flight; False: there is none."""
        if self.peek() is None:
            return False
        self.discard()
        return True

    def place(self) -> int:
        return self._gone + self._read

    def back(self, place: object) -> None:
        assert isinstance(place, int)  # one of ours
        self._read = place - self._gone

    def acknowledged(self, place: object, stream: StreamKey, through: int, count: int) -> None:  # noqa: ARG002
        for _ in range(count):
            self.bytes -= len(self._entries.popleft().packed)
        self._gone += count
        self._read -= count

    def accounted(self, stream: StreamKey) -> int:  # noqa: ARG002
        return 0


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
