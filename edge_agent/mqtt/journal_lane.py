"""One lane of records on disk: written at its end (journal_writer.py), read from its begin."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from edge_agent.errors import StoreError
from edge_agent.mqtt import segment
from edge_agent.mqtt.journal_writer import JournalWriter
from edge_agent.mqtt.segment import HEADER_BYTES, Segment, Segments, content, guess, identify, scan
from edge_agent.mqtt.stream import Entry, StreamKey, Unnumbered
from edge_agent.store import files

log = logging.getLogger(__name__)


class Place(NamedTuple):
    """A position of the reader: `records` of the segment stand before `offset`."""

    segment: Segment | None
    offset: int
    records: int


class JournalLane:
    """A Source (stream.py), for one thread; every StoreError leaves it usable."""

    def __init__(self, folder: Path, name: str, encoding: str, boot: bytes) -> None:
        self.queued = 0
        self.dropped = 0
        self._folder = folder
        self._name = name
        self._segments = Segments()
        self._writer = JournalWriter(folder, name, encoding, boot, self._segments)
        self._reading = 0  # index among the segments
        self._offset = HEADER_BYTES
        self._read = 0  # records before `_offset`
        self._window, self._window_at = b"", 0
        self._later = False  # the file could not be read just now
        self._peeked: tuple[Entry, int] | None = None  # with the offset behind it
        self._expected = 1  # least number that the next record may have

    @property
    def bytes(self) -> int:
        """What the files have."""
        return self._segments.bytes

    @property
    def unsynced(self) -> bool:
        """Something waits that only the kernel has."""
        return self._writer.unsynced

    # --- at the start

    def open(self) -> None:
        """Find what an earlier process left. StoreError: the folder cannot be read."""
        try:
            names = [path.name for path in self._folder.iterdir()]
        except OSError as error:
            raise files.failure("read the outbox", self._folder, error) from error
        pattern = re.compile(rf"{self._name}-(\d{{10}})-[0-9a-f]{{16}}\.seg")
        found = sorted(
            (int(match[1]), match[0]) for match in map(pattern.fullmatch, names) if match
        )
        for index, name in found:
            self._writer.index = index
            self._adopt(self._folder / name, index)
        self._count()
        self._skip_acknowledged()

    def _adopt(self, path: Path, index: int) -> None:
        """Take over a file, whatever state it is in."""
        try:
            header, size = identify(path)
        except OSError as error:
            log.warning("%s", files.failure("read", path, error))
            return
        writer = self._writer
        if header is None:
            if size <= HEADER_BYTES:
                files.remove(path)  # made, and never written to
                return
            log.warning("%s: its begin is damaged; what else it holds is kept", path)
            header = guess(path)
            writer.stream = None
        else:
            writer.stream = header.stream if writer.goes_on(header) else None
        writer.number, writer.total = header.first - 1, header.before
        accounted = self._segments.accounted
        accounted[header.stream] = max(accounted.get(header.stream, 0), header.acknowledged)
        self._segments.add(Segment(path, index, header.stream, header.first, header.before, size))

    def _count(self) -> None:
        """How many records each file holds, and the newest number."""
        for place, each in enumerate(self._segments.row):
            following = self._segments.after(place)
            if following is not None and following.before > each.before >= 0:
                each.records = following.before - each.before
            else:
                found = scan(each)
                each.records = found.records
                if each is self._segments.newest:
                    writer, accounted = self._writer, self._segments.accounted[each.stream]
                    writer.number = max(writer.number, found.last, accounted)
                    writer.total = each.before + each.records
                    if not found.whole:
                        writer.stream = None
            self.queued += each.records

    def _skip_acknowledged(self) -> None:
        """Let reading begin behind what the broker had acknowledged."""
        row = self._segments.row
        for place, each in enumerate(row):
            through = self._segments.accounted[each.stream]
            following = self._segments.after(place)
            if following is not None and following.first <= through + 1:
                known = each.records
            else:
                known = scan(each, through).records
            self.queued -= known
            if known < each.records or each is row[-1]:
                self._go(Place(each, HEADER_BYTES, known))
                for read in row[:place]:
                    self._remove(read)
                return

    # --- writing

    def append(self, records: Sequence[Unnumbered]) -> None:
        self._writer.append(records)
        self.queued += len(records)

    def sync(self) -> None:
        """Bring to the disk what waits. StoreError: it may be lost with the machine."""
        self._writer.sync()

    def finish(self) -> None:
        """The last step of a process that ends well."""
        self._writer.finish()

    # --- reading

    def peek(self) -> Entry | None:
        row = self._segments.row
        while self._peeked is None and self._reading < len(row):
            each = row[self._reading]
            self._peeked = self._next_in(each)
            if self._peeked is None:
                if self._later:
                    self._later = False
                    return None
                self._passed(each)
                if each is row[-1]:
                    return None  # more may come
                self._go(Place(row[self._reading + 1], HEADER_BYTES, 0))
        return self._peeked[0] if self._peeked else None

    def advance(self) -> None:
        assert self._peeked is not None  # `peek` gave it
        entry, self._offset = self._peeked
        self._expected = entry.number + 1
        self._read += 1
        self._peeked = None

    def discard(self) -> None:
        self.advance()
        self.queued -= 1
        self.dropped += 1

    def restored(self, count: int) -> None:
        self.queued += count
        self.dropped -= count

    def place(self) -> Place:
        row = self._segments.row
        return Place(row[self._reading] if row else None, self._offset, self._read)

    def back(self, place: object) -> None:
        assert isinstance(place, Place)  # one of ours
        self._go(place)

    def acknowledged(self, place: object, stream: StreamKey, through: int, count: int) -> None:
        assert isinstance(place, Place)  # one of ours
        assert place.segment is not None  # there were records
        self._segments.accounted[stream] = through
        self.queued -= count
        self._forget(place.segment)
        if self.queued == 0 and self._writer.is_open:
            self._forget(self._segments.newest)
            if len(self._segments.row) == 1 and self._writer.empty():
                self._go(Place(self._segments.newest, HEADER_BYTES, 0))

    def accounted(self, stream: StreamKey) -> int:
        return self._segments.accounted[stream]

    def _next_in(self, each: Segment) -> tuple[Entry, int] | None:
        begun = segment.seed(each.stream)
        while self._offset < each.size:
            at = self._offset - self._window_at
            if not 0 <= at < len(self._window):
                try:
                    self._window, self._window_at, at = content(each, self._offset), self._offset, 0
                except OSError:
                    self._later = True
                    return None
                if not self._window:
                    return None  # it is shorter than it should be
            found = segment.next_frame(self._window, at, self._expected, begun)
            if found is not None:
                packed = self._window[found.start : found.end]
                return Entry(each.stream, found.number, packed), self._window_at + found.end
            self._offset = self._window_at + len(self._window)  # nothing readable is left in it
        return None

    def _passed(self, each: Segment) -> None:
        """Its end was reached: what it should have held and did not is lost."""
        missing = each.records - self._read
        each.records = self._read
        self.queued -= missing
        if missing > 0:
            self.dropped += missing
            log.warning("%s: %d records in it are damaged", each.path, missing)

    def _go(self, place: Place) -> None:
        assert place.segment is not None  # only an empty lane has no place
        self._peeked = None
        self._window, self._window_at = b"", 0
        self._reading = self._segments.row.index(place.segment)
        _, self._offset, self._read = place
        accounted = self._segments.accounted[place.segment.stream]
        self._expected = max(place.segment.first, accounted + 1)

    # --- forgetting

    def drop_oldest(self) -> bool:
        """Give up the oldest file that is neither being read nor written; False: there is none."""
        row = self._segments.row
        untouched = self._read == 0 and self._offset == HEADER_BYTES
        place = self._reading if untouched else self._reading + 1
        if place >= len(row) - 1:
            return False
        each = row[place]
        if not self._remove(each):
            return False
        self.queued -= each.records
        self.dropped += each.records
        if untouched:
            self._go(Place(row[place], HEADER_BYTES, 0))
        return True

    def _forget(self, until: Segment) -> None:
        """Remove the files before `until`, of which the broker has everything."""
        if self._segments.row[0] is until:
            return
        try:
            self._writer.tell()
        except StoreError:
            return  # they stay, and are sent once more by the next process
        while self._segments.row[0] is not until and self._remove(self._segments.row[0]):
            pass

    def _remove(self, each: Segment) -> bool:
        place = self._segments.row.index(each)
        if not self._segments.remove(each):
            return False
        if place < self._reading:
            self._reading -= 1
        return True
