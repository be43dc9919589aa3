"""WASI preview 1 for plugins, the same for every engine.

A plugin has clocks, random bytes, yield, and stdout and stderr as its log. It has no
files, arguments, environment or network: those calls answer with the errno after which
a WASI libc and Go's runtime go on. https://github.com/WebAssembly/WASI (legacy/preview1)
"""

import os
import struct
import time
from collections.abc import Callable

from edge_agent.errors import GuestFault
from edge_agent.wasm.engine import Guest, GuestExit, HostFunction
from edge_agent.wasm.module import FuncType

MODULE = "wasi_snapshot_preview1"
SUCCESS, BADF, INVAL, NOSYS, NOTSUP, SPIPE, NOTCAPABLE = 0, 8, 28, 52, 58, 70, 76

MAX_WRITE_BYTES = 64 << 10  # ours: what one fd_write hands to the log; the rest is counted
_RANDOM_BYTES = 64 << 10  # at once: 0.2 ms in which no deadline is looked at
MAX_VECTORS = 1024  # IOV_MAX of Linux
MAX_SUBSCRIPTIONS = 64  # ours: Go waits for one, a libc for a handful
_FILETYPE_CHARACTER = 2
_RIGHT_FD_READ, _RIGHT_FD_WRITE = 1 << 1, 1 << 6
_CLOCKS = {0: time.time_ns, 1: time.monotonic_ns}
_EVENT_CLOCK = 0
_CLOCK_ABSOLUTE = 1

# Every function of preview 1; i is i32, I is i64. All but proc_exit answer an errno.
_SIGNATURES = {
    "args_get": "ii",
    "args_sizes_get": "ii",
    "environ_get": "ii",
    "environ_sizes_get": "ii",
    "clock_res_get": "ii",
    "clock_time_get": "iIi",
    "fd_advise": "iIIi",
    "fd_allocate": "iII",
    "fd_close": "i",
    "fd_datasync": "i",
    "fd_fdstat_get": "ii",
    "fd_fdstat_set_flags": "ii",
    "fd_fdstat_set_rights": "iII",
    "fd_filestat_get": "ii",
    "fd_filestat_set_size": "iI",
    "fd_filestat_set_times": "iIIi",
    "fd_pread": "iiiIi",
    "fd_prestat_get": "ii",
    "fd_prestat_dir_name": "iii",
    "fd_pwrite": "iiiIi",
    "fd_read": "iiii",
    "fd_readdir": "iiiIi",
    "fd_renumber": "ii",
    "fd_seek": "iIii",
    "fd_sync": "i",
    "fd_tell": "ii",
    "fd_write": "iiii",
    "path_create_directory": "iii",
    "path_filestat_get": "iiiii",
    "path_filestat_set_times": "iiiiIIi",
    "path_link": "iiiiiii",
    "path_open": "iiiiiIIii",
    "path_readlink": "iiiiii",
    "path_remove_directory": "iii",
    "path_rename": "iiiiii",
    "path_symlink": "iiiii",
    "path_unlink_file": "iii",
    "poll_oneoff": "iiii",
    "proc_exit": "i",
    "proc_raise": "i",
    "random_get": "ii",
    "sched_yield": "",
    "sock_accept": "iii",
    "sock_recv": "iiiiii",
    "sock_send": "iiiii",
    "sock_shutdown": "ii",
}


Output = Callable[[int, bytes, int], None]
"""Takes a descriptor (1 or 2), what was written to it, and how many more bytes were."""


def functions(output: Output) -> dict[tuple[str, str], HostFunction]:
    """The host functions of WASI preview 1."""
    wasi = _Wasi(output)
    table = dict(_REFUSED)
    for name in _SERVED:
        table[MODULE, name] = HostFunction(_TYPES[name], getattr(wasi, name))
    return table


def _refusal(name: str) -> Callable[..., int]:
    if name.startswith(("fd_", "sock_")):
        # The standard streams have no right to it; others were never opened.
        return lambda _guest, fd, *_: BADF if fd > 2 else NOTCAPABLE
    if name.startswith("path_"):  # of a folder that was never opened
        return lambda *_: BADF
    return lambda *_: NOSYS


