"""The deployments that count on a node, and what they need: the one on its way and the active one.

Beside modules, documents offer machine code, which a node can do without: it compiles the module
itself. So machine code never keeps a deployment from running: what does not come in one round
through its sources is given up. Nothing here does I/O; `has` says what is on the disk.
"""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from edge_agent.config import UpdatesConfig
from edge_agent.fleet import plan
from edge_agent.fleet.plan import Node, Target
from edge_agent.fleet.transfer.fetch_queue import FetchRequest
from edge_agent.fleet_protocol.deployment import Deployment
from edge_agent.store.catalogue import Catalogue
from edge_agent.store.digest import Digest
from edge_agent.store.release import Release

log = logging.getLogger(__name__)

MAX_REASON_CHARS = 200  # why a node does without machine code, in reports
MAX_REPORTED = 16  # plugins whose machine code is reported


class AcceptedDeployments:
    """One thread."""

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
        """All that it needs is here, and the catalogue has switched to it."""
        if document is self.pending:
            log.info("generation %d is active", document.generation)
            self.active, self.pending = document, None

    def target(self, document: Deployment, catalogue: Catalogue) -> Target:
        """What the document means for this node."""
        node = self._node
        return plan.target(document, node.name, node.labels, catalogue, node.machine)

    def complete(self, document: Deployment, target: Target) -> bool:
        """Whether all that it waits for is here."""
        return self._has_modules(target) and not self._awaited(document, target)

    def with_code(self, target: Target) -> list[Release]:
        """What is to run, naming only machine code that is on the disk."""
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
            needed |= target.supplies.keys()
            if document is self.pending:
                needed |= target.codes.keys()
        return needed

    def lacking(self, catalogue: Catalogue) -> dict[Digest, FetchRequest]:
        """What the documents need and the disk lacks, from the sources that this node may use."""
        lacking: dict[Digest, FetchRequest] = {}
        for document in self.documents:
            target = self.target(document, catalogue)
            for digest, request in target.supplies.items():
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
        return is_code and not any(digest in target.supplies for target in targets)

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
        return all(map(self._has, target.supplies))

    def _awaited(self, document: Deployment, target: Target) -> Collection[Digest]:
        """The machine code that a new deployment waits for; what runs already was made by this
        node."""
        if document is not self.pending:
            return ()
        return [each for each in target.codes if each not in self._refused and not self._has(each)]
