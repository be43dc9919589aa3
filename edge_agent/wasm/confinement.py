"""What a compiler gives up before it looks at a module: docs/adr/0038. In its child only.

    another user and group    that no file and no other process belongs to
    a filter of system calls  nothing but memory, threads and what is open (wasm/syscalls)
    no new privileges         whatever it could start

What this kernel, container or user does not allow is named, and compiling goes on: a board that
cannot confine its compiler must not lose its plugins.
"""

import ctypes
import os
import struct
from collections.abc import Callable

from edge_agent.wasm.syscalls import SECCOMP, architecture, program

# Nobody's: beyond what systemd and Debian give to users and services (up to 65535), and below
# where containers' ids begin (100000, subuid(5)). Needs no entry in /etc/passwd.
COMPILER_ID = 74_747

_CAP_KILL, _CAP_SETGID, _CAP_SETUID = 5, 6, 7  # linux/capability.h
_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h
_SET_MODE_FILTER, _ALL_THREADS = 1, 1  # SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def confine(dies_with_parent: Callable[[], None]) -> list[str]:
    """Give up all of it, in all threads (engines have some); what could not be given up, for
    people.

    `dies_with_parent` is called once the user has changed, which makes the kernel forget that
    this process is to be killed when its parent ends (prctl(2), PR_SET_PDEATHSIG).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    lacking = []
    reason = _change_user()
    if reason:
        lacking.append(f"it runs as the agent's user ({reason})")
    dies_with_parent()
    reason = _filter(libc)
    if reason:
        lacking.append(f"its system calls are not filtered ({reason})")
    return lacking


def _change_user() -> str:
    """Why not, or ""."""
    capabilities = _capabilities()
    needed = {"CAP_SETUID": _CAP_SETUID, "CAP_SETGID": _CAP_SETGID, "CAP_KILL": _CAP_KILL}
    # Without the last the agent could not end a compiler that takes too long.
    missing = [name for name, bit in needed.items() if not capabilities >> bit & 1]
    if missing:
        return f"{', '.join(missing)} missing"
    try:
        os.setgroups([])
        os.setresgid(COMPILER_ID, COMPILER_ID, COMPILER_ID)
        os.setresuid(COMPILER_ID, COMPILER_ID, COMPILER_ID)
    except OSError as error:  # such as an id that this container does not map
        return os.strerror(error.errno or 0)
    return ""


def _capabilities() -> int:
    try:
        with open("/proc/self/status") as status:  # noqa: PTH123 - no pathlib in this process
            lines = status.read().splitlines()
        for line in lines:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    except (OSError, ValueError):
        pass  # no /proc: nothing is known to be allowed
    return 0


def _filter(libc: ctypes.CDLL) -> str:
    """Why not, or ""."""
    known = architecture(os.uname().machine, struct.calcsize("P"))
    if known is None:
        return f"none is known for {os.uname().machine}"
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return os.strerror(ctypes.get_errno())
    code = program(known, os.getpid())
    wanted = _Program(len(code) // 8, code)
    number = SECCOMP[known.column]
    if libc.syscall(number, _SET_MODE_FILTER, _ALL_THREADS, ctypes.byref(wanted)):
        return f"{os.strerror(ctypes.get_errno())}; a kernel without CONFIG_SECCOMP_FILTER?"
    return ""
