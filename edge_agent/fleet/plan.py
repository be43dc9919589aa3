"""The releases that the documents give a node, and those of them that can run now. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from edge_agent.config import Limits, UpdatesConfig
from edge_agent.config.model import Report
from edge_agent.config.units import format_size
from edge_agent.fleet.transfer.fetch_queue import FetchRequest
from edge_agent.fleet_protocol.deployment import Blob, CodeOffer, Deployment, Offer, matches, wanted
from edge_agent.store.catalogue import Catalogue
from edge_agent.store.digest import Digest
from edge_agent.store.release import Code, Machine, PluginId, Probation, Release, misfit


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
