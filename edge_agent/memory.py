"""The process's memory: measured, and kept small. Linux and glibc; elsewhere it does nothing."""

import ctypes
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

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


def import_later(name: str) -> None:
    """Let `import name` bind a module that is loaded when something of it is first used.

    For what a library imports and hardly ever uses. (importlib's own LazyLoader would load it
    at the import statement, which looks at `__spec__`.)
    """
    if name not in sys.modules:
        parent, _, last = name.rpartition(".")
        module = sys.modules[name] = _Later(name)
        if parent:
            setattr(importlib.import_module(parent), last, module)


class _Later(ModuleType):
    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # of those who look through all modules
            raise AttributeError(attribute)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), attribute)


def trim() -> None:
    """Give free heap back to the kernel. Takes some ms: not for the answering thread."""
    _libc("malloc_trim", 0)


def _libc(name: str, *arguments: int) -> None:
    try:
        getattr(ctypes.CDLL(None), name)(*arguments)
    except AttributeError:
        pass  # musl has neither
