"""The process's memory: measured, and kept small. Linux and glibc; elsewhere it does nothing."""

import ctypes
from pathlib import Path

_M_ARENA_MAX = -8  # mallopt(3)


def figures() -> dict[str, int]:
    """Bytes: `rss`, `pss` and `private_dirty` of this process (proc(5), smaps_rollup)."""
    wanted = {"Rss:": "rss", "Pss:": "pss", "Private_Dirty:": "private_dirty"}
    found = {}
    try:
        with Path("/proc/self/smaps_rollup").open() as file:
            for line in file:
                name, *rest = line.split()
                if name in wanted:
                    found[wanted[name]] = int(rest[0]) * 1024
    except OSError:
        pass  # a kernel without it: the figures are absent
    return found


def keep_heap_small() -> None:
    """One heap for all threads: each of glibc's own keeps what its thread once needed. Before
    the first thread: later, glibc has made up its mind."""
    _libc("mallopt", _M_ARENA_MAX, 1)


def trim() -> None:
    """Give free heap back to the kernel. Takes some ms: not for the answering thread."""
    _libc("malloc_trim", 0)


def _libc(name: str, *arguments: int) -> None:
    try:
        getattr(ctypes.CDLL(None), name)(*arguments)
    except AttributeError:
        pass  # musl has neither
