"""What another deployment would change on which nodes. Pure.

By the rules that the nodes use themselves (fleet/choice), on what they last said of themselves.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Literal, NamedTuple

from edge_agent.fleet.choice import Choice, matches, wanted
from edge_agent.fleet.deployment import Deployment
from edge_agent.operator.view import Node, View

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
    """Every difference between what a node has to run now and what it would have to."""
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
    return [each.identity for each in deployment.plugins if each.settings.permissions is None]


def targets(view: View, deployment: Deployment) -> dict[str, dict[str, Choice]]:
    """What each node has to run: by node, then by plugin."""
    return {
        node.name: wanted(deployment, node.name, node.labels, node.rejected)
        for node in view.sorted()
    }


def _of_node(node: Node, before: Deployment | None, after: Deployment) -> list[Change]:
    had = wanted(before, node.name, node.labels, node.rejected) if before else {}
    gets = wanted(after, node.name, node.labels, node.rejected)
    # Of a plugin that is for this node, but no release of it is: what runs stays (fleet/plan).
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


def _kind(old: Choice | None, new: Choice) -> Kind | None:
    if old is None:
        return "install"
    if old.release.blob.digest != new.release.blob.digest:
        return "replace"
    if (old.entry.config, old.entry.settings) != (new.entry.config, new.entry.settings):
        return "settings"
    return None


def _version(choice: Choice | None) -> str:
    return choice.release.version if choice else ""
