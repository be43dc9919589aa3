"""The files of a journal: their form in bytes (pure), the state of each, and reading them.

A *lane* of records is a row of files `NAME-IIIIIIIIII-SSSSSSSSSSSSSSSS.seg`: ten digits that
count its files, and the stream that the records belong to. Numbers are big-endian.

    header, 64 bytes, rewritten in place
        0   8   "edgelog1"
        8   1   encoding of the records: 0 msgpack, 1 json
        9   1   1: the file was finished and brought to the disk before the writer ended
       10   2   0
       12   8   name of the stream
       20  16   boot of the machine (boot_id) in which no number is given out before its record
                is in the file; zeros: records are held in memory first (docs/adr/0051)
       36   8   number of the first record that may stand in the file
       44   8   records of this stream in files before this one
       52   8   number up to which the broker had acknowledged everything
       60   4   CRC-32 of the 60 bytes before
    then records
        0   4   0xE1 and the length of the packed record in 24 bits
        4   8   number
       12   4   CRC-32 of the 12 bytes before and the packed record, begun with the stream's
       16       the packed record, with its number as `seq`

Numbers grow within a file and from file to file. What has a smaller one than the header
allows is left over from before the header was rewritten. What is damaged is passed over: the
next place where a record with a right checksum and a plausible number stands is searched for.
"""

import errno
import logging
import os
import re
from binascii import crc32
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from edge_agent.fleet_protocol.packing import PACKINGS
from edge_agent.fleet_protocol.topics import MAX_MESSAGE_BYTES
from edge_agent.mqtt.stream import StreamKey
from edge_agent.store import files

log = logging.getLogger(__name__)

MAGIC = b"edgelog1"
HEADER_BYTES = 64
FRAME_BYTES = 16
ENCODINGS = tuple(PACKINGS)

_HEADER = Struct(">8sBB2x8s16sQQQ")
_FRAME = Struct(">IQ")
_CRC = Struct(">I")
_RECORD = 0xE1
_MARK = re.compile(rb"\xe1")
# Numbers may jump where records were dropped; a jump beyond this is damage.
_MAX_JUMP = 1 << 40
# Errors of a process that is short of something, not of a file.
_NOT_NOW = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class Header(NamedTuple):
    """The begin of a file."""

    stream: StreamKey
    boot: bytes  # 16
    first: int
    before: int
    acknowledged: int
    finished: bool = False

    def packed(self) -> bytes:
        """64 bytes."""
        begun = _HEADER.pack(
            MAGIC,
            ENCODINGS.index(self.stream.encoding),
            self.finished,
            bytes.fromhex(self.stream.name),
            self.boot,
            self.first,
            self.before,
            self.acknowledged,
        )
        return begun + _CRC.pack(crc32(begun))


class Frame(NamedTuple):
    """The position of a record: its packed form is `data[start:end]`."""

    begin: int
    number: int
    start: int
    end: int


def read_header(data: bytes) -> Header | None:
    """The header at the begin of `data`; None if it is damaged."""
    if len(data) < HEADER_BYTES or _CRC.unpack_from(data, 60)[0] != crc32(data[:60]):
        return None
    magic, encoding, finished, name, boot, first, before, acknowledged = _HEADER.unpack_from(data)
    if magic != MAGIC or encoding >= len(ENCODINGS):
        return None
    stream = StreamKey(name.hex(), ENCODINGS[encoding])
    return Header(stream, boot, first, before, acknowledged, finished == 1)


def seed(stream: StreamKey) -> int:
    """The initial value of the checksums of a stream's records."""
    return crc32(bytes.fromhex(stream.name))


def frame(number: int, packed: bytes, begun: int) -> bytes:
    """A record as it stands in a file; `begun` is the stream's `seed`."""
    head = _FRAME.pack(_RECORD << 24 | len(packed), number)
    return b"".join((head, _CRC.pack(crc32(packed, crc32(head, begun))), packed))


def next_frame(data: bytes, at: int, least: int, begun: int) -> Frame | None:
    """The first whole record at or after `at` with a number of at least `least`.

    Where `begin` is not `at`, what stands between is damaged or left over.
    """
    while (mark := _MARK.search(data, at)) is not None:
        at = mark.start()
        found = _frame_at(data, at, begun)
        if found is None:
            at += 1
        elif least <= found.number < least + _MAX_JUMP:
            return found
        else:
            at = found.end
    return None


def is_torn(data: bytes, at: int) -> bool:
    """Whether what is left at `at` is only the begin of a record: its writer was interrupted."""
    left = len(data) - at
    if left < FRAME_BYTES:
        return left == 0 or data[at] == _RECORD
    length = _length(data, at)
    return length is not None and FRAME_BYTES + length > left


def _length(data: bytes, at: int) -> int | None:
    word = int.from_bytes(data[at : at + 4], "big")
    length = word & 0xFFFFFF
    return length if word >> 24 == _RECORD and length <= MAX_MESSAGE_BYTES else None


def _frame_at(data: bytes, at: int, begun: int) -> Frame | None:
    length = _length(data, at)
    start = at + FRAME_BYTES
    if length is None or start + length > len(data):
        return None
    crc = crc32(memoryview(data)[start : start + length], crc32(data[at : at + 12], begun))
    if crc != _CRC.unpack_from(data, at + 12)[0]:
        return None
    return Frame(at, int.from_bytes(data[at + 4 : at + 12], "big"), start, start + length)


# --- the files of one lane


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


class Place(NamedTuple):
    """A position in a lane: `records` of the segment stand before `offset`."""

    segment: Segment
    offset: int
    records: int


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

    @property
    def end(self) -> Place:
        """Behind all records; there must be a file."""
        return Place(self.newest, self.newest.size, self.newest.records)

    def add(self, each: Segment) -> None:
        """A newer one than all others."""
        self.row.append(each)
        self.bytes += each.size

    def resize(self, each: Segment, size: int) -> None:
        """The file has grown, or shrunk."""
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
    """The content of a file."""

    records: int
    last: int  # number; below the first one if there is none
    whole: bool  # nothing is damaged, or only the end was not written any more


def identify(path: Path) -> tuple[Header | None, int]:
    """Its header (None: damaged) and its size. OSError."""
    size = path.stat().st_size
    return read_header(_load(path, 0, HEADER_BYTES)), size


def guess(path: Path) -> Header:
    """The header by the file's name and its first record, where it is damaged."""
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
    begun = seed(each.stream)
    at, count, last, whole = HEADER_BYTES, 0, each.first - 1, True
    while (found := next_frame(data, at, 0, begun)) is not None:
        if through is not None and found.number > through:
            break
        whole = whole and found.begin == at
        at = found.end
        if found.number > last:  # or it is left over from before the file was emptied
            count, last = count + 1, found.number
    return Scan(count, last, whole and is_torn(data, at))


def write(fd: int, data: bytes, at: int) -> None:
    """Write all of `data`. OSError."""
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
