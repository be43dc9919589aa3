"""Modules as an operator cuts them for MQTT."""

import random
import zlib
from typing import NamedTuple

from edge_agent.fleet_protocol.deployment import Blob, Encoding
from edge_agent.store.digest import Digest


class Cut(NamedTuple):
    """A blob, its decoded bytes and its parts."""

    blob: Blob
    data: bytes
    parts: list[bytes]


def module(size: int, seed: int = 0) -> bytes:
    """Bytes that hardly shrink, beginning like a Wasm module."""
    return b"\0asm\1\0\0\0" + random.Random(seed).randbytes(size - 8)


def cut(data: bytes, part_size: int = 1024, encoding: Encoding = "zlib") -> Cut:
    """`data` encoded and cut."""
    encoded = zlib.compress(data) if encoding == "zlib" else data
    parts = [encoded[at : at + part_size] for at in range(0, len(encoded), part_size)]
    blob = Blob(Digest.of(data), len(data), encoding, len(parts), part_size)
    return Cut(blob, data, parts)
