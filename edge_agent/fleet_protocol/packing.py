"""Records and batches as bytes, in the two encodings of the fleet protocol.

Records are packed one by one, so a batch is its head plus the packed records put behind
one another: its exact size is known before it is built and nothing is packed twice. A
record gets its number last, once it is known which stream takes it.
"""

import binascii
import functools
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgpack  # type: ignore[import-untyped]

Record = Mapping[str, object]

# What `numbered` adds to a body, at most.
NUMBER_BYTES = 32


class Body(NamedTuple):
    """A packed record that has no number yet."""

    fields: int
    packed: bytes


class Packing(ABC):
    """One encoding. `pack` raises ValueError, TypeError, OverflowError for what it cannot hold."""

    overhead: int  # bytes that a batch adds to its head and records, at most
    separator: int  # bytes that a batch adds for each record, at most

    @abstractmethod
    def pack(self, record: Record) -> bytes:
        """One record; what the encoding has no form for is written as text."""

    @abstractmethod
    def body(self, record: Record) -> Body:
        """One record that will be numbered. Raises like `pack`."""

    @abstractmethod
    def numbered(self, body: Body, number: int) -> bytes:
        """The record with its `seq`, as `batch` takes it."""

    @abstractmethod
    def batch(self, head: Record, records: Sequence[bytes]) -> bytes:
        """The map `head` with the packed `records` under the key `records`."""


class MsgpackPacking(Packing):
    """MessagePack: half the size of JSON, bytes stay bytes."""

    overhead = len(b"\xa7records") + 5  # the key and the longest array header
    separator = 0

    @functools.cached_property
    def _packer(self) -> Any:
        """Kept: making one takes longer than packing a record. It is empty again after each."""
        return msgpack.Packer(default=str, unicode_errors="backslashreplace")

    def pack(self, record: Record) -> bytes:
        packed: bytes = self._packer.pack(record)
        return packed

    def body(self, record: Record) -> Body:
        return Body(len(record), self.pack(record)[_map_header_bytes(len(record)) :])

    def numbered(self, body: Body, number: int) -> bytes:
        header: bytes = self._packer.pack_map_header(body.fields + 1)
        return b"".join((header, b"\xa3seq", self._packer.pack(number), body.packed))

    def batch(self, head: Record, records: Sequence[bytes]) -> bytes:
        packer = msgpack.Packer(autoreset=False)
        packer.pack_map_header(len(head) + 1)
        for key, value in head.items():
            packer.pack(key)
            packer.pack(value)
        packer.pack("records")
        packer.pack_array_header(len(records))
        return b"".join((packer.bytes(), *records))


class JsonPacking(Packing):
    """JSON, for tools that read nothing else. Bytes are text where they are UTF-8."""

    overhead = len(b',"records":[]')
    separator = len(b",")

    def pack(self, record: Record) -> bytes:
        text = json.dumps(record, separators=(",", ":"), default=_as_json, allow_nan=False)
        return text.encode("ascii")

    def body(self, record: Record) -> Body:
        return Body(len(record), self.pack(record)[1:-1])

    def numbered(self, body: Body, number: int) -> bytes:
        return b'{"seq":%d%s%s}' % (number, b"," if body.fields else b"", body.packed)

    def batch(self, head: Record, records: Sequence[bytes]) -> bytes:
        opened = self.pack(head).removesuffix(b"}")
        return b"".join((opened, b',"records":[', b",".join(records), b"]}"))


PACKINGS: dict[str, type[Packing]] = {"msgpack": MsgpackPacking, "json": JsonPacking}


def pack_json(record: Record) -> bytes:
    """A document of its own (status, state, metrics), always JSON. Raises like `Packing.pack`."""
    return JsonPacking().pack(record)


def _map_header_bytes(fields: int) -> int:
    if fields < 16:
        return 1
    return 3 if fields < 1 << 16 else 5


def bytes_as_json(value: bytes) -> str | dict[str, str]:
    """Bytes as text, or as `{"base64": ...}` where they are no UTF-8: nothing is lost."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": binascii.b2a_base64(value, newline=False).decode()}


def _as_json(value: object) -> object:
    return bytes_as_json(value) if isinstance(value, bytes) else str(value)
