"""A blob from a source that blocks, fetched on the courier's thread."""

from collections.abc import Callable
from pathlib import Path

from edge_agent.errors import EdgeAgentError, StoreError, TransferError
from edge_agent.fleet.transfer.courier import Courier
from edge_agent.fleet.transfer.web import Handle
from edge_agent.fleet_protocol.deployment import Blob

# For the whole of one try: what is slower is as good as away. 64 MiB may take 18 hours.
SETUP_S = 300.0
SLOWEST_BYTES_PER_S = 1024


class Blocking:
    """One try to get `blob` by `fetch`, which runs on the courier's thread."""

    def __init__(
        self,
        blob: Blob,
        fetch: Callable[[Handle], Path],
        courier: Courier,
        wake: Callable[[], None],
        now: float,
    ) -> None:
        """`wake` is called on the courier's thread when `step` has something to say."""
        self._blob = blob
        self._fetch = fetch
        self._wake = wake
        self._handle = Handle()
        self._result: Path | EdgeAgentError | None = None
        self.due = now + SETUP_S + blob.size / SLOWEST_BYTES_PER_S
        courier.run(self._run)

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
