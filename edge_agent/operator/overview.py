"""The fleet as people see it: releases and their nodes, failing nodes, news, and what expires soon.

Warnings about expiry name the command that renews, and are given from the last third of a validity
on. Pure, except for the certificate of the operator, which is a file.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from edge_agent.config import MqttConfig
from edge_agent.config.model import MONITOR
from edge_agent.config.units import Validity
from edge_agent.errors import ConfigError
from edge_agent.fleet_protocol.deployment import Deployment
from edge_agent.fleet_protocol.trust import TrustSet
from edge_agent.mqtt import certificate
from edge_agent.operator.node_state import Node, Refusal, Running
from edge_agent.operator.plan import targets
from edge_agent.operator.rollout import rollout_status
from edge_agent.operator.view import View
from edge_agent.store.digest import short

RENEW_TRUST = "edge-agent fleet trust renew"
# Of a checkout, in the folder with the fleet's authorities (configs/mosquitto/README.md).
RENEW_CERTIFICATE = "configs/mosquitto/certificate renew"


def of_deployment(deployment: Deployment | None, now: float) -> str:
    """The warning for a deployment, or ""."""
    if deployment is None:
        return ""
    validity = Validity(deployment.issued, deployment.expires)
    if validity.over(now):
        return "it has expired: nodes that are new or were reset take nothing; deploy again"
    told = validity.ending(now)
    return f"it {told}: deploy again" if told else ""


def of_trust(trust: TrustSet, now: float) -> str:
    """The warning for the trusted keys, or ""."""
    if trust.validity is None or not (told := trust.validity.ending(now)):
        return ""
    over = trust.validity.over(now)
    then = "nodes take no deployment before you renew it" if over else "renew it"
    return f"the set of trusted keys, version {trust.version}, {told}; {then}: {RENEW_TRUST}"


def of_certificate(name: str, validity: Validity | None, now: float) -> str:
    """The warning for a certificate, or ""; `name` is the name of its file."""
    told = validity.ending(now) if validity is not None else ""
    return f"{told}: {RENEW_CERTIFICATE} {name}" if told else ""


def of_operator(mqtt: MqttConfig, now: float) -> str:
    """The warning for the operator's own certificate, or ""."""
    if mqtt.cert_file is None:
        return ""
    told = of_certificate(mqtt.cert_file.stem, certificate_of(mqtt), now)
    return f"your certificate {mqtt.cert_file} {told}" if told else ""


def certificate_of(mqtt: MqttConfig) -> Validity | None:
    """The validity of the operator's certificate; None: it cannot be read."""
    try:
        return certificate.read(mqtt.cert_file) if mqtt.cert_file is not None else None
    except ConfigError:
        return None


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
        for offer in entry.offers:
            release = offer.release
            nodes = [
                view.nodes[name]
                for name, offers in wanted.items()
                if (chosen := offers.get(entry.identity))
                and chosen.release.version == release.version
            ]
            running, on_the_way = 0, dict[str, int]()
            for node in nodes:
                if node.runs(release.digest, release.version):
                    running += 1
                else:
                    word = node.progress_of(release.digest) if node.online else node.status
                    on_the_way[word or "unknown"] = on_the_way.get(word or "unknown", 0) + 1
            # Only shown: states without a signature count too.
            told = rollout_status(view, deployment, entry.name, release.version, strict=False)
            failed = len(told.failed)
            percent = offer.rollout.percent if offer.rollout else None
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
        if now and (told := of_certificate(node.name, node.certificate, now)):
            found.append(Trouble(node.name, f"its certificate {told}"))
        if node.trust_expired:
            told = f"trusts keys whose set expired: it takes no deployment; {RENEW_TRUST}"
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
        ): (_version(each), _status(each), each.error)
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


def _status(told: Running) -> str:
    return told.status + ", monitored" * (told.mode == MONITOR)


def _tone(status: str) -> Tone:
    if status.partition(",")[0] == "running":
        return "good"
    return "bad" if status in ("failed", "quarantined") else "changed"


def _version(told: Running) -> str:
    return told.version or short(told.digest) or "-"
