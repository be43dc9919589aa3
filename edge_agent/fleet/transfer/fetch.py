"""One blob, from the first of its sources that really has it.

    a source -> the blob, checked
             -> broken off: the same source again, if it brought something; else the next
             -> another blob: the next source; after three times this one is left for a day
    no source is left -> a pause, longer each time -> the first source
    the disk -> a pause

What came stays on the disk through all this, and through the end of the process.
"""

import logging
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from edge_agent.errors import EdgeAgentError, StoreError, TransferError, WrongBlobError
from edge_agent.fleet.transfer.parts import BrokerPort, OverMqtt, part_prefix
from edge_agent.fleet.transfer.web import BlockingAttempt, Handle, TransferThread
from edge_agent.fleet_protocol.deployment import Blob
from edge_agent.pacing import backoff_s
from edge_agent.store import files
from edge_agent.store.digest import Digest, sha256_hex

log = logging.getLogger(__name__)

MQTT, HTTPS, OCI = "mqtt", "https://", "oci://"
# One source in one round, if each try brings it further.
TRIES = 5
RETRY_S = 2.0
# A source that gave another blob so often is left alone for so long, and then has one try
# each time: it costs a whole blob's bytes.
WRONG_LIMIT = 3
WRONG_PAUSE_S = 86_400.0
# Between two rounds through all sources; doubled each time, less by chance, so that a fleet
# does not come back all at once.
PAUSE_MIN_S, PAUSE_MAX_S = 10.0, 3600.0
_TOLD_MAX = 16


class FetchContext(NamedTuple):
    """The services that fetching uses."""

    broker: BrokerPort
    part_topic: Callable[[Digest, int], str]  # of a blob and a part's number
    thread: TransferThread
    wake: Callable[[], None]  # any thread: `step` has something to do
    auth_file: Path | None = None  # logins for registries


class Attempt(Protocol):
    """One try at one source."""

    @property
    def due(self) -> float:
        """When to call `step`, if nothing else happens."""

    @property
    def progress(self) -> float:
        """0 to 1."""

    def step(self, now: float) -> Path | None:
        """The checked blob once it is here. TransferError, StoreError."""

    def take(self, number: int, data: bytes, now: float) -> None:
        """A part came over MQTT."""

    def close(self) -> None:
        """Leave the source."""


