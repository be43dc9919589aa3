"""Threads with stacks of a chosen size, and one that does jobs in order.

A default stack reserves 8 MB of addresses, of which a 32-bit board has few, and what a deep
call has once touched stays.
"""

import logging
import queue
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

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
