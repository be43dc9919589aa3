"""One lane of records on disk: written at its end, read from its begin, one thread.

Nothing is synced when it is written: what the kernel was given survives the end of this
process, however it ends, and what a broker acknowledges soon need never reach the card.
What waits longer is synced (docs/adr/0026). So a *number* must not come twice, with
something else, after the machine lost what was not synced: a lane that was not finished
properly before a boot goes on with a new stream, from 1, behind what is left of the old one.
"""

import errno
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from edge_agent.errors import StoreError
from edge_agent.mqtt import segment
from edge_agent.mqtt.packing import PACKINGS
from edge_agent.mqtt.segment import HEADER_BYTES, Header
from edge_agent.mqtt.stream import Entry, StreamKey, Unnumbered
from edge_agent.store import files

log = logging.getLogger(__name__)

# A file is given up as a whole when the bound is reached, and read as a whole.
SEGMENT_BYTES = 256 * 1024
# An unfinished file whose records are all acknowledged is emptied from this size on: before
# the kernel thinks of writing it, and not with each batch.
EMPTY_BYTES = 32 * 1024
# Errors of a process that is short of something, not of a file.
_NOT_NOW = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class Segment:
    """One file. `records` that may be in it, until it has been read to its end."""

    __slots__ = ("before", "first", "path", "records", "size", "stream")

    def __init__(self, path: Path, stream: StreamKey, first: int, before: int, size: int) -> None:
        self.path = path
        self.stream = stream
        self.first = first
        self.before = before
        self.size = size
        self.records = 0


class Place(NamedTuple):
    """A position of the reader: `records` of the segment stand before `offset`."""

    segment: Segment | None
    offset: int
    records: int


