"""Facts about runtimes without a connection: the files of containerd, and listening sockets.

The configuration of containerd is the main file and all that it imports. From its
cmd/containerd/server/config (LoadConfig, resolveImports, mergeConfig): the main file first, then
its `imports` in their order, then theirs; a later file overrides an earlier one. Lists are joined.
Of a section of a plugin containerd 2 overrides single keys, and 1.7 replaces the section by that
of the later file.

The kernel is asked for the file behind each listening Unix socket (sock_diag(7), UNIX_DIAG_VFS),
and no socket is connected to: /proc/net/unix has only the path under which it was bound, and a
process in another mount namespace may have bound another file of that name.
"""

import os
import re
import socket
import struct
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_agent.config.document import MAX_FILE_BYTES

MAX_FILES = 200  # ours: more drop-ins than this are not looked at, and that is said


@dataclass(frozen=True)
class ContainerdFiles:
    """The content of all files together; `replaced` as containerd 1.7 merges them."""

    version: int  # of the main file; 0: it says none, or there is no file
    disabled_plugins: frozenset[str]
    plugins: dict[str, object]  # as containerd 2 understands them
    replaced: dict[str, object]
    sources: dict[str, Path]  # plugin's name -> the last file that has a section of it


def read(root: Path, main: Path, *, required: bool = False) -> ContainerdFiles:
    """The files from `main` on, all below `root`.

    ValueError: containerd would not start with them, or they cannot be understood. OSError: one
    cannot be read. Without a main file all is as containerd's defaults, unless it is `required`.
    """
    version = 0
    disabled: set[str] = set()
    plugins: dict[str, object] = {}
    replaced: dict[str, object] = {}
    sources: dict[str, Path] = {}
    for path, values in _files(root, main, required=required):
        if path == main:
            said = values.get("version")
            version = said if isinstance(said, int) else 0
        words = values.get("disabled_plugins")
        if isinstance(words, list):
            disabled.update(each for each in words if isinstance(each, str))
        sections = values.get("plugins")
        if isinstance(sections, dict):
            _override(plugins, sections)
            replaced.update(sections)
            sources.update(dict.fromkeys(sections, path))
    return ContainerdFiles(version, frozenset(disabled), plugins, replaced, sources)


def _files(root: Path, main: Path, *, required: bool) -> Iterator[tuple[Path, dict[str, object]]]:
    pending = [main]
    seen: set[Path] = set()
    while pending:
        path = pending.pop(0)
        if path in seen:
            continue
        if len(seen) == MAX_FILES:
            raise ValueError(f"{main} imports more than {MAX_FILES} files; the rest was not read")
        seen.add(path)
        try:
            with below(root, path).open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            if path == main and not required:
                return
            raise ValueError(
                f"{path} is named and is not there: containerd would not start"
            ) from None
        if len(content) > MAX_FILE_BYTES:
            raise ValueError(f"{path} has more than {MAX_FILE_BYTES} bytes")
        try:
            values = tomllib.loads(content.decode())
        except ValueError as error:  # not UTF-8, or not TOML
            raise ValueError(f"{path}: {error}") from error
        yield path, values
        pending += _imports(root, path, values.get("imports"))


def _imports(root: Path, parent: Path, imports: object) -> Iterator[Path]:
    for word in imports if isinstance(imports, list) else ():
        if not isinstance(word, str):
            continue
        path = os.path.normpath(parent.parent / word)
        if "*" not in path:
            yield Path(path)
            continue
        # Go's patterns: a class is negated by ^, and two stars are one.
        pattern = re.sub(r"\*+", "*", str(Path(path).relative_to("/"))).replace("[^", "[!")
        for found in sorted(root.glob(pattern)):
            yield Path("/") / found.relative_to(root)


def _override(into: dict[str, object], later: dict[str, object]) -> None:
    for key, value in later.items():
        before = into.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            copy = dict(before)
            _override(copy, value)
            into[key] = copy
        else:
            into[key] = value


