"""The files of an outbox on disk, as bytes. Pure.

A *lane* of records is a row of files `NAME-IIIIIIIIII-SSSSSSSSSSSSSSSS.seg`: ten digits that
count its files, and the stream that the records belong to. Numbers are big-endian.

    header, 64 bytes, rewritten in place
        0   8   "edgelog1"
        8   1   encoding of the records: 0 msgpack, 1 json
        9   1   1: the file was finished and brought to the disk before the writer ended
       10   2   0
       12   8   name of the stream
       20  16   boot of the machine on which it was written (boot_id)
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

import re
from binascii import crc32
from struct import Struct
from typing import NamedTuple

from edge_agent.mqtt.packing import MESSAGE_BYTES, PACKINGS
from edge_agent.mqtt.stream import StreamKey

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
    """Where a record stands: its packed form is `data[start:end]`."""

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
    """What the checksums of its records begin with."""
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
    return length if word >> 24 == _RECORD and length <= MESSAGE_BYTES else None


def _frame_at(data: bytes, at: int, begun: int) -> Frame | None:
    length = _length(data, at)
    start = at + FRAME_BYTES
    if length is None or start + length > len(data):
        return None
    crc = crc32(memoryview(data)[start : start + length], crc32(data[at : at + 12], begun))
    if crc != _CRC.unpack_from(data, at + 12)[0]:
        return None
    return Frame(at, int.from_bytes(data[at + 4 : at + 12], "big"), start, start + length)
