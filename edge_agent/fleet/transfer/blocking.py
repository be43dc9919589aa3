"""Fetching from a source that blocks: one thread for all such transfers, one try at one source."""

import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from edge_agent import threads
from edge_agent.errors import EdgeAgentError, StoreError, TransferError
from edge_agent.fleet.transfer.web import Handle
from edge_agent.fleet_protocol.deployment import Blob

# TLS handshakes and name lookups fit; the default of 8 MB counts where memory is locked.
STACK_BYTES = 512 * 1024


class TransferThread:
    """Runs jobs one after the other. Jobs must not raise, and end soon once stopped."""

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


# For the whole of one try: what is slower is as good as away. 64 MiB may take 18 hours.
SETUP_S = 300.0
SLOWEST_BYTES_PER_S = 1024


class BlockingAttempt:
    """One try to get `blob` by `fetch`, which runs on the transfer thread."""

    def __init__(
        self,
        blob: Blob,
        fetch: Callable[[Handle], Path],
        thread: TransferThread,
        wake: Callable[[], None],
        now: float,
    ) -> None:
        """`wake` is called on the transfer thread when `step` has something to say."""
        self._blob = blob
        self._fetch = fetch
        self._wake = wake
        self._handle = Handle()
        self._result: Path | EdgeAgentError | None = None
        self.due = now + SETUP_S + blob.size / SLOWEST_BYTES_PER_S
        thread.run(self._run)

    @property
    def progress(self) -> float:
        """How much of the blob is here, 0 to 1."""
        return self._handle.received / max(1, self._blob.size)

    def step(self, now: float) -> Path | None:
        """The blob once it is here. TransferError, WrongBlobError, StoreError."""
        if isinstance(self._result, EdgeAgentError):
            raise self._result
        if self._result is None and now >= self.due:
            self.close()
            raise TransferError("it is too slow: given up")
        return self._result

    def take(self, number: int, data: bytes, now: float) -> None:
        """No part was asked for."""

    def close(self) -> None:
        """End it soon; what came stays on the disk."""
        self._handle.stop()

    def _run(self) -> None:
        try:
            self._handle.check()
            self._result = self._fetch(self._handle)
        except (TransferError, StoreError) as error:
            self._result = error
        except Exception as error:  # whatever a server can make the libraries do
            self._result = TransferError(f"unexpected: {error!r}"[:300])
        self._wake()
