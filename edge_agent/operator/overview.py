"""What a person sees of a fleet: versions and their progress, problems, and changes. Pure."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from edge_agent.fleet_protocol.deployment import Deployment
from edge_agent.operator import expiry
from edge_agent.operator.node_state import Node, Refusal, Running
from edge_agent.operator.plan import targets
from edge_agent.operator.rollout import standing
from edge_agent.operator.view import View
from edge_agent.store.digest import short


class Row(NamedTuple):
    """One release: its nodes, and their progress."""

    identity: str
    version: str
    percent: int | None  # of a rollout; None: for all
    wanted: int
    running: int
    failed: int  # nodes on which it failed, and that run another release now
    on_the_way: dict[str, int]  # `fetching`, `starting`, `probation`, ...: nodes


class Trouble(NamedTuple):
    """A present problem of a node."""

    node: str
    text: str


def rows(view: View, deployment: Deployment | None) -> list[Row]:
    """Each release of the deployment that is, or was, for a node; the newest first."""
    if deployment is None:
        return []
    wanted = targets(view, deployment)
    found = []
    for entry in deployment.plugins:
        for release in entry.releases:
            nodes = [
                view.nodes[name]
                for name, choices in wanted.items()
                if (choice := choices.get(entry.identity)) and choice.release == release
            ]
            running, on_the_way = 0, dict[str, int]()
            for node in nodes:
                if node.runs(release.blob.digest, release.version):
                    running += 1
                else:
                    word = node.progress_of(release.blob.digest) if node.online else node.status
                    on_the_way[word or "unknown"] = on_the_way.get(word or "unknown", 0) + 1
            # Only shown: states without a signature count too.
            told = standing(view, deployment, entry.name, release.version, strict=False)
            failed = len(told.failed)
            percent = release.rollout.percent if release.rollout else None
            row = Row(
                *(entry.identity, release.version, percent, len(nodes), running),
                *(failed, on_the_way),
            )
            if row.wanted or row.failed or percent is not None:
                found.append(row)
    return found


def named(digest: str, names: Mapping[str, str]) -> str:
    """A digest or setup (store/catalogue) for people: its name, or its first digits."""
    digest, plus, _ = digest.partition("+")
    name = names.get(digest) or short(digest)
    return f"{name} as it was configured" if plus else name


def behind(node: Node, trust_version: int) -> bool:
    """Whether an online node does not follow the present set of trusted keys."""
    return node.online and 0 < node.trust_version < trust_version


def troubles(
    view: View, names: Mapping[str, str], trust_version: int = 0, now: float = 0.0
) -> list[Trouble]:
    """The problems of all nodes; `names` has digests as `NAME VERSION`.

    `trust_version` is of the keys in fleet.toml, `now` in seconds since 1970; 0: not looked at.
    """
    found = []
    for node in view.sorted():
        if node.status == "lost":
            found.append(
                Trouble(node.name, "lost: its connection ended without an offline message")
            )
        if node.status and not node.state:
            found.append(Trouble(node.name, "has a status and no state"))
        if node.unreadable:
            found.append(
                Trouble(node.name, f"sent a message that cannot be read: {node.unreadable}")
            )
        if node.unproven:
            found.append(Trouble(node.name, f"its state is not proven: {node.unproven}"))
        if behind(node, trust_version):
            told = f"trusts the keys of version {node.trust_version}, not of {trust_version}"
            found.append(Trouble(node.name, told))
        if now and (told := expiry.of_certificate(node.name, node.certificate, now)):
            found.append(Trouble(node.name, f"its certificate {told}"))
        if node.trust_expired:
            told = f"trusts keys whose set expired: it takes no deployment; {expiry.RENEW_TRUST}"
            found.append(Trouble(node.name, told))
        if node.expired:
            found.append(Trouble(node.name, f"runs generation {node.generation}, which expired"))
        for kind, refusal in node.refused.items():
            found.append(Trouble(node.name, f"refuses the {kind} {refusal}"))
        for each in node.plugins:
            if each.status in ("failed", "quarantined", "backoff"):
                told = f": {each.error}" if each.error else ""
                found.append(Trouble(node.name, f"{each.identity} {each.status}{told}"))
        for digest, reason in node.rejected.items():
            found.append(Trouble(node.name, f"rejected {named(digest, names)}: {reason}"))
        found += [
            Trouble(node.name, f"fetching: {each.trouble}")
            for each in node.fetching
            if each.trouble
        ]
    return found


# --- what changed on a node between two looks


Tone = Literal["good", "bad", "changed", "quiet"]
_STATUS: dict[str, Tone] = {"online": "good", "lost": "bad", "offline": "quiet"}


class News(NamedTuple):
    """One line about one node."""

    node: str
    text: str
    tone: Tone


class Snapshot(NamedTuple):
    """The facts of a node that are compared."""

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
        # The runtime is named if the plugin is at several.
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
    """Changes in this order: the node, its plugins, its rejections and refusals."""
    found = []
    if after.status != before.status and after.status:
        found.append(News(node, f"is {after.status}", _STATUS.get(after.status, "changed")))
    if after.unreadable != before.unreadable and after.unreadable:
        found.append(News(node, f"sent a message that cannot be read: {after.unreadable}", "bad"))
    if after.unproven != before.unproven and after.unproven:
        found.append(News(node, f"has a state that is not proven: {after.unproven}", "bad"))
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
