"""The deployments that count on a node, the releases that they give it, and those of them that can
run now. Without I/O: whether a blob is on the disk is asked.

The deployment on its way and the active one count (`AcceptedDeployments`). Beside modules,
documents offer machine code, which a node can do without: it compiles the module itself. So machine
code never keeps a deployment from running: what does not come in one round through its sources is
given up.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from edge_agent.config import Limits, UpdatesConfig
from edge_agent.config.model import Report
from edge_agent.config.units import format_size
from edge_agent.fleet.blobs import FetchRequest
from edge_agent.fleet_protocol.deployment import Blob, CodeOffer, Deployment, Offer, matches, wanted
from edge_agent.store.catalogue import Catalogue
from edge_agent.store.digest import Digest
from edge_agent.store.release import Code, Machine, PluginId, Probation, Release, misfit

log = logging.getLogger(__name__)


class Node(NamedTuple):
    """One node of a fleet."""

    name: str
    fleet: str
    labels: Mapping[str, str]
    limits: Limits = Limits()  # for what a plugin's entry leaves open
    report: Report = "all"
    machine: Machine | None = None  # that fleet's machine code must be made for; None: takes none


@dataclass(frozen=True)
class Plan:
    """The releases of the fleet's deployments that are to run here; other plugins of the fleet are
    stopped."""

    releases: tuple[Release, ...] = ()
    kept: frozenset[Digest] = frozenset()  # of all modules that may have to run again


class Target(NamedTuple):
    """The releases that a deployment gives this node, and the blobs that they need."""

    releases: tuple[Release, ...]
    modules: Mapping[Digest, FetchRequest]  # all that must be here before any of them runs
    codes: Mapping[Digest, FetchRequest] = {}  # machine code for this node, which it can do without
    misfits: Mapping[str, str] = {}  # by identity: why none of the code offered is for this node


def target(
    deployment: Deployment,
    node: str,
    labels: Mapping[str, str],
    catalogue: Catalogue,
    machine: Machine | None = None,
) -> Target:
    """For each plugin that is for this node: the first release chosen and not held against it.

    Where there is none, what runs already stays. `machine`: that code must be made for; None: no
    code is taken.
    """
    held = catalogue.rejected.keys() | catalogue.quarantined.keys()
    offers = wanted(deployment, node, labels, held)
    releases: list[Release] = []
    modules: dict[Digest, FetchRequest] = {}
    codes: dict[Digest, FetchRequest] = {}
    misfits: dict[str, str] = {}
    for entry in deployment.plugins:
        if offer := offers.get(entry.identity):
            release = offer.release
            _add(modules, offer.blob, offer.sources)
            if machine is not None and offer.codes:
                fitting, why = _made_for(offer, machine)
                if fitting is None:
                    misfits[release.identity] = why
                else:
                    release = replace(release, code=fitting.code)
                    _add(codes, fitting.blob, fitting.sources)
            releases.append(release)
        elif matches(entry, labels) and (kept := catalogue.plugins.get(entry.identity)):
            releases.append(kept.current)
    return Target(tuple(releases), modules, codes, misfits)


def _made_for(offer: Offer, machine: Machine) -> tuple[CodeOffer | None, str]:
    """The first code that is for the machine; or None, and why the nearest is not."""
    why = []
    for each in offer.codes:
        reason = misfit(each.code, machine, offer.release.metered)
        if not reason:
            return each, ""
        why.append((each.code.target == machine.target, reason))
    return None, max(why, key=lambda each: each[0])[1]


def usable(release: Release, catalogue: Catalogue, proven: bool) -> bool:
    """Whether the release may run on this node. A module that is `proven` under this name is not
    rejected for what it does under another."""
    if release.digest in catalogue.quarantined:
        return False
    return proven or not {release.digest, release.setup} & catalogue.rejected.keys()


def runnable(
    catalogue: Catalogue,
    has: Callable[[Digest], bool],
    path: Callable[[Digest], Path],
    terms: Probation,
    machine: Machine | None = None,
) -> Plan:
    """What of the catalogue can run: of each plugin the current release, or the one before.

    `terms` are those of a release on probation.

    `has` and `path` tell by digest whether a module is here and where. A plugin that served here
    and of which nothing can run any more is reported as unusable, since it may be that no container
    must be created without it. One whose first release was rejected never served: it is as if it
    had not been deployed. `machine` as in `target`: the engine may be another since.
    """
    releases = []
    for kept in catalogue.plugins.values():
        unusable = None
        for release in (kept.current, kept.previous):
            if release is None:
                continue
            on_probation = kept.probation and release is kept.current
            reason = _missing(release, catalogue, has)
            here = replace(release, path=path(release.digest), code=None)
            if not reason and usable(release, catalogue, not on_probation):
                code = _usable_code(release, machine, has)
                if code is not None:
                    code = replace(code, path=path(code.digest))
                on = terms if on_probation else None
                releases.append(replace(here, code=code, probation=on))
                break
            if reason and unusable is None:
                unusable = replace(here, unusable=reason)
        else:
            if unusable is not None:
                releases.append(unusable)
    return Plan(tuple(releases), catalogue.digests)


def _missing(release: Release, catalogue: Catalogue, has: Callable[[Digest], bool]) -> str:
    """Why a release cannot run, apart from its probation; empty: it can."""
    if release.digest in catalogue.quarantined:
        return catalogue.quarantined[release.digest] or "quarantined"
    return "" if has(release.digest) else "its module is not on this node's disk any more"


def _usable_code(
    release: Release, machine: Machine | None, has: Callable[[Digest], bool]
) -> Code | None:
    code = release.code
    if code is None or machine is None or misfit(code, machine, release.metered):
        return None
    return code if has(code.digest) else None


def allowed(request: FetchRequest, config: UpdatesConfig) -> FetchRequest:
    """The request with the sources that the configuration allows, or with the reason why none
    is."""
    blob = request.blob
    if blob.size > config.max_plugin_bytes:
        most = format_size(config.max_plugin_bytes)
        return FetchRequest(
            blob, (), f"has {blob.size} bytes; max_plugin in [updates] allows {most}"
        )
    sources = tuple(each for each in request.sources if each.partition(":")[0] in config.sources)
    return FetchRequest(blob, sources, "" if sources else "[updates] allows none of its sources")


def named(documents: Iterable[Deployment]) -> set[str]:
    """Digests and setups of all that the documents name, for whatever nodes."""
    return {
        key
        for document in documents
        for entry in document.plugins
        for offer in entry.offers
        for key in (offer.release.digest, offer.release.setup)
    }


def held_against(
    documents: Iterable[Deployment], catalogue: Catalogue, identity: PluginId
) -> set[Digest]:
    """Digests of the plugin `identity` that are rejected or quarantined here."""
    known = {
        offer.release.digest
        for document in documents
        for entry in document.plugins
        if entry.identity == identity
        for offer in entry.offers
    }
    if kept := catalogue.plugins.get(identity):
        known |= {each.digest for each in (kept.current, kept.previous) if each is not None}
    held = {key.partition("+")[0] for key in catalogue.rejected} | catalogue.quarantined.keys()
    return {digest for digest in known if digest in held}


def _add(modules: dict[Digest, FetchRequest], blob: Blob, sources: tuple[str, ...]) -> None:
    """Two plugins may run the same module, from different places."""
    before = modules.get(blob.digest)
    if before is None:
        modules[blob.digest] = FetchRequest(blob, sources)
        return
    # The way it is cut is that of the first that is on MQTT at all.
    blob = before.blob if before.blob.parts else blob
    sources = tuple(dict.fromkeys((*before.sources, *sources)))
    modules[blob.digest] = FetchRequest(blob, sources)


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
        return target(document, node.name, node.labels, catalogue, node.machine)

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
                    lacking[digest] = allowed(request, self._config)
            for digest in self._awaited(document, target):
                lacking.setdefault(digest, allowed(target.codes[digest], self._config))
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
