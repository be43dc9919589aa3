"""The parts of a blob on the disk, one file each, and the blob made from them.

A file's name tells how the blob was cut, so that parts of one cut are never put together
with those of another. A part is whole or not there; whether it is the right one only the
digest of the blob tells.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path

from edge_agent.errors import StoreError, TransferError, WrongBlobError
from edge_agent.fleet_protocol.deployment import Blob
from edge_agent.store import files
from edge_agent.store.digest import PART_BYTES, Digest, sha256

DECODED = "decoded"
_NUMBER_DIGITS = 9


def part_prefix(blob: Blob) -> str:
    """What the names of the parts of this cut begin with."""
    return f"{blob.encoding}-{blob.part_size}-{blob.parts}-"


def is_part_size(blob: Blob, number: int, size: int) -> bool:
    """Whether part `number` may have `size` bytes: all have as many, the last has the rest."""
    if number == blob.parts - 1:
        return 0 < size <= blob.part_size
    return size == blob.part_size


class PartFiles:
    """The parts of `blob` in `folder`, which belongs to this blob alone. StoreError."""

    def __init__(self, folder: Path, blob: Blob) -> None:
        self._folder = folder
        self._blob = blob
        self._prefix = part_prefix(blob)

    def here(self) -> set[int]:
        """The numbers of the parts that are there."""
        files.remove_leftovers(self._folder)
        return set(self._parts())

    def store(self, number: int, data: bytes) -> None:
        """Put part `number` on the disk."""
        files.write(self._path(number), data)

    def remove(self) -> None:
        """Remove every part."""
        for path in self._parts().values():
            files.remove(path)

    def decode(self) -> Path:
        """The blob, decoded and checked, as a file. All parts must be there.

        WrongBlobError if the parts make another one, or more bytes than declared; no more
        are then written.
        """
        path = self._folder / DECODED
        files.remove(path)
        digest = sha256()
        left = self._blob.size
        try:
            with files.open_new(path) as file:
                for piece in self._pieces():
                    left -= len(piece)
                    if left < 0:
                        raise WrongBlobError(
                            f"its parts decode to more than the declared {self._blob.size} bytes"
                        )
                    digest.update(piece)
                    file.write(piece)
        except OSError as error:
            files.remove(path)
            raise files.failure("write", path, error) from error
        except (TransferError, StoreError):
            files.remove(path)
            raise
        found = Digest.made(digest)
        if left or found != self._blob.digest:
            files.remove(path)
            raise WrongBlobError(f"its parts make {found}, which is another blob")
        return path

    def _pieces(self) -> Iterator[bytes]:
        """The decoded blob in pieces of at most PART_BYTES, whatever the parts say."""
        encoded = (self._part(number) for number in range(self._blob.parts))
        if self._blob.encoding != "zlib":
            for part in encoded:
                for at in range(0, len(part), PART_BYTES):
                    yield part[at : at + PART_BYTES]
            return
        inflate = zlib.decompressobj()
        try:
            for part in encoded:
                if inflate.eof:  # all that follows would gather in memory
                    raise WrongBlobError("its parts go on after the end of the zlib data")
                yield inflate.decompress(part, PART_BYTES)
                while inflate.unconsumed_tail:
                    yield inflate.decompress(inflate.unconsumed_tail, PART_BYTES)
            yield inflate.flush()  # the rest of one match, at most
        except zlib.error as error:
            raise WrongBlobError(f"its parts are not zlib data: {error}") from error
        if not inflate.eof or inflate.unused_data:
            raise WrongBlobError("its parts do not end where the zlib data does")

    def _parts(self) -> dict[int, Path]:
        try:
            entries = list(self._folder.iterdir())
        except OSError as error:
            raise files.failure("list", self._folder, error) from error
        numbers = {path: self._number(path) for path in entries}
        return {number: path for path, number in numbers.items() if number is not None}

    def _part(self, number: int) -> bytes:
        path = self._path(number)
        try:
            data = files.read(path, self._blob.part_size)
        except StoreError as error:
            files.remove(path)  # to be asked for again, instead of failing for ever
            raise TransferError(f"part {number} cannot be read again: {error}") from error
        if data is None:
            raise TransferError(f"part {number} is gone: {path}")
        return data

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._prefix}{number}"

    def _number(self, path: Path) -> int | None:
        """The part that `path` is, or None if it is not one."""
        tail = path.name.removeprefix(self._prefix)
        if not (tail.isascii() and tail.isdecimal() and len(tail) <= _NUMBER_DIGITS):
            return None
        number = int(tail)
        if number >= self._blob.parts or path != self._path(number):
            return None
        try:
            size = path.lstat().st_size
        except OSError:
            return None
        return number if is_part_size(self._blob, number, size) else None