class Fetch:
    """A blob on its way. One thread; times are monotonic seconds."""

    def __init__(
        self, blob: Blob, sources: tuple[str, ...], folder: Path, context: FetchContext, now: float
    ) -> None:
        """`folder` is for this blob alone; `sources` are those allowed here, in order."""
        self.blob = blob
        self.last_error = ""
        self.rounds = 0  # through all its sources in vain, since the network was there
        self._sources = sources
        self._folder = folder
        self._context = context
        self._wrong = [0] * len(sources)
        self._wrong_at = [-math.inf] * len(sources)
        self._at = 0  # the source that is tried or comes next
        self._tries = 0
        self._pauses = 0
        self._paused_at = -math.inf
        self._attempt: Attempt | None = None
        self._progress = 0.0
        self._best = 0.0  # the most that this source brought in this round
        self._due = now if sources else math.inf
        self._told: set[str] = set()

    @property
    def source(self) -> str:
        """The one tried now, or nothing between two tries."""
        return self._sources[self._at] if self._attempt else ""

    @property
    def progress(self) -> float:
        """How much is here, 0 to 1, as far as the last source knew."""
        return self._attempt.progress if self._attempt else self._progress

    @property
    def due(self) -> float:
        """When to call `step`, if nothing else happens."""
        return self._attempt.due if self._attempt else self._due

    @property
    def busy(self) -> bool:
        """A source is being tried."""
        return self._attempt is not None

    def step(self, now: float) -> Path | None:
        """Go on; the checked blob once it is here, in a file of `folder`."""
        try:
            if self._attempt is None:
                if now < self._due:
                    return None
                self._attempt = self._begin(now)
            return self._attempt.step(now)
        except EdgeAgentError as error:
            self._failed(error, now)
            return None

    def take(self, number: int, data: bytes, now: float) -> None:
        """A part came over MQTT; call `step` afterwards."""
        if self._attempt is not None:
            try:
                self._attempt.take(number, data, now)
            except EdgeAgentError as error:
                self._failed(error, now)

    def end_pause(self, now: float) -> None:
        """The network is back: end a pause between two rounds, if it is not the shortest."""
        self.rounds = 0
        if self._attempt is None and self._due != math.inf:
            # A broker that reconnects each second does not have the sources asked each second.
            soon = max(now, self._paused_at + PAUSE_MIN_S)
            self._pauses, self._due = 0, min(self._due, soon)

    def close(self) -> None:
        """Leave the source; what came stays on the disk."""
        if self._attempt is not None:
            self._progress = self._attempt.progress
            self._attempt.close()
            self._attempt = None

    def _begin(self, now: float) -> Attempt:
        files.make_folder(self._folder)
        source = self._sources[self._at]
        self._make_room(source)
        if source == MQTT:
            topic = partial(self._context.part_topic, self.blob.digest)
            return OverMqtt(self.blob, self._folder, topic, self._context.broker, now)
        return BlockingAttempt(
            self.blob,
            lambda handle: self._fetch(source, handle),
            self._context.thread,
            self._context.wake,
            now,
        )

    def _make_room(self, source: str) -> None:
        """StoreError unless the blob from `source` fits. What came of other sources goes for it."""
        # The module, which is moved to its place in the end, and what it is made of.
        needed = self.blob.size
        if source == MQTT:
            needed += self.blob.parts * self.blob.part_size
        begin = part_prefix(self.blob) if source == MQTT else self._partial(source).name
        here = _sizes(self._folder)
        others = [path for path in here if not path.name.startswith(begin)]
        needed -= sum(size for path, size in here.items() if path not in others)
        try:
            files.require_space(self._folder, max(0, needed))
        except StoreError:
            if not others:
                raise
            for path in others:
                files.remove(path)
            files.require_space(self._folder, max(0, needed))

    def _partial(self, source: str) -> Path:
        # Only one source's own bytes are continued: else one could spoil what another gives.
        return self._folder / f"from-{sha256_hex(source.encode())[:16]}"

    def _fetch(self, source: str, handle: Handle) -> Path:
        """Runs on the transfer thread."""
        path = self._partial(source)
        if source.startswith(OCI):
            from edge_agent.fleet.transfer.download import oci

            return oci(source, self.blob, path, handle, self._context.auth_file)
        from edge_agent.fleet.transfer.download import https

        return https(source, self.blob, path, handle)

    def _failed(self, error: EdgeAgentError, now: float) -> None:
        source = self._sources[self._at]
        self._tell(f"{source}: {error}" if isinstance(error, TransferError) else str(error))
        self.close()
        if isinstance(error, StoreError):
            self._pause(now)
            return
        moved = self._progress > self._best
        if isinstance(error, WrongBlobError):
            self._wrong[self._at] += 1
            self._wrong_at[self._at] = now
        elif moved:
            self._pauses = 0
            self._tries += 1
            self._best = self._progress
            if self._tries < TRIES:
                self._due = now + RETRY_S
                return
        self._next(now)

    def _next(self, now: float) -> None:
        """The next source that may be asked, at once in this round or after a pause."""
        for at in range(self._at + 1, len(self._sources)):
            if self._may_ask(at, now):
                self._begin_with(at, now)
                return
        self._pause(now)

    def _pause(self, now: float) -> None:
        self.rounds += 1
        left = [at for at in range(len(self._sources)) if self._may_ask(at, now)]
        if not left:
            first = min(range(len(self._sources)), key=self._wrong_at.__getitem__)
            self._tell(f"{self.last_error}; left alone for a day, or until a deployment or `sync`")
            self._begin_with(first, self._wrong_at[first] + WRONG_PAUSE_S)
            self._paused_at = self._due  # `end_pause` leaves this
            return
        self._pauses += 1
        self._paused_at = now
        self._begin_with(left[0], now + backoff_s(self._pauses, PAUSE_MIN_S, PAUSE_MAX_S))

    def _may_ask(self, at: int, now: float) -> bool:
        return self._wrong[at] < WRONG_LIMIT or now >= self._wrong_at[at] + WRONG_PAUSE_S

    def _begin_with(self, at: int, due: float) -> None:
        self._at, self._due = at, due
        self._tries, self._best = 0, 0.0

    def _tell(self, problem: str) -> None:
        self.last_error = problem
        if problem not in self._told and len(self._told) < _TOLD_MAX:
            self._told.add(problem)
            log.warning("fetching %s: %s", self.blob.digest, problem)


def _sizes(folder: Path) -> dict[Path, int]:
    """Sizes of the files that earlier transfers left there, in bytes."""
    try:
        return {path: path.lstat().st_size for path in folder.iterdir()}
    except OSError as error:
        raise files.failure("list", folder, error) from error
