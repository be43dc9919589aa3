"""Records and batches as bytes, in the two encodings of the fleet protocol.

Records are packed one by one, so a batch is its head plus the packed records put behind
one another: its exact size is known before it is built and nothing is packed twice.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import msgpack  # type: ignore[import-untyped]

Record = Mapping[str, object]


class Packing(ABC):
    """One encoding. `pack` raises ValueError, TypeError, OverflowError for what it cannot hold."""

    overhead: int  # bytes that a batch adds to its head and records, at most
    separator: int  # bytes that a batch adds for each record, at most

    @abstractmethod
    def pack(self, record: Record) -> bytes:
        """One record; what the encoding has no form for is written as text."""

    @abstractmethod
    def batch(self, head: Record, records: Sequence[bytes]) -> bytes:
        """The map `head` with the packed `records` under the key `records`."""


class MsgpackPacking(Packing):
    """MessagePack: half the size of JSON, bytes stay bytes."""

    overhead = len(b"\xa7records") + 5  # the key and the longest array header
    separator = 0

    def pack(self, record: Record) -> bytes:
        packed: bytes = msgpack.packb(record, default=str, unicode_errors="backslashreplace")
        return packed

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
    """JSON, for tools that read nothing else."""

    overhead = len(b',"records":[]')
    separator = len(b",")

    def pack(self, record: Record) -> bytes:
        text = json.dumps(record, separators=(",", ":"), default=_as_text, allow_nan=False)
        return text.encode("ascii")

    def batch(self, head: Record, records: Sequence[bytes]) -> bytes:
        opened = self.pack(head).removesuffix(b"}")
        return b"".join((opened, b',"records":[', b",".join(records), b"]}"))


PACKINGS: dict[str, type[Packing]] = {"msgpack": MsgpackPacking, "json": JsonPacking}


def pack_json(record: Record) -> bytes:
    """A document of its own (status, state, metrics), always JSON. Raises like `Packing.pack`."""
    return JsonPacking().pack(record)


def _as_text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)
