"""The modules on the disk, as the updater sees them: those that can be run, those that came."""

import logging
from collections.abc import Collection, Iterable
from pathlib import Path

from edge_agent.errors import StoreError
from edge_agent.fleet.transfer.fetch_queue import empty
from edge_agent.store.digest import Digest
from edge_agent.store.layout import Layout

log = logging.getLogger(__name__)


class Modules:
    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._damaged: set[Digest] = set()  # on a disk that they cannot be removed from

    def has(self, digest: Digest) -> bool:
        """Whether a good one is here, as far as `check` has seen."""
        return digest not in self._damaged and self._layout.has(digest)

    def path(self, digest: Digest) -> Path:
        """Where it is, or would be."""
        return self._layout.blob(digest)

    def check(self, needed: Iterable[Digest], wanted: Collection[Digest]) -> StoreError | None:
        """Every blob against its digest; what is damaged is gone, or is not `has` any more. What
        came of modules that are not `wanted`, or are here by now, is gone too.

        The error of a disk that takes nothing; then only `needed` were compared.
        """
        trouble = None
        try:
            damaged = self._layout.check()
            self._damaged = set()
        except StoreError as error:
            trouble = error
            here = filter(self._layout.has, needed)
            damaged = [digest for digest in here if not self._layout.good(digest)]
            self._damaged = set(damaged)
        for digest in damaged:
            log.error("%s is damaged on the disk; it is fetched again if it is needed", digest)
        try:
            transfers = self._layout.transfers()
        except StoreError as error:  # no reason not to run what is here
            return trouble or error
        for folder in transfers:
            named = next((each for each in wanted if each.hex == folder.name), None)
            if named is None or self.has(named):
                empty(folder)
        return trouble

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
