"""Imports modules from an OCI image layout that another tool prepared, a folder or a tar.

`oras`, `skopeo` or another board made it, and it came on a stick: nothing in it is trusted. Only
files are read, only below the layout, only as much as is declared, and what a digest names must
have that digest. For commands only: it is never part of `edge-agent run`.
"""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from edge_agent import strictjson
from edge_agent.errors import StoreError
from edge_agent.store import artifact, files
from edge_agent.store.artifact import Descriptor, Stored
from edge_agent.store.digest import PART_BYTES, Digest, sha256
from edge_agent.store.layout import MAX_BLOB_BYTES, MAX_INDEX_BYTES, Layout

MAX_RELEASES = 1000  # in one layout; a board keeps two of each plugin
MAX_TAR_MEMBERS = 10_000
# tarfile reads an extended header as one piece, of whatever size it says.
MAX_TAR_READ_BYTES = 1 << 20
WASM_MAGIC = b"\0asm\1\0\0\0"


class Found(NamedTuple):
    """What became of one entry of the index: a release, or why it is none."""

    entry: str
    release: Stored | None = None
    fresh: bool = False  # it was not here before
    problem: str = ""


class Source(Protocol):
    """A layout that can be read: relative paths such as "index.json"."""

    def size(self, path: str) -> int | None:
        """Bytes of a regular file; None: there is none of this name. ValueError."""

    def parts(self, path: str) -> Iterator[bytes]:
        """Its content, in small parts. ValueError: it cannot be read."""


def import_layout(path: Path, layout: Layout) -> Iterator[Found]:
    """Take every Wasm artifact of the layout at `path`, one after the other.

    StoreError: it is no layout, or our own disk does not take it.
    """
    with _source(path) as source:
        _check_version(path, source)
        for number, entry in enumerate(_entries(path, source)):
            if number == MAX_RELEASES:
                raise StoreError(f"{path}: more than {MAX_RELEASES} artifacts; the rest is left")
            try:
                yield _take(source, entry, layout)
            except ValueError as error:
                yield Found(entry["digest"], problem=str(error))


def _take(source: Source, entry: Descriptor, layout: Layout) -> Found:
    """ValueError: it is no Wasm artifact, or not what its digest says."""
    manifest = artifact.read_manifest(_read(source, entry, artifact.MAX_MANIFEST_BYTES))
    release = artifact.stored(entry, manifest)
    if layout.good(release.digest):
        layout.add_module(release.name, release.version, layout.blob(release.digest))
        return Found(entry["digest"], release)
    if not len(WASM_MAGIC) <= release.size <= MAX_BLOB_BYTES:
        raise ValueError(f"{release.digest}: no module has {release.size} bytes")
    folder = layout.incoming(release.digest)
    files.make_folder(folder)
    files.require_space(folder, release.size)
    temporary = files.temporary_path(folder / "module")
    try:
        _copy(source, release, temporary)
        layout.add_module(release.name, release.version, temporary)
    finally:
        files.remove(temporary)
        files.remove_folder(folder)
    return Found(entry["digest"], release, fresh=True)


def _copy(source: Source, release: Stored, target: Path) -> None:
    """ValueError: not the module that is named."""
    path = _blob(release.digest)
    if source.size(path) != release.size:
        raise ValueError(f"{path}: {source.size(path)} bytes, {release.size} are named")
    digest, beginning = sha256(), b""
    try:
        with files.open_new(target) as file:
            for part in source.parts(path):
                beginning = beginning or part[: len(WASM_MAGIC)]
                digest.update(part)
                file.write(part)
    except OSError as error:
        raise files.failure("write", target, error) from error
    if Digest.made(digest) != release.digest:
        raise ValueError(f"{path}: its content has another digest")
    if beginning != WASM_MAGIC:
        raise ValueError(f"{path}: is no Wasm module")


def _check_version(path: Path, source: Source) -> None:
    try:
        value = strictjson.loads(_whole(source, "oci-layout", 4096))
        version = value.get("imageLayoutVersion") if isinstance(value, dict) else None
    except ValueError as error:
        raise StoreError(f"{path}: not an OCI image layout: {error}") from error
    if not isinstance(version, str) or not version.startswith("1."):
        raise StoreError(f"{path}: an OCI image layout of version {ascii(version)[:40]}, not 1.0.0")


