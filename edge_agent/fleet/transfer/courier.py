"""The one thread for transfers that block; there only while there is something to do."""

import threading
from collections import deque
from collections.abc import Callable

from edge_agent import threads

# TLS handshakes and name lookups fit; the default of 8 MB counts where memory is locked.
STACK_BYTES = 512 * 1024


class Courier:
    """Runs jobs one after the other. Jobs must not raise, and end soon once told to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: deque[Callable[[], None]] = deque()
        self._busy = False

    def run(self, job: Callable[[], None]) -> None:
        """Have `job` run on the thread; returns at once."""
        with self._lock:
            self._jobs.append(job)
            if self._busy:
                return
            self._busy = True
        try:
            threads.start(self._work, name="transfer", stack_bytes=STACK_BYTES)
        except RuntimeError:  # no thread to be had: the next job tries again
            with self._lock:
                self._busy = False

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._jobs:
                    self._busy = False
                    return
                job = self._jobs.popleft()
            job()
