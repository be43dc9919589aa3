"""The modules on disk, as an OCI image layout (image-spec, image-layout.md).

    STATE/store/oci-layout              which version of the layout this is
    STATE/store/index.json              one manifest for each release
    STATE/store/blobs/sha256/HEX        manifests, their configurations, modules; machine code, that
                                        the catalogue alone names
    STATE/store/incoming/HEX/           parts of a module that is still being fetched
    STATE/store/lock                    held while something is added or removed

Each release is one Wasm artifact (CNCF TAG Runtime, "Wasm OCI Artifact layout"), so `oras` and
`skopeo` read and prepare a board's store. A blob is written before what names it, so a crash
leaves at most blobs that nothing names. Everything here waits: for worker threads only.
"""

import contextlib
import logging
import re
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from edge_agent.errors import StoreError
from edge_agent.store import artifact, files
from edge_agent.store.artifact import Stored
from edge_agent.store.digest import Digest, sha256

log = logging.getLogger(__name__)

LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
MAX_INDEX_BYTES = 1 << 20  # some 2,000 releases; a board has a few dozen
MAX_BLOB_BYTES = 256 << 20  # above any module that a deployment may name

_HEX = re.compile(r"[0-9a-f]{64}")


class Layout:
    """The store of one state folder. StoreError from all that reads or writes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs" / "sha256"
        self._incoming = root / "incoming"
        self._index = root / "index.json"

    def blob(self, digest: Digest) -> Path:
        """Where the blob is, or would be."""
        return self._blobs / digest.hex

    def has(self, digest: Digest) -> bool:
        """Whether the blob is here; `check` has seen whether it is good."""
        try:
            return stat.S_ISREG(self.blob(digest).lstat().st_mode)
        except OSError:
            return False

    def good(self, digest: Digest) -> bool:
        """Whether the blob is here and has the content that its digest says."""
        return self.has(digest) and _good(self.blob(digest))

    def transfers(self) -> list[Path]:
        """The folders below `incoming`, named by the bare digests; of `incoming` that is there."""
        return _children(self._incoming) if self._incoming.is_dir() else []

    def incoming(self, digest: Digest) -> Path:
        """The folder for parts of this module, which need not exist; `collect` ends it."""
        return self._incoming / digest.hex

    def releases(self) -> list[Stored]:
        """Every release that the index names and whose manifest can be read."""
        found = []
        for entry in self._entries():
            release = self._release(entry)
            if release is not None:
                found.append(release)
        return found

    def add_module(self, name: str, version: str, module: Path | bytes) -> Digest:
        """Add a release and return its module's digest; nothing changes if it is here.

        A file below `incoming` is moved into its place, any other is copied. Its bytes
        are what is named: the caller compares the digest with what it wanted.
        """
        with self._locked():
            self._begin()
            if isinstance(module, bytes):
                digest, size = self._put(module), len(module)
            else:
                digest, size = self._take(module)
            self._add_release(name, version, digest, size)
        return digest

    def add_blob(self, path: Path) -> Digest:
        """Add a file that no manifest names, as long as `collect` keeps it; its digest.

        It is moved or copied as in `add_module`.
        """
        with self._locked():
            self._begin()
            return self._take(path)[0]

    def check(self) -> list[Digest]:
        """Compare every blob with its digest; remove the damaged and return their digests.

        An index that is damaged or names what is not here is written anew.
        """
        if not self.root.is_dir():
            return []
        with self._locked():
            self._begin()
            files.remove_leftovers(self.root)
            files.remove_leftovers(self._blobs)
            damaged = [digest for digest in self._listed() if not _good(self.blob(digest))]
            for digest in damaged:
                _remove(self.blob(digest))
            good = [entry for entry in self._entries() if self._release(entry)]
            self._write_index(good + self._unnamed({entry["digest"] for entry in good}))
        return damaged

    def collect(self, keep: Collection[Digest]) -> int:
        """Remove all releases, blobs and parts but of the modules `keep`; bytes freed."""
        if not self.root.is_dir():
            return 0
        with self._locked():
            self._begin()
            kept = [
                entry
                for entry in self._entries()
                if (release := self._release(entry)) and release.digest in keep
            ]
            self._write_index(kept)
            needed = {digest.hex for digest in keep}
            for entry in kept:
                blobs = artifact.digests(entry, self._manifest(entry))
                needed.update(digest.hex for digest in blobs)
            return sum(
                _remove(path)
                for folder in (self._blobs, self._incoming)
                for path in _children(folder)
                if path.name not in needed
            )

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        return files.locked(self.root / "lock")

    def _begin(self) -> None:
        """Make the files that a layout must have."""
        for folder in (self._blobs, self._incoming):
            files.make_folder(folder)
        version = self.root / "oci-layout"
        if _content(version, len(LAYOUT)) != LAYOUT:
            files.write(version, LAYOUT)
        if not self._index.exists():
            self._write_index([])

    # The index.

    def _entries(self) -> list[artifact.Descriptor]:
        """The entries of the index; if it is damaged, every release that is on the disk."""
        try:
            data = files.read(self._index, MAX_INDEX_BYTES)
            return artifact.read_index(data) if data is not None else []
        except (StoreError, ValueError) as error:
            log.warning("%s: %s; looking for manifests instead", self._index, error)
            return self._unnamed(())

    def _write_index(self, entries: list[artifact.Descriptor]) -> None:
        data = artifact.index(entries)
        if _content(self._index, MAX_INDEX_BYTES) != data:
            files.write(self._index, data)

    def _unnamed(self, named: Collection[str]) -> list[artifact.Descriptor]:
        """Entries for the manifests here that are not among `named`."""
        found = []
        for digest in self._listed():
            size = self.blob(digest).lstat().st_size
            if digest not in named and size <= artifact.MAX_MANIFEST_BYTES:
                entry = artifact.descriptor(artifact.MANIFEST_TYPE, digest, size)
                release = self._release(entry)
                if release is not None:
                    found.append(artifact.entry(entry, release.name, release.version))
        return found

    def _manifest(self, entry: artifact.Descriptor) -> dict[str, object]:
        data = files.read(self.blob(entry["digest"]), artifact.MAX_MANIFEST_BYTES)
        if data is None:
            raise StoreError(f"{self.blob(entry['digest'])}: is missing")
        try:
            return artifact.read_manifest(data)
        except ValueError as error:
            raise StoreError(f"{self.blob(entry['digest'])}: {error}") from error

    def _release(self, entry: artifact.Descriptor) -> Stored | None:
        """The release of an index entry, or None if something of it is missing."""
        try:
            manifest = self._manifest(entry)
            found = artifact.stored(entry, manifest)
        except (StoreError, ValueError):
            return None
        here = all(self.has(digest) for digest in artifact.digests(entry, manifest))
        return found if here else None

    # Blobs.

    def _listed(self) -> list[Digest]:
        names = (path.name for path in _children(self._blobs))
        return [Digest.of_hex(name) for name in names if _HEX.fullmatch(name)]

    def _put(self, data: bytes) -> Digest:
        """Write a blob unless it is here."""
        digest = Digest.of(data)
        if not self.has(digest):
            files.require_space(self._blobs, len(data))
            files.write(self.blob(digest), data)
        return digest

    def _take(self, module: Path) -> tuple[Digest, int]:
        """Move or copy a file to where its digest says; digest and size."""
        with _opened(module) as file:
            size = file.size
            digest = _hash(file)
            if self._incoming in module.parents:
                file.sync()
                self._move(module, digest)
                return digest, size
        if not self.has(digest):
            files.require_space(self._blobs, size)
            self._copy(module, digest)
        return digest, size

    def _move(self, module: Path, digest: Digest) -> None:
        try:
            module.replace(self.blob(digest))
            files.sync_folder(self._blobs)
        except OSError as error:
            raise files.failure("put the module in place", module, error) from error

    def _copy(self, module: Path, digest: Digest) -> None:
        place = self.blob(digest)
        copied = sha256()
        with _opened(module) as source, files.placing(place) as temporary:
            try:
                with files.open_new(temporary) as target:
                    for part in source.parts():
                        copied.update(part)
                        target.write(part)
            except OSError as error:
                raise files.failure("write", place, error) from error
            if Digest.made(copied) != digest:
                raise StoreError(f"{module}: changed while it was copied")

    def _add_release(self, name: str, version: str, digest: Digest, size: int) -> None:
        config = artifact.config(digest)
        manifest = artifact.manifest(
            name,
            version,
            artifact.descriptor(artifact.CONFIG_TYPE, self._put(config), len(config)),
            artifact.descriptor(artifact.MODULE_TYPE, digest, size),
        )
        entry = artifact.entry(
            artifact.descriptor(artifact.MANIFEST_TYPE, self._put(manifest), len(manifest)),
            name,
            version,
        )
        self._write_index(artifact.added(self._entries(), entry))


def _good(path: Path) -> bool:
    """Whether a blob is a file of the content that its name says."""
    try:
        with _opened(path) as file:
            return _hash(file).hex == path.name
    except StoreError as error:
        log.warning("%s", error)
        return False


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[files.Reading]:
    """A regular file that is no link. StoreError."""
    with files.opened(path, MAX_BLOB_BYTES, follow=False) as file:
        if file is None:
            raise StoreError(f"{path}: is missing")
        yield file


def _hash(file: files.Reading) -> Digest:
    digest = sha256()
    for part in file.parts():
        digest.update(part)
    return Digest.made(digest)


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise files.failure("list", folder, error) from error


def _content(path: Path, max_bytes: int) -> bytes | None:
    """Like `files.read`, but None for a file that cannot be read: it is to be replaced."""
    try:
        return files.read(path, max_bytes)
    except StoreError:
        return None


def _remove(path: Path) -> int:
    """Remove a file or a folder with all in it; how many bytes that frees."""
    try:
        if stat.S_ISDIR(path.lstat().st_mode):
            import shutil  # with bz2 and lzma; folders are what somebody else put there

            size = sum(each.lstat().st_size for each in path.rglob("*"))
            shutil.rmtree(path, ignore_errors=True)
            return size
        size = path.lstat().st_size
    except OSError:
        return 0
    return size if files.remove(path) else 0
