"""What changed on a node between two looks, as lines for people. Pure."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from edge_agent.operator.overview import named
from edge_agent.operator.view import Node, Refusal, Running
from edge_agent.store.digest import short

Tone = Literal["good", "bad", "changed", "quiet"]
_STATUS: dict[str, Tone] = {"online": "good", "lost": "bad", "offline": "quiet"}


class News(NamedTuple):
    """One line about one node."""

    node: str
    text: str
    tone: Tone


class Snapshot(NamedTuple):
    """What is compared of a node."""

    status: str
    plugins: dict[str, tuple[str, str, str]]  # version, status, error by plugin and runtime
    rejected: dict[str, str]
    refused: dict[str, Refusal]
    unreadable: str = ""
    unproven: str = ""


NOTHING = Snapshot("", {}, {}, {})


def snapshot(node: Node) -> Snapshot:
    """A node as it is now."""
    identities = [each.identity for each in node.plugins]
    plugins = {
        # Which runtime is of interest where a node has several.
        (
            each.identity
            if identities.count(each.identity) == 1
            else f"{each.identity} at {each.runtime}"
        ): (_version(each), each.status, each.error)
        for each in node.plugins
    }
    return Snapshot(
        node.status, plugins, node.rejected, node.refused, node.unreadable, node.unproven
    )


def news(node: str, before: Snapshot, after: Snapshot, names: Mapping[str, str]) -> list[News]:
    """In the order: the node, its plugins, what it will not run."""
    found = []
    if after.status != before.status and after.status:
        found.append(News(node, f"is {after.status}", _STATUS.get(after.status, "changed")))
    if after.unreadable != before.unreadable and after.unreadable:
        found.append(News(node, f"says what cannot be read: {after.unreadable}", "bad"))
    if after.unproven != before.unproven and after.unproven:
        found.append(News(node, f"says what is not its own word: {after.unproven}", "bad"))
    for key, told in after.plugins.items():
        if before.plugins.get(key) != told:
            version, status, error = told
            text = f"{key} {version} {status}" + (f": {error}" if error else "")
            found.append(News(node, text, _tone(status)))
    for key in before.plugins.keys() - after.plugins.keys():
        found.append(News(node, f"{key} ended", "changed"))
    for digest, reason in after.rejected.items():
        if digest not in before.rejected:
            found.append(News(node, f"rejected {named(digest, names)}: {reason}", "bad"))
    for kind, refusal in after.refused.items():
        if before.refused.get(kind) != refusal:
            text = f"refuses the {kind} {refusal}"
            found.append(News(node, text, "bad"))
    return found


def _tone(status: str) -> Tone:
    if status == "running":
        return "good"
    return "bad" if status in ("failed", "quarantined") else "changed"


def _version(told: Running) -> str:
    return told.version or short(told.digest) or "-"
