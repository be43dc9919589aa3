"""This process's memory and threads, and how it starts another interpreter.

Memory: Linux and glibc; elsewhere nothing is done. Threads: a default stack reserves 8 MB of
addresses, of which a 32-bit board has few, and what a deep call has once touched stays.
"""

import ctypes
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

log = logging.getLogger(__name__)


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
    """Use one heap for all threads: glibc's heap for a thread keeps what the thread once needed.
    To be called before the first thread is started, as glibc decides then."""
    _libc("mallopt", _M_ARENA_MAX, 1)


def trim() -> None:
    """Give free heap back to the kernel. Takes some ms: not for the answering thread."""
    _libc("malloc_trim", 0)


def _libc(name: str, *arguments: int) -> None:
    try:
        getattr(ctypes.CDLL(None), name)(*arguments)
    except AttributeError:
        pass  # musl has neither


_START = "import sys; sys.path[:] = sys.argv.pop(1).split('\\n'); "


def command(statement: str, *arguments: str) -> list[str]:
    """The words that run `statement` in a child, isolated from the environment (python -I -S).

    `arguments` are its sys.argv[1:]; this process's search path is its own.
    """
    path = "\n".join(_search_path())
    return [sys.executable, "-I", "-S", "-c", _START + statement, path, *arguments]


def _search_path() -> list[str]:
    """Where the child looks for modules: this package first, then as this process does."""
    package = Path(__file__).parents[1]
    return [str(package), *(entry for entry in sys.path if os.path.isabs(entry))]  # noqa: PTH117


@contextmanager
def child(
    words: Sequence[str], timeout_s: float, *, errors: bool = False
) -> "Iterator[subprocess.Popen[bytes]]":
    """A child whose output is read inside, and whose errors are, if wanted; ended afterwards.

    It and all that it started are killed after `timeout_s`, so a reader need not wait longer.
    Where it was killed, TimeoutError follows. OSError: it cannot be started.
    """
    import subprocess  # costs memory, and most nodes are never asked

    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if errors else subprocess.DEVNULL,
        start_new_session=True,  # so that it can be killed with all that it started
    )
    watch = threading.Timer(timeout_s, os.killpg, (process.pid, signal.SIGKILL))
    watch.start()
    try:
        yield process
    finally:
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        process.wait()
        watch.cancel()
    if process.returncode < 0:
        raise TimeoutError(f"ended by {signal.Signals(-process.returncode).name}")


# The size is the process's: between setting and starting, another start would take it.
_lock = threading.Lock()


def start(target: Callable[[], object], *, name: str, stack_bytes: int) -> threading.Thread:
    """A daemon thread, started. RuntimeError: there is none to be had."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    with _lock:
        before = threading.stack_size(stack_bytes)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
    return thread


class JobThread:
    """A daemon thread that does one job after the other."""

    def __init__(self, name: str, stack_bytes: int) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.put = self._jobs.put  # any thread; None ends this one
        self.thread = start(self._run, name=name, stack_bytes=stack_bytes)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:
                log.exception("a job of the thread %s failed; the next goes on", self.thread.name)
            del job  # or the last one, and all that it holds, would stay