class _Wasi:
    """The functions that do something; names are WASI's."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def args_sizes_get(self, guest: Guest, count: int, size: int) -> int:
        guest.write(count, bytes(4))
        guest.write(size, bytes(4))
        return SUCCESS

    def args_get(self, *_: object) -> int:
        return SUCCESS

    environ_sizes_get = args_sizes_get
    environ_get = args_get

    def clock_res_get(self, guest: Guest, clock: int, result: int) -> int:
        if clock not in _CLOCKS:
            return INVAL
        guest.write(result, struct.pack("<Q", 1))
        return SUCCESS

    def clock_time_get(self, guest: Guest, clock: int, _precision: int, result: int) -> int:
        if clock not in _CLOCKS:
            return INVAL
        guest.write(result, struct.pack("<Q", _CLOCKS[clock]()))
        return SUCCESS

    def random_get(self, guest: Guest, pointer: int, size: int) -> int:
        for at in range(0, size, _RANDOM_BYTES):
            if guest.seconds_left() <= 0:  # no deadline interrupts this
                raise GuestFault("timeout", f"random_get({size}) took longer than it may")
            guest.write(pointer + at, os.urandom(min(_RANDOM_BYTES, size - at)))
        return SUCCESS

    def sched_yield(self, _guest: Guest) -> int:
        return SUCCESS

    def proc_exit(self, _guest: Guest, code: int) -> None:
        raise GuestExit(code)

    def fd_write(self, guest: Guest, fd: int, vectors: int, count: int, written: int) -> int:
        if fd not in (1, 2):
            return BADF
        if count > MAX_VECTORS:
            return INVAL
        total, parts, room = 0, [], MAX_WRITE_BYTES
        for pointer, size in struct.iter_unpack("<II", guest.read(vectors, 8 * count)):
            part = guest.read(pointer, min(size, room))
            parts.append(part)
            room -= len(part)
            total += size
        self._output(fd, b"".join(parts), total - (MAX_WRITE_BYTES - room))
        guest.write(written, struct.pack("<I", min(total, 0xFFFFFFFF)))
        return SUCCESS

    def fd_read(self, guest: Guest, fd: int, _vectors: int, _count: int, got: int) -> int:
        if fd != 0:
            return BADF
        guest.write(got, bytes(4))  # end of file
        return SUCCESS

    def fd_fdstat_get(self, guest: Guest, fd: int, result: int) -> int:
        if fd > 2:
            return BADF
        rights = _RIGHT_FD_WRITE if fd else _RIGHT_FD_READ
        guest.write(result, struct.pack("<BxHxxxxQQ", _FILETYPE_CHARACTER, 0, rights, 0))
        return SUCCESS

    def fd_filestat_get(self, guest: Guest, fd: int, result: int) -> int:
        if fd > 2:
            return BADF
        guest.write(result, struct.pack("<QQB7xQQQQQ", 0, 0, _FILETYPE_CHARACTER, 1, 0, 0, 0, 0))
        return SUCCESS

    def fd_fdstat_set_flags(self, _guest: Guest, fd: int, _flags: int) -> int:
        return BADF if fd > 2 else SUCCESS

    def fd_close(self, _guest: Guest, fd: int) -> int:
        return BADF if fd > 2 else SUCCESS

    def fd_seek(self, _guest: Guest, fd: int, *_: int) -> int:
        return BADF if fd > 2 else SPIPE

    def fd_tell(self, _guest: Guest, fd: int, *_: int) -> int:
        return BADF if fd > 2 else SPIPE

    def poll_oneoff(
        self, guest: Guest, subscriptions: int, events: int, count: int, result: int
    ) -> int:
        """Sleep until the first clock is due, if the call has the time for it.

        Waiting for a descriptor is answered at once: none ever becomes ready.
        """
        if not 0 < count <= MAX_SUBSCRIPTIONS:
            return INVAL
        ready: list[bytes] = []
        clocks: list[tuple[float, bytes]] = []
        raw = guest.read(subscriptions, 48 * count)
        for userdata, kind, clock, timeout, flags in struct.iter_unpack("<QB7xI4xQ8xH6x", raw):
            if kind != _EVENT_CLOCK:
                ready.append(struct.pack("<QHB21x", userdata, NOTSUP, kind))
            elif clock not in _CLOCKS:
                ready.append(struct.pack("<QHB21x", userdata, INVAL, kind))
            else:
                due = timeout - _CLOCKS[clock]() if flags & _CLOCK_ABSOLUTE else timeout
                clocks.append((due / 1e9, struct.pack("<QHB21x", userdata, SUCCESS, kind)))
        if not ready:
            wait = min(seconds for seconds, _ in clocks)
            if wait > 0:
                # Nothing in the guest can run meanwhile: why let the runtime wait?
                if wait > (left := max(0.0, guest.seconds_left())):
                    raise GuestFault(
                        "timeout", f"it would sleep for {wait:.3g} s and has {left:.3g} s left"
                    )
                time.sleep(wait)
            ready = [event for seconds, event in clocks if seconds <= wait]
        guest.write(events, b"".join(ready))
        guest.write(result, struct.pack("<I", len(ready)))
        return SUCCESS


# Once for all guests: only what has an effect knows its guest's output.
_TYPES = {
    name: FuncType(
        tuple("i64" if letter == "I" else "i32" for letter in letters),
        () if name == "proc_exit" else ("i32",),
    )
    for name, letters in _SIGNATURES.items()
}
_SERVED = [name for name in _SIGNATURES if hasattr(_Wasi, name)]
_REFUSED = {
    (MODULE, name): HostFunction(_TYPES[name], _refusal(name))
    for name in _SIGNATURES.keys() - set(_SERVED)
}
