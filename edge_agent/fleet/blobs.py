"""A node's blobs: those on its disk, and those that are fetched, one after the other.

What a node takes from the network is bounded: a fetch that must pause lets the next one try.
`FetchQueue` has the network, `Modules` has the disk.
"""

import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edge_agent.errors import StoreError
from edge_agent.fleet.transfer.fetch import Fetch, FetchContext
from edge_agent.fleet_protocol.deployment import Blob
from edge_agent.store.digest import Digest
from edge_agent.store.layout import Layout

if TYPE_CHECKING:
    from edge_agent.fleet_protocol.reported_state import FetchState
log = logging.getLogger(__name__)


class FetchRequest(NamedTuple):
    """A blob and the sources to try; without any, `reason` says why."""

    blob: Blob
    sources: tuple[str, ...]
    reason: str = ""


class FetchQueue:
    """The fetches of one node. One thread; times are monotonic seconds."""

    def __init__(self, folder: Callable[[Digest], Path], context: FetchContext) -> None:
        """`folder` gives, by digest, the place for what comes of a blob."""
        self._folder = folder
        self._context = context
        self._fetches: dict[Digest, Fetch] = {}
        self._requests: dict[Digest, FetchRequest] = {}

    def want(self, requests: Mapping[Digest, FetchRequest], now: float) -> None:
        """These and no others, by digest; one that was wanted in the same way goes on."""
        for digest, fetch in list(self._fetches.items()):
            if requests.get(digest) != self._requests[digest]:
                fetch.close()
                del self._fetches[digest]
        self._requests = dict(requests)
        before, self._fetches = self._fetches, {}
        for digest, request in requests.items():
            self._fetches[digest] = before.get(digest) or self._start(request, now)

    def step(self, now: float) -> tuple[Digest, Path] | None:
        """Go on; a digest and the file with that blob, which is checked, once one is here.

        It stays wanted until `want` says otherwise.
        """
        for digest, fetch in self._turn(now):
            path = fetch.step(now)
            if path is not None:
                return digest, path
        return None

    def take(self, digest: Digest, number: int, data: bytes, now: float) -> None:
        """A part came over MQTT; one that was not asked for is dropped."""
        if digest in self._fetches:
            self._fetches[digest].take(number, data, now)

    def end_pauses(self, now: float) -> None:
        """The network is back: end the pauses."""
        for fetch in self._fetches.values():
            fetch.end_pause(now)

    def again(self, now: float, but: Collection[Digest] = ()) -> None:
        """Forget what is held against sources, and try all anew; of `but`, by digest, what is
        being tried goes on."""
        requests = self._requests
        going_on = [each for each in but if each in self._fetches and self._fetches[each].busy]
        self.want({digest: requests[digest] for digest in going_on}, now)
        self.want(requests, now)

    @property
    def due(self) -> float:
        """When to call `step`, if nothing else happens."""
        busy = [fetch.due for fetch in self._fetches.values() if fetch.busy]
        return min(busy or (fetch.due for fetch in self._fetches.values()), default=math.inf)

    def in_vain(self) -> dict[Digest, str]:
        """By digest: the trouble with what no source gave in a whole round, or none may give."""
        return {
            digest: each.last_error
            for digest, each in self._fetches.items()
            if each.rounds or not self._requests[digest].sources
        }

    def status(self) -> "list[FetchState]":
        """For reports: each blob with its progress and its latest trouble."""
        return [
            {
                "digest": digest,
                "progress": round(fetch.progress, 3),
                "source": fetch.source,
                "trouble": fetch.last_error,
            }
            for digest, fetch in self._fetches.items()
        ]

    def _turn(self, now: float) -> Iterator[tuple[Digest, Fetch]]:
        """The fetch that is under way; after it, or without one, those whose time has come."""
        for digest, fetch in self._fetches.items():
            if fetch.busy:
                yield digest, fetch
        for digest, fetch in self._fetches.items():
            if any(each.busy for each in self._fetches.values()):
                return
            if fetch.due <= now:
                yield digest, fetch

    def _start(self, request: FetchRequest, now: float) -> Fetch:
        folder = self._folder(request.blob.digest)
        fetch = Fetch(request.blob, request.sources, folder, self._context, now)
        fetch.last_error = request.reason
        return fetch


class Modules:
    """The modules and machine code on this node's disk. Waits for it."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._damaged: set[Digest] = set()  # on a disk that they cannot be removed from

    def has(self, digest: Digest) -> bool:
        """Whether a good blob with this digest is on the disk, as far as `check` has seen."""
        return digest not in self._damaged and self._layout.has(digest)

    def path(self, digest: Digest) -> Path:
        """The path of the blob, whether it is there or not."""
        return self._layout.blob(digest)

    def check(self, needed: Iterable[Digest], wanted: Collection[Digest]) -> StoreError | None:
        """Every blob against its digest; what is damaged is gone, or is not `has` any more. What
        came of modules that are not `wanted`, or are here by now, is gone too.

        The error of a disk that takes nothing; then only `needed` were compared.
        """
        problem = None
        try:
            damaged = self._layout.check()
            self._damaged = set()
        except StoreError as error:
            problem = error
            here = filter(self._layout.has, needed)
            damaged = [digest for digest in here if not self._layout.good(digest)]
            self._damaged = set(damaged)
        for digest in damaged:
            log.error("%s is damaged on the disk; it is fetched again if it is needed", digest)
        try:
            transfers = self._layout.transfers()
        except StoreError as error:  # no reason not to run what is here
            return problem or error
        for folder in transfers:
            named = next((each for each in wanted if each.hex == folder.name), None)
            if named is None or self.has(named):
                empty(folder)
        return problem

    def add(self, digest: Digest, path: Path, names: Collection[tuple[str, str]]) -> None:
        """Put a checked file in its place, as these names and versions. StoreError."""
        for name, version in sorted(names):
            stored = self._layout.add_module(name, version, path)
            if stored != digest:
                raise StoreError(f"{path}: was {digest} and is {stored} now; is the disk bad?")
            path = self._layout.blob(digest)
        self._damaged.discard(digest)
        empty(self._layout.incoming(digest))

    def add_code(self, digest: Digest, path: Path) -> None:
        """Put a checked file of machine code in its place. StoreError."""
        stored = self._layout.add_blob(path)
        if stored != digest:
            raise StoreError(f"{path}: was {digest} and is {stored} now; is the disk bad?")
        self._damaged.discard(digest)
        empty(self._layout.incoming(digest))

    def collect(self, needed: Collection[Digest]) -> None:
        """Remove all others. StoreError."""
        self._layout.collect(needed)


def empty(folder: Path) -> None:
    """Remove a folder of a transfer with the files in it, as far as that goes. StoreError never."""
    try:
        for path in folder.iterdir():
            path.unlink(missing_ok=True)
        folder.rmdir()
    except (OSError, StoreError):
        pass  # the next start tries again
