"""A module in a file, read in small parts: its digest and its ModuleInfo.

Never mapped: whoever cuts a mapped file ends this process. Never whole in memory: modules
of 8 MB and more would stay in the heap.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.errors import ModuleError, StoreError, SupersededError
from edge_agent.store import files
from edge_agent.store.digest import PART_BYTES, Digest, sha256
from edge_agent.wasm.module import MAX_MODULE_BYTES, ModuleInfo, inspect_stream

if TYPE_CHECKING:
    from edge_agent.store.release import Code


@dataclass(frozen=True, slots=True)
class ModuleFile:
    """A module to be loaded, the way in which it is to be loaded included.

    `info` was read together with `digest`. `metered`: it counts its fuel.
    """

    path: Path
    digest: Digest
    info: ModuleInfo
    stack_bytes: int
    metered: bool = False
    code: "Code | None" = None  # the fleet's, made for this node


def identify(path: Path) -> tuple[Digest, int]:
    """(digest, size). StoreError: unreadable, too large or being written."""
    with files.opened(path, MAX_MODULE_BYTES) as file:
        if file is None:
            raise StoreError(f"{path}: is gone")
        stream = _Digested(file)
        return stream.finish(), file.size


def inspect_file(path: Path, digest: Digest) -> ModuleInfo:
    """Inspect the module with this digest. StoreError as above.

    ModuleError: it is no module; SupersededError: not the one with this digest.
    """
    with files.opened(path, MAX_MODULE_BYTES) as file:
        if file is None:
            raise StoreError(f"{path}: is gone")
        stream = _Digested(file)
        info, refused = None, None
        try:
            info = inspect_stream(stream, file.size)
        except ModuleError as error:
            refused = error
        # First of all: what was read may be half of the one and half of the other.
        if stream.finish() != digest:
            raise SupersededError("it changed while it was read; it is read again")
        if info is None:
            assert refused is not None
            raise refused
        return info


class _Digested:
    """A stream of a file whose bytes all pass the digest, in their order."""

    def __init__(self, file: files.Reading) -> None:
        self._file = file
        self._left = file.size
        self._digest = sha256()
        self._held = b""  # read ahead

    def read(self, size: int) -> bytes:
        size = min(size, self._left + len(self._held))
        while len(self._held) < size:
            self._held += self._part()
        data, self._held = self._held[:size], self._held[size:]
        return data

    def skip(self, size: int) -> None:
        while size > len(self._held) and self._left:
            size -= len(self._held)
            self._held = self._part()
        self._held = self._held[size:]

    def finish(self) -> Digest:
        """The digest of all of it."""
        self.skip(self._left + len(self._held))
        self._file.end()
        return Digest.made(self._digest)

    def _part(self) -> bytes:
        part = self._file.read(min(PART_BYTES, self._left))
        self._left -= len(part)
        self._digest.update(part)
        return part
