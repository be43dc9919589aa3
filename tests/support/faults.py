"""Every way in which a process that writes files can be interrupted, one after the other.

`survives` runs an act (such as saving the catalogue) on a folder again and again:

- `kill`: in a process of its own that is killed by SIGKILL before its n-th file operation, and in
  the middle of each write, for every n;
- `power`: once, recorded; then the power is cut after every prefix of its operations, and every
  state of the disk is laid out that may be found afterwards (tests.support.disk);
- `error`: with the n-th operation failing, as on a full, failing or read-only disk, for every n.

After each the judge is called with the folder. Nothing in the code under test knows of this: the
functions of the module `os` are replaced, which `pathlib` and `shutil` use too.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from edge_agent.errors import StoreError
from tests.support.disk import Contents, Disk, File, lay_out, snapshot

Act = Callable[[Path], object]

# How often each fault is tried; a test says that it was often enough.
Counts = dict[str, int]

_ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS)
_WRITING = os.O_WRONLY | os.O_RDWR


class Shim:
    """Stands in for functions of `os` and tells `before` of each operation below `root`.

    `before(name, path, data)` may end the process or raise OSError.
    """

    def __init__(self, root: Path, before: Callable[[str, str, bytes], None]) -> None:
        self._root = os.fspath(root.resolve())
        self._before = before
        self.disk: Disk | None = None
        self._files: dict[int, str] = {}  # descriptor -> relative path when it was opened
        self._nodes: dict[int, File] = {}
        self._real = {name: getattr(os, name) for name in PATCHED}

    @contextmanager
    def installed(self) -> Iterator[Shim]:
        with ExitStack() as stack:
            for name in PATCHED:
                stack.enter_context(mock.patch.object(os, name, getattr(self, name)))
            yield self

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        where = self._inside(path, dir_fd)
        if where is None:
            return int(self._real["open"](path, flags, mode, dir_fd=dir_fd))
        new = bool(flags & os.O_CREAT) and not os.path.lexists(f"{self._root}/{where}")
        if new:
            self._before("create", where, b"")
        fd = int(self._real["open"](path, flags, mode, dir_fd=dir_fd))
        self._files[fd] = where
        if self.disk is not None:
            node = self.disk.create(where) if new else self._known(where)
            if isinstance(node, File):
                self._nodes[fd] = node
                if flags & os.O_TRUNC and flags & _WRITING:
                    node.content = b""
        return fd

    def close(self, fd: int) -> None:
        self._files.pop(fd, None)
        self._nodes.pop(fd, None)
        self._real["close"](fd)

    def write(self, fd: int, data: Any) -> int:
        where = self._files.get(fd)
        if where is None:
            return int(self._real["write"](fd, data))
        at = os.lseek(fd, 0, os.SEEK_CUR)
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND:
            at = os.fstat(fd).st_size
        self._before("write", where, bytes(data))
        count = int(self._real["write"](fd, data))
        self._written(fd, at, bytes(data)[:count])
        return count

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        where = self._files.get(fd)
        if where is None:
            return int(self._real["pwrite"](fd, data, offset))
        self._before("write", where, bytes(data))
        count = int(self._real["pwrite"](fd, data, offset))
        self._written(fd, offset, bytes(data)[:count])
        return count

    def ftruncate(self, fd: int, length: int) -> None:
        where = self._files.get(fd)
        if where is not None:
            self._before("truncate", where, b"")
        self._real["ftruncate"](fd, length)
        node = self._nodes.get(fd)
        if node is not None:
            node.content = node.content[:length].ljust(length, b"\0")

    def fchmod(self, fd: int, mode: int) -> None:
        where = self._files.get(fd)
        if where is not None:
            self._before("chmod", where, b"")
        self._real["fchmod"](fd, mode)

    def fsync(self, fd: int) -> None:
        self._sync("fsync", fd)

    def fdatasync(self, fd: int) -> None:
        self._sync("fdatasync", fd)

    def replace(self, source: Any, target: Any, **options: Any) -> None:
        self._rename("replace", source, target, options)

    def rename(self, source: Any, target: Any, **options: Any) -> None:
        self._rename("rename", source, target, options)

    def unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._remove("unlink", path, dir_fd)

    def remove(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._remove("remove", path, dir_fd)

    def rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._remove("rmdir", path, dir_fd)

    def mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        where = self._inside(path, dir_fd)
        if where is not None:
            self._before("mkdir", where, b"")
        self._real["mkdir"](path, mode, dir_fd=dir_fd)
        if where is not None and self.disk is not None:
            self.disk.mkdir(where)

    def _sync(self, name: str, fd: int) -> None:
        where = self._files.get(fd)
        if where is not None:
            self._before("sync", where, b"")
        self._real[name](fd)
        if where is not None and self.disk is not None:
            # By descriptor: the name may lead to another file by now.
            node = self._nodes.get(fd) or self._known(where)
            assert node is not None, where
            self.disk.sync(node)

    def _rename(self, name: str, source: Any, target: Any, options: dict[str, Any]) -> None:
        start, end = self._inside(source, None), self._inside(target, None)
        if start is not None or end is not None:
            assert start is not None, "a file that comes from elsewhere is not modelled"
            assert end is not None, "a file that leaves is not modelled"
            self._before("rename", f"{start} -> {end}", b"")
        self._real[name](source, target, **options)
        if self.disk is not None and start is not None and end is not None:
            if self._known(start) is None:  # a child process made it: nobody saw it synced
                self.disk.create(start).content = Path(self._root, end).read_bytes()
            self.disk.rename(start, end)

    def _remove(self, name: str, path: Any, dir_fd: int | None) -> None:
        where = self._inside(path, dir_fd)
        if where is not None and os.path.lexists(f"{self._root}/{where}"):
            self._before("remove", where, b"")
        self._real[name](path, dir_fd=dir_fd)
        if where is not None and self.disk is not None and self._known(where) is not None:
            self.disk.remove(where)

    def _known(self, where: str) -> Any:
        assert self.disk is not None
        return self.disk.find(where)

    def _written(self, fd: int, at: int, data: bytes) -> None:
        node = self._nodes.get(fd)
        if node is not None:
            old = node.content.ljust(at, b"\0")
            node.content = old[:at] + data + old[at + len(data) :]

    def _inside(self, path: Any, dir_fd: int | None) -> str | None:
        """The path relative to the root; None: it is elsewhere."""
        if isinstance(path, int):
            return None
        text = os.fsdecode(path)
        if dir_fd is not None:
            text = f"{Path(f'/proc/self/fd/{dir_fd}').readlink()}/{text}"
        text = os.path.abspath(text)  # noqa: PTH100 (a link is to stay one)
        if text == self._root:
            return ""
        return text[len(self._root) + 1 :] if text.startswith(f"{self._root}/") else None


PATCHED = (
    *("open", "close", "write", "pwrite", "ftruncate", "fchmod", "fsync", "fdatasync"),
    *("replace", "rename", "unlink", "remove", "rmdir", "mkdir"),
)


def survives(
    folder: Path,
    prepare: Act,
    act: Act,
    judge: Act,
    *,
    done: Act | None = None,
    kinds: Sequence[str] = ("kill", "power", "error"),
) -> Counts:
    """`prepare`, then `act` under every fault, each time on a fresh copy; `judge` after each.

    Acts and judges get the folder. An act may raise StoreError under an error, nothing else.
    `done` judges before `judge` does, where the power is cut after the act has returned: what it
    promised must be there. `folder` serves where there is no memory for all this.
    Returns how many points there were of each kind.
    """
    with in_memory(folder) as place:
        template = place / "template"
        template.mkdir(mode=0o700)
        prepare(template)
        tries: dict[str, Callable[[], int]] = {
            "kill": lambda: _kill(place, template, act, judge),
            "power": lambda: _power(place, template, act, judge, done),
            "error": lambda: _error(place, template, act, judge),
        }
        return {kind: tries[kind]() for kind in kinds}


@contextmanager
def in_memory(folder: Path) -> Iterator[Path]:
    """A folder in memory, where nobody waits for a disk; `folder` where there is no such place."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield folder
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="edge-agent-") as place:
        yield Path(place)