def _entries(path: Path, source: Source) -> Iterator[Descriptor]:
    """The manifests of the index, and of indexes that it names."""
    try:
        manifests, indexes = artifact.read_indexes(_whole(source, "index.json", MAX_INDEX_BYTES))
    except ValueError as error:
        raise StoreError(f"{path}: index.json: {error}") from error
    yield from manifests
    for each in indexes:
        try:
            yield from artifact.read_index(_read(source, each, MAX_INDEX_BYTES))
        except ValueError as error:
            raise StoreError(f"{path}: {error}") from error


def _read(source: Source, entry: Descriptor, max_bytes: int) -> bytes:
    """A small blob, compared with its digest. ValueError."""
    data = _whole(source, _blob(entry["digest"]), max_bytes)
    if len(data) != entry["size"] or Digest.of(data) != entry["digest"]:
        raise ValueError(f"{_blob(entry['digest'])}: its content has another digest")
    return data


def _whole(source: Source, path: str, max_bytes: int) -> bytes:
    size = source.size(path)
    if size is None:
        raise ValueError(f"{path} is missing")
    if size > max_bytes:
        raise ValueError(f"{path}: {size} bytes; at most {max_bytes} are taken")
    return b"".join(source.parts(path))


def _blob(digest: Digest) -> str:
    """The path of a digest, whose form `artifact` has checked."""
    return f"blobs/{digest.replace(':', '/')}"


@contextmanager
def _source(path: Path) -> Iterator[Source]:
    if path.is_dir():
        yield _Folder(path)
        return
    try:
        with path.open("rb") as file:
            yield _Tar(path, file)
    except OSError as error:
        raise files.failure("read", path, error) from error


class _Folder:
    """A layout unpacked."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def size(self, path: str) -> int | None:
        # A link in the middle would lead out of the layout as well as one at the end.
        if any((self._root / folder).is_symlink() for folder in ("blobs", "blobs/sha256")):
            raise StoreError(f"{self._root}/blobs: is a link, which no layout has")
        with self._opened(path) as file:
            return None if file is None else file.size

    def parts(self, path: str) -> Iterator[bytes]:
        with self._opened(path) as file:
            if file is not None:
                yield from file.parts()

    @contextmanager
    def _opened(self, path: str) -> Iterator[files.Reading | None]:
        """ValueError: what is there is no file, or the stick cannot be read."""
        try:
            with files.opened(self._root / path, MAX_BLOB_BYTES, follow=False) as file:
                yield file
        except StoreError as error:
            raise ValueError(str(error)) from error


class _Tar:
    """A layout as an uncompressed tar, as `skopeo copy ... oci-archive:` and `tar c` make it."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        try:
            self._tar = tarfile.open(fileobj=_Careful(file), mode="r:")  # type: ignore[call-overload]  # noqa: SIM115
            self._members: dict[str, tarfile.TarInfo] = {}
            for number, member in enumerate(self._tar):
                if number == MAX_TAR_MEMBERS:
                    raise StoreError(f"{path}: more than {MAX_TAR_MEMBERS} files in this tar")
                if member.isreg() and not member.issparse():
                    self._members.setdefault(member.name.removeprefix("./"), member)
        except (tarfile.TarError, ValueError, RecursionError) as error:
            raise StoreError(
                f"{path}: neither a folder nor an uncompressed tar of an OCI image layout: {error}"
            ) from error

    def size(self, path: str) -> int | None:
        member = self._members.get(path)
        return None if member is None else member.size

    def parts(self, path: str) -> Iterator[bytes]:
        file = self._tar.extractfile(self._members[path])
        assert file is not None  # a regular file, as all that are listed
        try:
            while part := file.read(PART_BYTES):
                yield part
        except tarfile.TarError as error:
            raise ValueError(f"{path}: {error}") from error


class _Careful:
    """A file of which nothing is read in pieces so large that they would fill the memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.tell, self.seek, self.close = file.tell, file.seek, file.close

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_TAR_READ_BYTES:
            raise ValueError(f"a header of {size} bytes")
        return self._file.read(size)
