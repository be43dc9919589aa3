"""The changes that a deployment would make on nodes. Pure.

Computed with the nodes' own rules (fleet_protocol/deployment) from their last states.
"""

import difflib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from typing import Literal, NamedTuple

from edge_agent.fleet_protocol.deployment import Deployment, Offer, chosen, matches, wanted
from edge_agent.operator.node_state import Node
from edge_agent.operator.rollout import Reach
from edge_agent.operator.view import View
from edge_agent.store.release import PluginId, Release

Kind = Literal["install", "replace", "settings", "remove"]


class Change(NamedTuple):
    """One plugin on one node. Versions are "" where there is none."""

    node: str
    identity: str
    kind: Kind
    before: str
    after: str
    online: bool


class Group(NamedTuple):
    """The same change on several nodes."""

    identity: str
    kind: Kind
    before: str
    after: str
    nodes: tuple[str, ...]
    offline: int


def changes(view: View, before: Deployment | None, after: Deployment) -> list[Change]:
    """Every difference between the present and the new plugins of each node."""
    return [each for node in view.sorted() for each in _of_node(node, before, after)]


def grouped(changes: Iterable[Change]) -> list[Group]:
    """By plugin and change, in the order of the plugins."""
    found: dict[tuple[str, Kind, str, str], list[Change]] = defaultdict(list)
    for each in changes:
        found[each.identity, each.kind, each.before, each.after].append(each)
    return [
        Group(*key, tuple(each.node for each in group), sum(not each.online for each in group))
        for key, group in sorted(found.items())
    ]


def unrestricted(deployment: Deployment) -> list[str]:
    """The plugins that may change everything in a container."""
    return [
        entry.identity
        for entry in deployment.plugins
        if any(each.release.settings.permissions is None for each in entry.offers)
    ]


def monitored(deployment: Deployment) -> list[str]:
    """The releases that change and refuse nothing, as "NN-name VERSION"."""
    return [
        f"{entry.identity} {each.release.version}"
        for entry in deployment.plugins
        for each in entry.offers
        if each.release.settings.monitored
    ]


def one_shot(deployment: Deployment) -> list[str]:
    """The releases with an instance for each event, as "NN-name VERSION"."""
    return [
        f"{entry.identity} {each.release.version}"
        for entry in deployment.plugins
        for each in entry.offers
        if each.release.settings.one_shot
    ]


class Step(NamedTuple):
    """A release with a rollout, and its present nodes."""

    name: str
    version: str
    reach: str  # in words
    nodes: tuple[str, ...]
    all: int  # number of nodes that the plugin is for


class Difference(NamedTuple):
    """The change of a plugin's configuration, as a unified diff."""

    identity: str
    nodes: int
    text: str


def steps(view: View, deployment: Deployment) -> list[Step]:
    """Each release with a rollout."""
    found = []
    for entry in deployment.plugins:
        nodes = [node for node in view.sorted() if matches(entry, node.labels)]
        for offer in entry.offers:
            if (rollout := offer.rollout) is None:
                continue
            names = tuple(node.name for node in nodes if chosen(rollout, node.name, node.labels))
            rings = ("+".join(map("=".join, ring.items())) for ring in rollout.rings)
            reach = Reach(rollout.percent, rollout.nodes, tuple(rings))
            found.append(Step(entry.name, offer.release.version, str(reach), names, len(nodes)))
    return found


def differences(view: View, before: Deployment | None, after: Deployment) -> list[Difference]:
    """For nodes that run the plugin now, and would run it with another configuration."""
    found: dict[tuple[str, str], int] = defaultdict(int)
    told: dict[tuple[str, str, str], str] = {}
    for node in view.sorted() if before else ():
        had = wanted(before, node.name, node.labels, node.rejected) if before else {}
        gets = wanted(after, node.name, node.labels, node.rejected)
        for identity in had.keys() & gets.keys():
            old, new = had[identity].release, gets[identity].release
            if (old.config, old.settings) == (new.config, new.settings):
                continue
            key = identity, old.version, new.version
            if key not in told:
                told[key] = _difference(old, new)
            found[identity, told[key]] += 1
    return [Difference(identity, count, text) for (identity, text), count in sorted(found.items())]


class CodeFor(NamedTuple):
    """Machine code that a deployment names, and the nodes that would run it."""

    name: str
    version: str
    target: str
    digest: str
    nodes: tuple[str, ...]


def codes(view: View, deployment: Deployment) -> list[CodeFor]:
    """All machine code of a deployment, with the nodes that would run it."""
    gets = targets(view, deployment)
    found = []
    for entry in deployment.plugins:
        for offer in entry.offers:
            version = offer.release.version
            for code in (each.code for each in offer.codes):
                nodes = tuple(
                    node.name
                    for node in view.sorted()
                    if node.takes_code
                    and (gotten := gets[node.name].get(entry.identity)) is not None
                    and gotten.release.version == version
                    and (*node.engine[:2], node.architecture)
                    == (code.engine, code.version, code.target)
                    and code.settings.startswith(node.engine[2])
                )
                row = CodeFor(entry.name, version, code.target, code.digest, nodes)
                found.append(row)
    return found


def refusing(view: View, deployment: Deployment) -> list[str]:
    """Nodes whose agent does not know this document's form, and refuses it (`kind`)."""
    return [node.name for node in view.sorted() if node.form < deployment.form]


def removed(changes: Iterable[Change], name: str) -> list[str]:
    """Nodes on which the plugin of this name ends."""
    return [
        each.node
        for each in changes
        if each.kind == "remove" and each.identity.partition("-")[2] == name
    ]


def targets(view: View, deployment: Deployment) -> dict[str, dict[PluginId, Offer]]:
    """The plugins that each node has to run: by node, then by plugin."""
    return {
        node.name: wanted(deployment, node.name, node.labels, node.rejected)
        for node in view.sorted()
    }


def _of_node(node: Node, before: Deployment | None, after: Deployment) -> list[Change]:
    had = wanted(before, node.name, node.labels, node.rejected) if before else {}
    gets = wanted(after, node.name, node.labels, node.rejected)
    # A node for which the plugin is, but none of its releases, keeps its release (fleet/plan).
    stays = {entry.identity for entry in after.plugins if matches(entry, node.labels)}
    found = []
    for identity in sorted(had.keys() | gets.keys()):
        old, new = had.get(identity), gets.get(identity)
        kind: Kind | None = "remove" if new is None else _kind(old, new)
        if kind is not None and (new is not None or identity not in stays):
            found.append(
                Change(node.name, identity, kind, _version(old), _version(new), node.online)
            )
    return found


def _kind(old: Offer | None, new: Offer) -> Kind | None:
    if old is None:
        return "install"
    before, after = old.release, new.release
    if before.digest != after.digest:
        return "replace"
    if (before.config, before.settings) != (after.config, after.settings):
        return "settings"
    return None


def _difference(old: Release, new: Release) -> str:
    """The differences in the configuration and, below, in the settings."""
    parts = []
    for before, after in (
        (old.config.splitlines(), new.config.splitlines()),
        (_settings(old), _settings(new)),
    ):
        names = (old.version, new.version)
        parts += list(difflib.unified_diff(before, after, *names, lineterm=""))
    return "\n".join(parts)


def _settings(release: Release) -> list[str]:
    values = asdict(release.settings)
    limits = values.pop("limits")
    return [f"{key} = {value}" for key, value in (values | limits).items()]


def _version(offer: Offer | None) -> str:
    return offer.release.version if offer else ""
