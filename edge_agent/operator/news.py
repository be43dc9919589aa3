"""What changed on a node between two looks, as lines for people. Pure."""

from typing import Literal, NamedTuple

from edge_agent.operator.view import Node, Refusal, Running

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


NOTHING = Snapshot("", {}, {}, {})


def snapshot(node: Node) -> Snapshot:
    """A node as it is now."""
    plugins = {
        each.key: (each.version or each.digest[:19], each.status, each.error)
        for each in node.plugins
    }
    return Snapshot(node.status, plugins, node.rejected, node.refused)


def news(node: str, before: Snapshot, after: Snapshot) -> list[News]:
    """In the order: the node, its plugins, what it will not run."""
    found = []
    if after.status != before.status and after.status:
        found.append(News(node, f"is {after.status}", _STATUS.get(after.status, "changed")))
    for key, told in after.plugins.items():
        if before.plugins.get(key) != told:
            version, status, error = told
            text = f"{key} {version} {status}" + (f": {error}" if error else "")
            found.append(News(node, text, _tone(status)))
    for key in before.plugins.keys() - after.plugins.keys():
        found.append(News(node, f"{key} ended", "changed"))
    for digest, reason in after.rejected.items():
        if digest not in before.rejected:
            short = digest.removeprefix("sha256:")[:12]
            found.append(News(node, f"rejected {short}: {reason}", "bad"))
    for kind, refusal in after.refused.items():
        if before.refused.get(kind) != refusal:
            text = f"refuses the {kind} ({refusal.reason}): {refusal.text}"
            found.append(News(node, text, "bad"))
    return found


def _tone(status: str) -> Tone:
    if status == "running":
        return "good"
    return "bad" if status in ("failed", "quarantined") else "changed"


def counts(nodes: list[Node]) -> dict[str, dict[tuple[str, str], int]]:
    """By plugin: how many nodes have which version in which status."""
    found: dict[str, dict[tuple[str, str], int]] = {}
    for node in nodes:
        for identity, told in {each.identity: each for each in node.plugins}.items():
            by_version = found.setdefault(identity, {})
            key = _version(told), told.status
            by_version[key] = by_version.get(key, 0) + 1
    return found


def _version(told: Running) -> str:
    return told.version or told.digest.removeprefix("sha256:")[:12] or "-"
