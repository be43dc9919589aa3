"""What a node should run, and what of that it can: between documents and disk. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from edge_agent.config import PluginSettings, UpdatesConfig
from edge_agent.config.units import format_size
from edge_agent.fleet.transfer.queue import Wish
from edge_agent.fleet_protocol.deployment import Blob, CodeFile, Deployment, Release
from edge_agent.fleet_protocol.selection import Choice, matches, wanted
from edge_agent.store.catalogue import Catalogue, Running
from edge_agent.store.code import Code, Machine, misfit


@dataclass(frozen=True)
class Wanted:
    """One release to run."""

    identity: str  # NN-name
    name: str
    index: str
    version: str
    path: Path  # of the module, which is there and whose digest was right
    digest: str  # "sha256:HEX"
    size: int
    config: str
    settings: PluginSettings
    on_probation: bool
    code: "CodeHere | None" = None
    unusable: str = ""  # why it cannot run, although nothing else is there to run in its place


class CodeHere(NamedTuple):
    """A file of machine code for this node; whether it is still that is seen when it is loaded."""

    path: Path
    digest: str


@dataclass(frozen=True)
class Plan:
    """All that is to run here by the fleet's word; whatever else it once brought is to end."""

    releases: tuple[Wanted, ...] = ()
    kept: frozenset[str] = frozenset()  # "sha256:HEX" of all modules that may have to run again


class Supply(NamedTuple):
    """A blob, and where it is to be had, in the order to try."""

    blob: Blob
    sources: tuple[str, ...]


class Target(NamedTuple):
    """What a deployment means for this node."""

    running: tuple[Running, ...]
    supplies: Mapping[str, Supply]  # by digest: all that must be here before any of it runs
    codes: Mapping[str, Supply] = {}  # machine code for this node, which it can do without
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
    choices = wanted(deployment, node, labels, held)
    running: list[Running] = []
    supplies: dict[str, Supply] = {}
    codes: dict[str, Supply] = {}
    misfits: dict[str, str] = {}
    for entry in deployment.plugins:
        if choice := choices.get(entry.identity):
            release = _running(choice)
            _add(supplies, choice.release.blob, choice.release.sources)
            if machine is not None and choice.release.codes:
                file, why = _made_for(choice.release, machine, release.metered)
                if file is None:
                    misfits[release.identity] = why
                else:
                    release = release.by(file.code)
                    _add(codes, file.blob, file.sources)
            running.append(release)
        elif matches(entry, labels) and (kept := catalogue.plugins.get(entry.identity)):
            running.append(kept.current)
    return Target(tuple(running), supplies, codes, misfits)


def _made_for(release: Release, machine: Machine, metered: bool) -> tuple[CodeFile | None, str]:
    """The first code that is for the machine; or None, and why the nearest is not."""
    why = []
    for file in release.codes:
        reason = misfit(file.code, machine, metered)
        if not reason:
            return file, ""
        why.append((file.code.target == machine.target, reason))
    return None, max(why, key=lambda each: each[0])[1]


def usable(running: Running, catalogue: Catalogue, proven: bool) -> bool:
    """Nothing is held against it on this node. What is `proven` under its name is not rejected
    for what it does under another."""
    if running.digest in catalogue.quarantined:
        return False
    return proven or not {running.digest, running.setup} & catalogue.rejected.keys()


def runnable(
    catalogue: Catalogue,
    has: Callable[[str], bool],
    path: Callable[[str], Path],
    machine: Machine | None = None,
) -> Plan:
    """What of the catalogue can run: of each plugin the current release, or the one before.

    `has` and `path` tell by digest whether a module is here and where. A plugin that served here
    and of which nothing can run any more is told as unusable, since it may be that no container
    must be created without it. One whose first release was rejected never served: it is as if it
    had not been deployed. `machine` as in `target`: the engine may be another since.
    """
    releases = []
    for kept in catalogue.plugins.values():
        unusable = None
        for running in (kept.current, kept.previous):
            if running is None:
                continue
            on_probation = kept.probation and running is kept.current
            reason = _missing(running, catalogue, has)
            if not reason and usable(running, catalogue, not on_probation):
                wanted = _wanted(running, path(running.digest), on_probation)
                code = _usable_code(running, machine, has)
                found = CodeHere(path(code.digest), code.digest) if code is not None else None
                releases.append(replace(wanted, code=found))
                break
            if reason and unusable is None:
                unusable = replace(_wanted(running, path(running.digest), False), unusable=reason)
        else:
            if unusable is not None:
                releases.append(unusable)
    return Plan(tuple(releases), catalogue.digests)


def _missing(running: Running, catalogue: Catalogue, has: Callable[[str], bool]) -> str:
    """What keeps a release from running that has nothing to do with a probation."""
    if running.digest in catalogue.quarantined:
        return catalogue.quarantined[running.digest] or "quarantined"
    return "" if has(running.digest) else "its module is not on this node's disk any more"


def _usable_code(
    running: Running, machine: Machine | None, has: Callable[[str], bool]
) -> Code | None:
    code = running.code
    if code is None or machine is None or misfit(code, machine, running.metered):
        return None
    return code if has(code.digest) else None


def wish(supply: Supply, config: UpdatesConfig) -> Wish:
    """What of `supply` this node may use: sources of the kinds, and a size, that it allows."""
    blob = supply.blob
    if blob.size > config.max_plugin_bytes:
        most = format_size(config.max_plugin_bytes)
        return Wish(blob, (), f"has {blob.size} bytes; max_plugin in [updates] allows {most}")
    sources = tuple(each for each in supply.sources if each.partition(":")[0] in config.sources)
    return Wish(blob, sources, "" if sources else "[updates] allows none of its sources")


def named(documents: Iterable[Deployment]) -> set[str]:
    """Digests and setups of all that the documents name, for whatever nodes."""
    return {
        key
        for document in documents
        for entry in document.plugins
        for release in entry.releases
        for key in (release.blob.digest, Choice(entry, release).setup)
    }


def held_against(
    documents: Iterable[Deployment | None], catalogue: Catalogue, identity: str
) -> set[str]:
    """Digests of the plugin `identity` that are rejected or quarantined here."""
    known = {
        release.blob.digest
        for document in documents
        for entry in (document.plugins if document else ())
        if entry.identity == identity
        for release in entry.releases
    }
    if kept := catalogue.plugins.get(identity):
        known |= {each.digest for each in (kept.current, kept.previous) if each is not None}
    held = {key.partition("+")[0] for key in catalogue.rejected} | catalogue.quarantined.keys()
    return known & held


def _running(choice: Choice) -> Running:
    entry, release = choice
    return Running(
        name=entry.name,
        index=entry.index,
        version=release.version,
        digest=release.blob.digest,
        size=release.blob.size,
        config=choice.config,
        settings=choice.settings,
    )


def _add(supplies: dict[str, Supply], blob: Blob, sources: tuple[str, ...]) -> None:
    """Two plugins may run the same module, from different places."""
    before = supplies.get(blob.digest)
    if before is None:
        supplies[blob.digest] = Supply(blob, sources)
        return
    # The way it is cut is that of the first that is on MQTT at all.
    blob = before.blob if before.blob.parts else blob
    sources = tuple(dict.fromkeys((*before.sources, *sources)))
    supplies[blob.digest] = Supply(blob, sources)


def _wanted(running: Running, path: Path, on_probation: bool) -> Wanted:
    return Wanted(
        identity=running.identity,
        name=running.name,
        index=running.index,
        version=running.version,
        path=path,
        digest=running.digest,
        size=running.size,
        config=running.config,
        settings=running.settings,
        on_probation=on_probation,
    )