def below(root: Path, path: Path) -> Path:
    """An absolute path of the machine whose root is `root`."""
    return root / path.relative_to("/") if path.is_absolute() else root / path


def required(nri: Mapping[str, object]) -> frozenset[str]:
    """The plugins that containerd's section on NRI requires: names, or NN-name."""
    validator = nri.get("default_validator")
    if not isinstance(validator, Mapping) or validator.get("enable") is not True:
        return frozenset()
    names = validator.get("required_plugins")
    return frozenset(map(str, names)) if isinstance(names, list) else frozenset()


_SOCK_DIAG = 4  # NETLINK_SOCK_DIAG, linux/netlink.h
_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY, linux/sock_diag.h
_REQUEST_DUMP = 0x1 | 0x300  # NLM_F_REQUEST | NLM_F_DUMP
_ERROR, _DONE = 2, 3  # NLMSG_ERROR, NLMSG_DONE
_LISTEN = 10  # TCP_LISTEN
_SHOW_VFS, _VFS = 2, 1  # UDIAG_SHOW_VFS, UNIX_DIAG_VFS, linux/unix_diag.h
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_REQUEST = struct.Struct("=BBHIIIII")  # unix_diag_req
_SOCKET_BYTES = 16  # unix_diag_msg, before its attributes
_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type
_FILE = struct.Struct("=II")  # unix_diag_vfs: inode, device
_ANSWER_BYTES = 1 << 16
_WAIT_S = 2.0

LISTENING = 0x10000  # __SO_ACCEPTCON, in the flags of /proc/net/unix

FileKey = tuple[int, int]
"""The lower half of an inode's number, and its device as the kernel counts it."""


def file_key(status: os.stat_result) -> FileKey:
    """The key of a socket's file in the kernel's answer."""
    device = os.major(status.st_dev) << 20 | os.minor(status.st_dev)
    return status.st_ino & 0xFFFFFFFF, device


def listening_files() -> set[FileKey] | None:
    """The socket files with a listener in this network namespace. None: not known, since the
    kernel has no unix_diag or forbids netlink."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as asking:
            asking.settimeout(_WAIT_S)
            request = _REQUEST.pack(
                socket.AF_UNIX, 0, 0, 1 << _LISTEN, 0, _SHOW_VFS, 0xFFFFFFFF, 0xFFFFFFFF
            )
            size = _HEADER.size + len(request)
            asking.send(_HEADER.pack(size, _BY_FAMILY, _REQUEST_DUMP, 1, 0) + request)
            found: set[FileKey] = set()
            while True:
                files, done = _read(asking.recv(_ANSWER_BYTES))
                found |= files
                if done:
                    return found
    except (OSError, struct.error):
        return None


def _read(data: bytes) -> tuple[set[FileKey], bool]:
    """The files of one datagram, and whether it was the last. OSError: the kernel refuses."""
    found: set[FileKey] = set()
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        if kind == _DONE:
            return found, True
        if kind == _ERROR or length < _HEADER.size:
            raise OSError("the kernel does not tell")
        inside = at + _HEADER.size + _SOCKET_BYTES
        while inside + _ATTRIBUTE.size <= at + length:
            size, attribute = _ATTRIBUTE.unpack_from(data, inside)
            if attribute == _VFS:
                inode, device = _FILE.unpack_from(data, inside + _ATTRIBUTE.size)
                found.add((inode, device))
            inside += max(size + 3 & ~3, _ATTRIBUTE.size)
        at += length + 3 & ~3
    return found, False


def listening_paths(listing: Path = Path("/proc/net/unix")) -> set[Path]:
    """The paths of sockets with a listener, in any mount namespace."""
    found = set()
    try:
        lines = listing.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return set()
    for line in lines[1:]:
        fields = line.split(maxsplit=7)  # Num RefCount Protocol Flags Type St Inode Path
        if len(fields) == 8 and int(fields[3], 16) & LISTENING and fields[7].startswith("/"):
            found.add(Path(fields[7]).resolve())
    return found
