"""One lane of records: numbered, held and written at its end (journal_writer.py), read from its
begin: first what is on disk, then what is held in memory.
"""

import logging
import math
import re
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from edge_agent.errors import StoreError
from edge_agent.mqtt import segment
from edge_agent.mqtt.journal_writer import JournalWriter
from edge_agent.mqtt.segment import (
    HEADER_BYTES,
    Place,
    Segment,
    Segments,
    content,
    guess,
    identify,
    scan,
)
from edge_agent.mqtt.stream import Entry, StreamKey, Unnumbered
from edge_agent.store import files

log = logging.getLogger(__name__)


# On disk, or behind so many of the records that were ever held, with nothing on disk behind it.
Position = Place | int


class JournalLane:
    """A Source (stream.py), for one thread; every StoreError leaves it usable."""

    def __init__(
        self, folder: Path, name: str, encoding: str, boot: bytes, holds: bool = False
    ) -> None:
        """`holds`: records may be held in memory."""
        self.cut_short = False  # the last process may have lost the newest records it sent
        self.queued = 0
        self.dropped = 0
        self._folder = folder
        self._name = name
        self._boot = boot
        self._segments = Segments()
        self._writer = JournalWriter(folder, name, encoding, boot, self._segments, holds)
        self._reading = 0  # index among the segments
        self._offset = HEADER_BYTES
        self._read = 0  # records before `_offset`
        self._let_go = 0  # records that were held and are no more
        self._held_read = 0  # of those that are held, how many are read
        self._behind: Position = 0  # the last record that was advanced past
        self._acknowledged: Position = 0  # everything before was
        self._batches: deque[Position] = deque()  # ends of those in flight
        self._window, self._window_at = b"", 0
        self._later = False  # the file could not be read just now
        self._peeked: tuple[Entry, int] | None = None  # with the offset behind it
        self._expected = 1  # least number that the next record may have

    @property
    def bytes(self) -> int:
        """The size of the files, in bytes."""
        return self._segments.bytes

    @property
    def held(self) -> int:
        """Records that are in memory only."""
        return len(self._writer.held)

    @property
    def held_bytes(self) -> int:
        return self._writer.held_bytes

    @property
    def held_since(self) -> float:
        """When the oldest record that is held in memory came (monotonic); infinity: none is."""
        return self._writer.held[0].since if self._writer.held else math.inf

    @property
    def drained(self) -> bool:
        """Whether no record waits on disk, so that new records may be held in memory."""
        at = self._acknowledged
        if isinstance(at, Place):
            for each in reversed(self._segments.row):
                if each is at.segment:
                    return at.records == each.records
                if each.records:
                    return False
        return True

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
        if self.cut_short:
            self._begin_anew()

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
            self.cut_short = True
        else:
            writer.stream = header.stream if writer.goes_on(header) else None
            self.cut_short = not header.finished and header.boot != self._boot
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
                self._acknowledged = Place(each, HEADER_BYTES, known)
                self._go(self._acknowledged)
                for read in row[:place]:
                    self._remove(read)
                return

    def _begin_anew(self) -> None:
        """With a new stream at once: or each process up to the next result would find the same
        one cut short."""
        try:
            self._writer.begin()
        except StoreError as error:
            log.debug("%s", error)
            return
        row = self._segments.row
        if self.drained:
            self._acknowledged = self._segments.end
            self._go(self._acknowledged)
            self._forget(self._segments.newest)
            return
        streams = [each.stream for each in row]
        for each in row[1:-1]:  # of processes that were cut short before they wrote anything
            if each.size <= HEADER_BYTES and streams.count(each.stream) == 1:
                self._remove(each)

    # --- writing

    def append(self, records: Sequence[Unnumbered]) -> None:
        """Write them, and what is held before them. StoreError: none of them is kept."""
        self.flush()
        self._settle(self._writer.append(records))
        self.queued += len(records)

    def hold(self, records: Sequence[Unnumbered], now: float) -> None:
        """Keep them in memory; only if the lane is `drained`. StoreError: none is kept."""
        self._writer.hold(records, now)
        if not isinstance(self._acknowledged, int):
            self._acknowledged = self._let_go
        self.queued += len(records)

    def flush(self) -> None:
        """Write what is held. StoreError: it is held still."""
        if not self.held:
            return
        places = self._writer.flush()
        self._settle(places)
        self._let_go += len(places) - 1
        read, self._held_read = self._held_read, 0
        if read:
            self._go(places[read])

    def _settle(self, places: Sequence[Place]) -> None:
        """The records that were held stand on disk now, before and between `places`."""

        def settled(at: Position) -> Position:
            return places[at - self._let_go] if isinstance(at, int) else at

        self._acknowledged = settled(self._acknowledged)
        self._batches = deque(map(settled, self._batches))

    def sync(self) -> None:
        """Bring to the disk what waits. StoreError: it may be lost with the machine."""
        self._writer.sync()

    def finish(self) -> None:
        """The last step of a process that ends well."""
        self._writer.finish()

    # --- reading

    def peek(self) -> Entry | None:
        row, held = self._segments.row, self._writer.held
        if self._held_read:  # what is on disk was read before
            return held[self._held_read].entry if self._held_read < len(held) else None
        while self._peeked is None and self._reading < len(row):
            each = row[self._reading]
            self._peeked = self._next_in(each)
            if self._peeked is None:
                if self._later:
                    self._later = False
                    return None
                self._passed(each)
                if each is row[-1]:
                    break  # more may come
                self._go(Place(row[self._reading + 1], HEADER_BYTES, 0))
        if self._peeked:
            return self._peeked[0]
        return held[self._held_read].entry if self._held_read < len(held) else None

    def advance(self) -> None:
        self._pass()
        # Before `peek` goes on to a file that has nothing of this batch.
        row = self._segments.row
        self._behind = (
            self._let_go + self._held_read
            if self._held_read
            else Place(row[self._reading], self._offset, self._read)
        )

    def discard(self) -> None:
        self._pass()
        self.queued -= 1
        self.dropped += 1

    def _pass(self) -> None:
        if self._peeked is None:
            self._held_read += 1
            return
        entry, self._offset = self._peeked
        self._expected = entry.number + 1
        self._read += 1
        self._peeked = None

    def end_batch(self) -> None:
        self._batches.append(self._behind)

    def rewind(self, discarded: int) -> None:
        self.queued += discarded
        self.dropped -= discarded
        self._batches.clear()
        self._held_read = 0
        if isinstance(self._acknowledged, Place):
            self._go(self._acknowledged)
        elif self._segments.row:
            self._go(self._segments.end)

    def acknowledged(self, stream: StreamKey, through: int, count: int) -> None:
        self._acknowledged = at = self._batches.popleft()
        self._segments.accounted[stream] = through
        self.queued -= count
        if isinstance(at, Place):
            self._forget(at.segment)
        else:
            while self._let_go < at:
                self._writer.let_go()
                self._let_go += 1
                self._held_read -= 1
        if self.drained and self._writer.is_open:
            self._forget(self._segments.newest)
            if len(self._segments.row) == 1:
                self._writer.empty()
            if isinstance(at, Place):
                self._acknowledged = self._segments.end
            self._go(self._segments.end)

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
        if isinstance(self._acknowledged, Place) and self._acknowledged.segment is each:
            self._acknowledged = Place(row[place], HEADER_BYTES, 0)
        return True

    def _forget(self, until: Segment) -> None:
        """Remove the files before `until`, of which the broker has everything."""
        if self._segments.row[0] is until:
            return
        try:
            self._writer.write_accounted()
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
