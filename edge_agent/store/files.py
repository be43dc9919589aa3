"""Atomic files: after any interruption a file is the old one or the new one, never a part.

A file is written beside its place, brought to the disk, renamed, and the rename brought
to the disk (the idea of borg's SaveFile). All errors are StoreError and name the file.
"""

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_agent.config.units import format_size
from edge_agent.errors import StoreError
from edge_agent.store.digest import PART_BYTES

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_BOOT_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TEMPORARY_PREFIX = ".new-"  # what a crash leaves behind begins with this
PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700
# Left free for the rest of the node: a full disk stops its runtime too.
RESERVED_BYTES = 8 << 20

_ADVICE = {
    errno.ENOSPC: "; free some space on this disk",
    errno.EDQUOT: "; free some space or raise the quota",
    errno.EROFS: "; state_dir must be on a disk that can be written",
    errno.EACCES: "; does the agent run as the owner of this folder?",
    errno.EPERM: "; does the agent run as the owner of this folder?",
    errno.EIO: "; the disk is failing",
}


def failure(action: str, path: Path, error: OSError) -> StoreError:
    """The StoreError that says why `action` failed and what to do."""
    number = error.errno or 0
    return StoreError(f"{path}: cannot {action}: {os.strerror(number)}{_ADVICE.get(number, '')}")


def make_folder(path: Path, mode: int = PRIVATE_FOLDER) -> None:
    """Make a folder and its parents unless they are there, and bring their names to the disk."""
    if path.is_dir():
        return
    if path.parent != path:
        make_folder(path.parent, 0o777)
    try:
        path.mkdir(mode=mode, exist_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise failure("make this folder", path, error) from error


def temporary_path(path: Path) -> Path:
    """A name beside `path` that nothing else uses; `remove_leftovers` knows it."""
    return path.with_name(f"{TEMPORARY_PREFIX}{os.urandom(6).hex()}-{path.name[:100]}")


def write(path: Path, data: bytes, mode: int = PRIVATE_FILE) -> None:
    """Put `data` in the place of `path`, with exactly the permissions `mode`."""
    with placing(path) as temporary:
        try:
            with open_new(temporary) as file:
                os.fchmod(file.fileno(), mode)
                file.write(data)
        except OSError as error:
            raise failure("write", path, error) from error


def open_new(path: Path) -> "_Synced":
    """A new file, readable by its owner alone, that is on the disk once it is closed."""
    return _Synced(path)


class _Synced:
    """An unbuffered file for writing; leaving the `with` without an error syncs it."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(path, flags, PRIVATE_FILE)

    def fileno(self) -> int:
        return self._fd

    def write(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def __enter__(self) -> "_Synced":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                os.fsync(self._fd)
        finally:
            os.close(self._fd)


@contextmanager
def placing(path: Path) -> Iterator[Path]:
    """Yield a temporary path; what was made there takes the place of `path`.

    On an error `path` stays as it was and the temporary file goes.
    """
    temporary = temporary_path(path)
    try:
        yield temporary
        try:
            temporary.replace(path)
            sync_folder(path.parent)
        except OSError as error:
            raise failure("put the new file in place", path, error) from error
    except BaseException:
        remove(temporary)
        raise


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, among all processes; a crash gives it back."""
    make_folder(path.parent)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
    except OSError as error:
        raise failure("lock", path, error) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Bring the names in `folder` to the disk. OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot, such as some FUSE
            raise
    finally:
        os.close(fd)


def read(path: Path, max_bytes: int) -> bytes | None:
    """The content of a regular file, or None if there is none of this name.

    StoreError also for more than `max_bytes`; nothing larger is taken into memory.
    """
    with opened(path, max_bytes) as file:
        if file is None:
            return None
        data = file.read(file.size)
        file.end()
        return data


@contextmanager
def opened(path: Path, max_bytes: int, *, follow: bool = True) -> Iterator["Reading | None"]:
    """A regular file of at most `max_bytes`, to be read in parts; None if there is none.

    StoreError for a link, too, unless it is to `follow`.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        # Not to hang on a named pipe, which is refused below.
        fd = os.open(path, flags | os.O_NONBLOCK)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise failure("read", path, error) from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise StoreError(f"{path}: is not a file")
        if status.st_size > max_bytes:
            raise StoreError(
                f"{path}: has {status.st_size} bytes; at most {format_size(max_bytes)} are taken"
            )
        yield Reading(path, fd, status.st_size)
    finally:
        os.close(fd)


class Reading:
    """A file with `size` bytes, read from its beginning to its end. StoreError: it changed."""

    def __init__(self, path: Path, fd: int, size: int) -> None:
        self.size = size
        self._path = path
        self._fd = fd

    def read(self, size: int) -> bytes:
        """The next `size` bytes, not fewer."""
        try:
            data = os.read(self._fd, size)
            while len(data) < size and (more := os.read(self._fd, size - len(data))):
                data += more
        except OSError as error:
            raise failure("read", self._path, error) from error
        if len(data) < size:
            raise self._changed()
        return data

    def parts(self) -> Iterator[bytes]:
        """All that is left, in parts that are small enough to be digested at once."""
        left = self.size
        while left:
            part = self.read(min(left, PART_BYTES))
            left -= len(part)
            yield part
        self.end()

    def sync(self) -> None:
        """Bring what others wrote here to the disk."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise failure("write", self._path, error) from error

    def end(self) -> None:
        """Check that the file did not grow meanwhile. StoreError."""
        if os.read(self._fd, 1):
            raise self._changed()

    def _changed(self) -> StoreError:
        return StoreError(f"{self._path}: changed while it was read; is it still being written?")


def remove(path: Path) -> bool:
    """Remove a file; False if it could not be removed or was not there."""
    try:
        path.unlink()
    except OSError:
        return False
    return True


def remove_folder(path: Path) -> bool:
    """Remove an empty folder; False if it could not be removed or was not there."""
    try:
        path.rmdir()
    except OSError:
        return False
    return True


def remove_leftovers(folder: Path) -> int:
    """Remove what crashes left behind in `folder`; how many files that were.

    Only while no other process writes there.
    """
    return sum(remove(path) for path in folder.glob(f"{TEMPORARY_PREFIX}*"))


def require_space(folder: Path, size: int) -> None:
    """StoreError unless `size` bytes fit on the disk of `folder` and a reserve remains."""
    try:
        disk = os.statvfs(folder)
    except OSError as error:
        raise failure("ask for free space", folder, error) from error
    free = disk.f_bavail * disk.f_frsize
    # Some file systems do not count at all: their writes tell.
    if disk.f_blocks and free < size + RESERVED_BYTES:
        raise StoreError(
            f"{folder}: the disk is full: {_mib(free)} free, {_mib(size)} needed and "
            f"{_mib(RESERVED_BYTES)} to stay free; free some space on this disk"
        )


def boot_id() -> str:
    """The kernel's name for this boot, 36 characters, by which a file tells whether the machine
    has started anew since it was written; empty where there is none."""
    try:
        text = BOOT_ID.read_text().strip()
    except (OSError, ValueError):
        return ""
    return text if _BOOT_ID.fullmatch(text) else ""


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"