def _kill(folder: Path, template: Path, act: Act, judge: Act) -> int:
    point = 0
    while True:
        root = _copy(template, folder / "kill")
        status = _killed_at(point, root, act)
        if status == 0:
            return point
        assert os.WIFSIGNALED(status), f"the act failed by itself at point {point}: {status}"
        with _told(f"killed at point {point}"):
            judge(root)
        shutil.rmtree(root)
        point += 1


def _killed_at(point: int, root: Path, act: Act) -> int:
    """The status of a process that was killed there, or that ended by itself."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            left = [point]
            shim_free = (os.open, os.write)

            def before(name: str, where: str, data: bytes) -> None:
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                if name == "write":  # twice: before it and in its middle
                    left[0] -= 1
                    if left[0] == 0:
                        _write_half(root / where, data, *shim_free)
                        os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1

            with Shim(root, before).installed():
                act(root)
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def _write_half(path: Path, data: bytes, open: Any, write: Any) -> None:
    """Half of what would have been written, at the end of the file."""
    write(open(path, os.O_WRONLY | os.O_APPEND), data[: len(data) // 2])


def _power(folder: Path, template: Path, act: Act, judge: Act, done: Act | None) -> int:
    root = _copy(template, folder / "recorded")
    chance = random.Random(1)  # the same states each time
    found: dict[int, tuple[str, bool, Contents]] = {}

    def look(told: str, at_end: bool = False) -> None:
        assert shim.disk is not None
        for state in shim.disk.states(chance):
            found.setdefault(hash((at_end, *state.items())), (told, at_end, state))

    # The state before each operation is that after the one before it.
    shim = Shim(root, lambda name, where, _: look(f"power lost before: {name} {where}"))
    shim.disk = Disk(snapshot(root))
    with shim.installed():
        act(root)
    look("power lost when all was done", at_end=True)
    shutil.rmtree(root)
    for number, (told, at_end, state) in enumerate(found.values()):
        place = folder / "power"
        lay_out(state, place)
        with _told(f"{told}; state {number}: {_brief(state)}"):
            if at_end and done is not None:
                done(place)
            judge(place)
        shutil.rmtree(place)
    return len(found)


def _error(folder: Path, template: Path, act: Act, judge: Act) -> int:
    point = 0
    while True:
        root = _copy(template, folder / "error")
        left = [point]
        number = _ERRORS[point % len(_ERRORS)]

        def before(
            _name: str, where: str, _data: bytes, left: list[int] = left, number: int = number
        ) -> None:
            left[0] -= 1
            if left[0] == -1:
                raise OSError(number, os.strerror(number), where)

        with _told(f"operation {point} failed"):
            try:
                with Shim(root, before).installed():
                    act(root)
            except StoreError:
                pass
            if left[0] >= 0:
                return point
            judge(root)
        shutil.rmtree(root)
        point += 1


def _copy(template: Path, root: Path) -> Path:
    shutil.copytree(template, root)
    return root


def _brief(state: Contents) -> str:
    return ", ".join(
        path if content is None else f"{path} ({len(content)})" for path, content in state.items()
    )


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Let a failure say where it happened."""
    try:
        yield
    except BaseException as error:
        error.add_note(what)
        raise
