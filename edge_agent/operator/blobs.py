"""A module as the broker keeps it: compressed, cut into parts. Pure."""

import zlib
from typing import NamedTuple

from edge_agent.fleet_protocol.deployment import Encoding
from edge_agent.fleet_protocol.limits import MAX_PART_BYTES
from edge_agent.store.digest import Digest

ENCODING: Encoding = "zlib"
_LEVEL = 9  # packed once, fetched by every node


class Packed(NamedTuple):
    """`digest` and `size` are the module's, `parts` what goes to the broker."""

    digest: Digest
    size: int
    parts: tuple[bytes, ...]
    part_size: int = MAX_PART_BYTES
    encoding: Encoding = ENCODING

    @property
    def packed_bytes(self) -> int:
        return sum(map(len, self.parts))


def pack(wasm: bytes, part_size: int = MAX_PART_BYTES) -> Packed:
    """The same bytes give the same parts, so that an interrupted upload can go on."""
    packed = zlib.compress(wasm, _LEVEL)
    parts = tuple(packed[at : at + part_size] for at in range(0, len(packed), part_size))
    return Packed(Digest.of(wasm), len(wasm), parts, part_size)
