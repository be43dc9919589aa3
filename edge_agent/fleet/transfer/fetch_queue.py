"""Several blobs, fetched one after the other: what a node takes from the network is bounded.

One that must pause lets the next one try.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edge_agent.errors import StoreError
from edge_agent.fleet.transfer.fetch import Fetch, FetchContext
from edge_agent.fleet_protocol.deployment import Blob
from edge_agent.store.digest import Digest

if TYPE_CHECKING:
    from edge_agent.fleet_protocol.reported_state import FetchState


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


def empty(folder: Path) -> None:
    """Remove a folder of a transfer with the files in it, as far as that goes. StoreError never."""
    try:
        for path in folder.iterdir():
            path.unlink(missing_ok=True)
        folder.rmdir()
    except (OSError, StoreError):
        pass  # the next start tries again