class DiskLane:
    """A Source (stream.py). `open` once; every later StoreError leaves it usable."""

    def __init__(self, folder: Path, name: str, encoding: str, boot: bytes) -> None:
        self.queued = 0
        self.dropped = 0
        self.bytes = 0
        self.unsynced = False  # something waits that only the kernel has
        self._folder = folder
        self._name = name
        self._encoding = encoding
        self._boot = boot
        self._packing = PACKINGS[encoding]()
        self._segments: list[Segment] = []
        self._index = 0  # of the newest file
        # Writing: always into the last segment, if `_fd` is open.
        self._fd: int | None = None
        self._stream: StreamKey | None = None  # None: begin a new one
        self._number = 0  # of the newest record
        self._total = 0  # records in the stream so far
        self._told = 0  # the acknowledged number that the last header says
        self._placed = False  # the last file's name is on the disk
        # Reading.
        self._reading = 0  # index in `_segments`
        self._offset = HEADER_BYTES
        self._read = 0  # records before `_offset`
        self._window, self._window_at = b"", 0
        self._later = False  # the file could not be read just now
        self._peeked: tuple[Entry, int] | None = None  # with the offset behind it
        self._expected = 1  # least number that the next record may have
        self._accounted: dict[StreamKey, int] = {}

    # --- at the start

    def open(self) -> None:
        """Find what an earlier process left. StoreError: the folder cannot be read."""
        try:
            names = [path.name for path in self._folder.iterdir()]
        except OSError as error:
            raise files.failure("read the outbox", self._folder, error) from error
        self._segments.clear()
        self.queued = self.bytes = 0
        pattern = re.compile(rf"{self._name}-(\d{{10}})-[0-9a-f]{{16}}\.seg")
        found = sorted(
            (int(match[1]), match[0]) for match in map(pattern.fullmatch, names) if match
        )
        for index, name in found:
            self._index = index
            self._adopt(self._folder / name)
        self._count()
        self._skip_acknowledged()

    def _adopt(self, path: Path) -> None:
        """Take over a file, whatever state it is in."""
        try:
            size = path.stat().st_size
            data = self._load(path, 0, HEADER_BYTES)
        except OSError as error:
            log.warning("%s", files.failure("read", path, error))
            return
        header = segment.read_header(data)
        if header is None:
            if size <= HEADER_BYTES:
                files.remove(path)  # made, and never written to
                return
            log.warning("%s: its begin is damaged; what else it holds is kept", path)
            name = path.stem.rpartition("-")[2]
            header = Header(StreamKey(name, self._guessed(path)), b"", 1, -1, 0)
            self._stream = None
        elif header.stream.encoding == self._encoding and (
            header.boot == self._boot or header.finished
        ):
            self._stream = header.stream
        else:
            self._stream = None
        key = header.stream
        self._accounted[key] = max(self._accounted.get(key, 0), header.acknowledged)
        self._segments.append(Segment(path, key, header.first, header.before, size))
        self._number, self._total = header.first - 1, header.before

    def _guessed(self, path: Path) -> str:
        try:
            begun = self._load(path, HEADER_BYTES + segment.FRAME_BYTES, 1)
        except OSError:
            begun = b""
        return "json" if begun == b"{" else "msgpack"

    def _count(self) -> None:
        """How many records each file holds, and the newest number."""
        for place, each in enumerate(self._segments):
            following = self._segments[place + 1] if place + 1 < len(self._segments) else None
            if (
                following is not None
                and following.stream == each.stream
                and following.before > each.before >= 0
            ):
                each.records = following.before - each.before
            else:
                each.records, last, clean = self._scan(each)
                if following is None:
                    self._number = max(self._number, last, self._accounted[each.stream])
                    self._total = each.before + each.records
                    if not clean:
                        self._stream = None
            self.queued += each.records
            self.bytes += each.size

    def _scan(self, each: Segment, through: int | None = None) -> tuple[int, int, bool]:
        """Records (those up to number `through`), the last number, whether nothing is damaged."""
        try:
            data = self._content(each)
        except OSError:
            data = b""
        begun = segment.seed(each.stream)
        at, count, last, clean = HEADER_BYTES, 0, each.first - 1, True
        while (frame := segment.next_frame(data, at, 0, begun)) is not None:
            if through is not None and frame.number > through:
                break
            clean = clean and frame.begin == at
            at = frame.end
            if frame.number > last:  # or it is left over from before the file was emptied
                count, last = count + 1, frame.number
        return count, last, clean and segment.is_torn(data, at)

    def _skip_acknowledged(self) -> None:
        """Let reading begin behind what the broker had acknowledged."""
        for place, each in enumerate(self._segments):
            through = self._accounted[each.stream]
            following = self._segments[place + 1] if place + 1 < len(self._segments) else None
            same = following is not None and following.stream == each.stream
            if same and following is not None and following.first <= through + 1:
                known = each.records
            else:
                known, _, _ = self._scan(each, through)
            self.queued -= known
            if known < each.records or following is None:
                self._go(Place(each, HEADER_BYTES, known))
                for read in self._segments[:place]:
                    self._remove(read)
                return

    # --- writing

    def append(self, records: Sequence[Unnumbered]) -> None:
        """Number and write them. StoreError: none is kept."""
        fd = self._ready()
        last = self._segments[-1]
        begun = segment.seed(last.stream)
        number, frames = self._number, list[bytes]()
        for skipped, body in records:
            number += skipped + 1
            frames.append(segment.frame(number, self._packing.numbered(body, number), begun))
        data = b"".join(frames)
        try:
            _write(fd, data, last.size)
            if self._told < self._accounted[last.stream]:
                self._tell(fd)
        except OSError as error:
            self._undo(fd, last)
            raise files.failure("write", last.path, error) from error
        last.size += len(data)
        last.records += len(records)
        self.bytes += len(data)
        self.queued += len(records)
        self._total += len(records)
        self._number = number
        self.unsynced = True

    def _ready(self) -> int:
        """The open file, a new one if there is none or it is full. StoreError."""
        if self._fd is not None and self._segments[-1].size < SEGMENT_BYTES:
            return self._fd
        self.sync()
        first_of_all = self._fd is None
        self._close()
        files.require_space(self._folder, SEGMENT_BYTES)
        if self._stream is None:
            self._stream = StreamKey(os.urandom(8).hex(), self._encoding)
            self._number = self._total = 0
            self._accounted[self._stream] = 0
        path = self._folder / f"{self._name}-{self._index + 1:010}-{self._stream.name}.seg"
        new = Segment(path, self._stream, self._number + 1, self._total, HEADER_BYTES)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(path, flags, files.PRIVATE_FILE)
            try:
                _write(fd, self._header(new).packed(), 0)
                if first_of_all:
                    # From now on numbers are used: a machine that loses them must know it.
                    os.fdatasync(fd)
                    files.sync_folder(self._folder)
            except OSError:
                os.close(fd)
                files.remove(path)
                raise
        except OSError as error:
            raise files.failure("make", path, error) from error
        self._placed = first_of_all
        self._index += 1
        self._fd = fd
        self._told = self._accounted[self._stream]
        self._segments.append(new)
        self.bytes += new.size
        return fd

    def _header(self, of: Segment, *, finished: bool = False) -> Header:
        acknowledged = self._accounted[of.stream]
        return Header(of.stream, self._boot, of.first, of.before, acknowledged, finished)

    def _tell(self, fd: int, *, finished: bool = False) -> None:
        """Write into the last file's header what was acknowledged. OSError."""
        last = self._segments[-1]
        _write(fd, self._header(last, finished=finished).packed(), 0)
        self._told = self._accounted[last.stream]

    def _undo(self, fd: int, last: Segment) -> None:
        """What was written in part must not be read one day as if it had been kept."""
        try:
            os.ftruncate(fd, last.size)
        except OSError:
            self._stream = None
        self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def sync(self) -> None:
        """Bring to the disk what waits. StoreError: it may be lost with the machine."""
        if self._fd is None or not self.unsynced:
            return
        try:
            os.fdatasync(self._fd)
            if not self._placed:
                files.sync_folder(self._folder)
                self._placed = True
        except OSError as error:
            raise files.failure("bring to the disk", self._segments[-1].path, error) from error
        finally:
            self.unsynced = False

    def finish(self) -> None:
        """The last step of a process that ends well: its numbers can go on after any boot."""
        if self._fd is None:
            return
        try:
            self.unsynced = True
            self.sync()
            self._tell(self._fd, finished=True)
            os.fdatasync(self._fd)
        except (OSError, StoreError) as error:
            log.warning("the outbox is left unfinished: %s", error)
        self._close()

    # --- reading

    def peek(self) -> Entry | None:
        while self._peeked is None and self._reading < len(self._segments):
            each = self._segments[self._reading]
            self._peeked = self._next_in(each)
            if self._peeked is None:
                if self._later or self._reading + 1 == len(self._segments):
                    self._later = False
                    return None  # the newest: more may come
                self._passed(each)
                self._go(Place(self._segments[self._reading + 1], HEADER_BYTES, 0))
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

    def place(self) -> Place:
        if self._reading < len(self._segments):
            return Place(self._segments[self._reading], self._offset, self._read)
        return Place(None, HEADER_BYTES, 0)

    def back(self, place: object) -> None:
        assert isinstance(place, Place)  # one of ours
        self._go(place)

    def acknowledged(self, place: object, stream: StreamKey, through: int, count: int) -> None:
        assert isinstance(place, Place)  # one of ours
        self._accounted[stream] = through
        self.queued -= count
        if place.segment is not None and self._segments[0] is not place.segment:
            self._forget(place.segment)
        if self.queued == 0 and self._fd is not None:
            self._empty(self._fd)

    def accounted(self, stream: StreamKey) -> int:
        return self._accounted[stream]

    def _next_in(self, each: Segment) -> tuple[Entry, int] | None:
        if self._offset >= each.size:
            return None
        if not self._window_at <= self._offset < self._window_at + len(self._window):
            try:
                self._window = self._content(each, self._offset)
            except OSError:
                self._later = True
                return None
            self._window_at = self._offset
        at = self._offset - self._window_at
        found = segment.next_frame(self._window, at, self._expected, segment.seed(each.stream))
        if found is None:
            # All that was there is behind; the file may grow.
            self._offset = max(self._offset, self._window_at + len(self._window))
            return None
        packed = self._window[found.start : found.end]
        return Entry(each.stream, found.number, packed), self._window_at + found.end

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
        _, self._offset, self._read = place
        if place.segment is None:
            self._reading = 0
            return
        self._reading = self._segments.index(place.segment)
        accounted = self._accounted[place.segment.stream]
        self._expected = max(place.segment.first, accounted + 1)

    def _content(self, each: Segment, at: int = 0) -> bytes:
        """From `at` on; what is gone is as good as damaged. OSError: ask again later."""
        try:
            return self._load(each.path, at, each.size - at)
        except OSError as error:
            if error.errno in _NOT_NOW:
                raise
            log.warning("%s", files.failure("read", each.path, error))
            return b""

    def _load(self, path: Path, at: int, size: int) -> bytes:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.pread(fd, size, at)
        finally:
            os.close(fd)

    # --- forgetting

    def drop_oldest(self) -> bool:
        """Give up the oldest file that is neither being read nor written; False: there is none."""
        untouched = self._read == 0 and self._offset == HEADER_BYTES
        place = self._reading if untouched else self._reading + 1
        if place >= len(self._segments) - 1:
            return False
        each = self._segments[place]
        if not self._remove(each):
            return False
        self.queued -= each.records
        self.dropped += each.records
        if untouched:
            self._go(Place(self._segments[place], HEADER_BYTES, 0))
        return True

    def _forget(self, until: Segment) -> None:
        """Remove the files before `until`, of which the broker has everything."""
        try:
            if self._told < self._accounted.get(self._segments[-1].stream, 0):
                self._tell(self._ready())
        except (OSError, StoreError):
            return  # they stay, and are sent once more by the next process
        while self._segments[0] is not until and self._remove(self._segments[0]):
            pass

    def _empty(self, fd: int) -> None:
        """All is acknowledged: leave one file, with nothing but its header where it has grown."""
        last = self._segments[-1]
        if len(self._segments) > 1:
            self._forget(last)
        self.unsynced = False
        if last.size < EMPTY_BYTES or len(self._segments) > 1:
            return
        last.first, last.before, last.records = self._number + 1, self._total, 0
        try:
            self._tell(fd)
            os.ftruncate(fd, HEADER_BYTES)
        except OSError as error:
            log.warning("%s", files.failure("empty", last.path, error))
            return
        self.bytes -= last.size - HEADER_BYTES
        last.size = HEADER_BYTES
        self._go(Place(last, HEADER_BYTES, 0))

    def _remove(self, each: Segment) -> bool:
        try:
            each.path.unlink(missing_ok=True)
        except OSError as error:
            log.debug("%s", files.failure("remove", each.path, error))
            return False
        place = self._segments.index(each)
        del self._segments[place]
        if place < self._reading:
            self._reading -= 1
        self.bytes -= each.size
        return True


def _write(fd: int, data: bytes, at: int) -> None:
    """All of it. OSError."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, at)
        rest, at = rest[written:], at + written
