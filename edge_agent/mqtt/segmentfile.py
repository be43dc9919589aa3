"""The files of one lane: what is known of each, and their bytes from and to the disk."""

import errno
import logging
import os
from pathlib import Path
from typing import NamedTuple

from edge_agent.mqtt import segment
from edge_agent.mqtt.segment import FRAME_BYTES, HEADER_BYTES, Header
from edge_agent.mqtt.stream import StreamKey
from edge_agent.store import files

log = logging.getLogger(__name__)

# Errors of a process that is short of something, not of a file.
_NOT_NOW = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class Segment:
    """One file. `records` that may be in it, until it has been read to its end."""

    __slots__ = ("before", "first", "index", "path", "records", "size", "stream")

    def __init__(
        self, path: Path, index: int, stream: StreamKey, first: int, before: int, size: int
    ) -> None:
        self.path = path
        self.index = index
        self.stream = stream
        self.first = first
        self.before = before
        self.size = size
        self.records = 0


class Segments:
    """The lane's files, oldest first, and up to which number each stream was acknowledged."""

    def __init__(self) -> None:
        self.row: list[Segment] = []
        self.bytes = 0
        self.accounted: dict[StreamKey, int] = {}

    @property
    def newest(self) -> Segment:
        """The last file; there must be one."""
        return self.row[-1]

    def add(self, each: Segment) -> None:
        """A newer one than all others."""
        self.row.append(each)
        self.bytes += each.size

    def resize(self, each: Segment, size: int) -> None:
        """It has grown, or shrunk."""
        self.bytes += size - each.size
        each.size = size

    def remove(self, each: Segment) -> bool:
        """Also from the disk; False: it stays there, and here."""
        try:
            each.path.unlink(missing_ok=True)
        except OSError as error:
            log.debug("%s", files.failure("remove", each.path, error))
            return False
        self.row.remove(each)
        self.bytes -= each.size
        return True

    def after(self, place: int) -> Segment | None:
        """The file that was begun behind the one at `place` in the same stream, if it is there."""
        if place + 1 >= len(self.row):
            return None
        each, following = self.row[place], self.row[place + 1]
        successive = following.index == each.index + 1 and following.stream == each.stream
        return following if successive else None


class Scan(NamedTuple):
    """What a file holds."""

    records: int
    last: int  # number; below the first one if there is none
    whole: bool  # nothing is damaged, or only the end was not written any more


def identify(path: Path) -> tuple[Header | None, int]:
    """Its header (None: damaged) and its size. OSError."""
    size = path.stat().st_size
    return segment.read_header(_load(path, 0, HEADER_BYTES)), size


def guess(path: Path) -> Header:
    """What its name and its first record tell, where the header is damaged."""
    try:
        begun = _load(path, HEADER_BYTES + FRAME_BYTES, 1)
    except OSError:
        begun = b""
    encoding = "json" if begun == b"{" else "msgpack"
    return Header(StreamKey(path.stem.rpartition("-")[2], encoding), b"", 1, -1, 0)


def content(each: Segment, at: int = 0) -> bytes:
    """From `at` on; what is gone is as good as damaged. OSError: ask again later."""
    try:
        return _load(each.path, at, each.size - at)
    except OSError as error:
        if error.errno in _NOT_NOW:
            raise
        log.warning("%s", files.failure("read", each.path, error))
        return b""


def scan(each: Segment, through: int | None = None) -> Scan:
    """Look at the records of a file, or only at those with numbers up to `through`."""
    try:
        data = content(each)
    except OSError:
        data = b""
    begun = segment.seed(each.stream)
    at, count, last, whole = HEADER_BYTES, 0, each.first - 1, True
    while (frame := segment.next_frame(data, at, 0, begun)) is not None:
        if through is not None and frame.number > through:
            break
        whole = whole and frame.begin == at
        at = frame.end
        if frame.number > last:  # or it is left over from before the file was emptied
            count, last = count + 1, frame.number
    return Scan(count, last, whole and segment.is_torn(data, at))


def write(fd: int, data: bytes, at: int) -> None:
    """All of it. OSError."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, at)
        rest, at = rest[written:], at + written


def _load(path: Path, at: int, size: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.pread(fd, size, at)
    finally:
        os.close(fd)
