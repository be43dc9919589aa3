"""The deployments that count on a node, and the blobs that they need, on disk or still lacking.

The one on its way and the active one count. Beside modules, documents offer machine code, which a
node can do without: it compiles the module itself. So machine code never keeps a deployment from
running: what does not come in one round through its sources is given up. `Modules` has the disk;
the deployments decide without it.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from edge_agent.config import UpdatesConfig
from edge_agent.errors import StoreError
from edge_agent.fleet import plan
from edge_agent.fleet.plan import Node, Target
from edge_agent.fleet.transfer.fetch_queue import FetchRequest, empty
from edge_agent.fleet_protocol.deployment import Deployment
from edge_agent.store.catalogue import Catalogue
from edge_agent.store.digest import Digest
from edge_agent.store.layout import Layout
from edge_agent.store.release import Release

log = logging.getLogger(__name__)


class Modules:
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


MAX_REASON_CHARS = 200  # why a node does without machine code, in reports
MAX_REPORTED = 16  # plugins whose machine code is reported


class AcceptedDeployments:
    """The pending and the active deployment. Used by one thread."""

    def __init__(self, node: Node, config: UpdatesConfig, has: Callable[[Digest], bool]) -> None:
        """`has`: whether a good blob with this digest is on the disk."""
        self.pending: Deployment | None = None
        self.active: Deployment | None = None
        self._node = node
        self._config = config
        self._has = has
        self._refused: dict[Digest, str] = {}  # machine code that was tried in vain, and why

    @property
    def documents(self) -> list[Deployment]:
        """The one on its way and the one that runs, as far as there are."""
        return [each for each in (self.pending, self.active) if each is not None]

    def accept(self, document: Deployment) -> None:
        """A new deployment is on its way: all machine code is tried anew."""
        self.pending = document
        self._refused = {}

    def activate(self, document: Deployment) -> None:
        """The catalogue has switched to the document; all that it needs is on the disk."""
        if document is self.pending:
            log.info("generation %d is active", document.generation)
            self.active, self.pending = document, None

    def target(self, document: Deployment, catalogue: Catalogue) -> Target:
        """The releases that the document gives this node, and the blobs that they need."""
        node = self._node
        return plan.target(document, node.name, node.labels, catalogue, node.machine)

    def complete(self, document: Deployment, target: Target) -> bool:
        """Whether every blob that the document waits for is on the disk."""
        return self._has_modules(target) and not self._awaited(document, target)

    def with_code(self, target: Target) -> list[Release]:
        """The releases of the target; machine code that is not on the disk is left out."""
        return [
            each if each.code and self._has(each.code.digest) else replace(each, code=None)
            for each in target.releases
        ]

    # --- blobs

    def needed(self, catalogue: Catalogue) -> set[Digest]:
        """Digests of what runs, ran before, or is on its way."""
        needed = set(catalogue.digests | catalogue.codes)
        for document in self.documents:
            target = self.target(document, catalogue)
            needed |= target.modules.keys()
            if document is self.pending:
                needed |= target.codes.keys()
        return needed

    def lacking(self, catalogue: Catalogue) -> dict[Digest, FetchRequest]:
        """The blobs that the documents need and the disk lacks, with the sources that this node may
        use."""
        lacking: dict[Digest, FetchRequest] = {}
        for document in self.documents:
            target = self.target(document, catalogue)
            for digest, request in target.modules.items():
                if digest not in lacking and not self._has(digest):
                    lacking[digest] = plan.allowed(request, self._config)
            for digest in self._awaited(document, target):
                lacking.setdefault(digest, plan.allowed(target.codes[digest], self._config))
        return lacking

    def codes(self, catalogue: Catalogue) -> set[Digest]:
        """All machine code for this node that the documents offer."""
        return {code for each in self.documents for code in self.target(each, catalogue).codes}

    def only_code(self, digest: Digest, catalogue: Catalogue) -> bool:
        """Whether the blob is machine code, and not a module too, which is needed."""
        targets = [self.target(each, catalogue) for each in self.documents]
        is_code = any(digest in target.codes for target in targets)
        return is_code and not any(digest in target.modules for target in targets)

    def names(self, digest: Digest, catalogue: Catalogue) -> set[tuple[str, str]]:
        """(name, version) of the plugins that the module with this digest is."""
        return {
            (release.name, release.version)
            for document in self.documents
            for release in self.target(document, catalogue).releases
            if release.digest == digest
        }

    # --- machine code that is done without

    def refuse(self, digest: Digest, reason: str) -> None:
        """Do without this machine code; it is logged."""
        if digest not in self._refused:
            log.warning("machine code %s: %s; its module is compiled here", digest, reason)
            self._refused[digest] = reason

    def give_up(self, in_vain: Mapping[Digest, str], catalogue: Catalogue) -> bool:
        """Do without the machine code that no source gave, once there is nothing else to wait for.
        `in_vain`: what was tried in a whole round, and why it failed. True: some was given up."""
        if not in_vain or self.pending is None:
            return False
        target = self.target(self.pending, catalogue)
        if not self._has_modules(target):
            return False
        lacking = [each for each in self._awaited(self.pending, target) if each in in_vain]
        for digest in lacking:
            self.refuse(digest, in_vain[digest])
        return bool(lacking)

    def code_status(self, catalogue: Catalogue) -> dict[str, str]:
        """By plugin: "" where the fleet's machine code is here, or why the node does without."""
        if self._node.machine is None:
            return {}
        found: dict[str, str] = {}
        for document in self.documents:  # what the first says of a plugin counts
            found = {**self._code_status(self.target(document, catalogue)), **found}
        # Reasons first: the rest goes without saying.
        return dict(sorted(found.items(), key=lambda each: not each[1])[:MAX_REPORTED])

    def _code_status(self, target: Target) -> dict[str, str]:
        found = dict(target.misfits)
        for release in target.releases:
            if release.code is not None:
                digest = release.code.digest
                missing = self._refused.get(digest, "it is not here")
                found[release.identity] = "" if self._has(digest) else missing
        return {identity: reason[:MAX_REASON_CHARS] for identity, reason in found.items()}

    def _has_modules(self, target: Target) -> bool:
        return all(map(self._has, target.modules))

    def _awaited(self, document: Deployment, target: Target) -> Collection[Digest]:
        """The machine code that a new deployment waits for; what runs already was made by this
        node."""
        if document is not self.pending:
            return ()
        return [each for each in target.codes if each not in self._refused and not self._has(each)]
