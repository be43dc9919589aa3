"""Which Unix sockets have a listener, without connecting to them.

The kernel is asked for the file behind each listening socket (sock_diag(7), UNIX_DIAG_VFS):
/proc/net/unix has only the path under which it was bound, and a process in another mount
namespace may have bound another file of that name.
"""

import os
import socket
import struct
from pathlib import Path

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
