"""Brings a deployment to the broker, and never over somebody else's without a word.

The broker has one retained document. Its generation is counted on; it is read again right before
and after publishing, because brokers know no compare-and-set.
"""

import tomllib
from typing import NamedTuple

from edge_agent.errors import LinkError, OperatorError, RefusedError
from edge_agent.fleet import deployment
from edge_agent.fleet.deployment import Deployment
from edge_agent.fleet.trust import TrustSet
from edge_agent.mqtt.topics import FleetTopics
from edge_agent.operator import signing
from edge_agent.operator.broker import BrokerClient, Subscription
from edge_agent.operator.folder import FleetFolder
from edge_agent.operator.view import View
from edge_agent.store.digest import sha256_hex

# After the broker's acknowledgement; its own copy of the message comes in the same stream.
ECHO_TIMEOUT_S = 30.0


class Current(NamedTuple):
    """What the broker keeps as the deployment."""

    raw: bytes | None
    deployment: Deployment | None  # None: nothing is there, or nothing that can be believed
    problem: str  # why it cannot be believed

    @property
    def generation(self) -> int:
        return self.deployment.generation if self.deployment else 0

    @property
    def sha256(self) -> str:
        return sha256_hex(self.deployment.payload) if self.deployment else ""


class Deployed(NamedTuple):
    """`deployed.toml`: what was deployed last from this folder, by whoever shares it."""

    generation: int
    sha256: str  # of the payload


def current(client: BrokerClient, topics: FleetTopics, trust: TrustSet) -> Current:
    """Read the broker's deployment; believed as far as trusted keys signed it."""
    raw = client.kept(topics.deployment)
    return believed(raw, trust)


def believed(raw: bytes | None, trust: TrustSet) -> Current:
    """The same for a message that is here. One good signature suffices to count on from it."""
    if raw is None:
        return Current(None, None, "")
    try:
        signed = signing.read(raw, trust.keys)
        if not signed.signers or signed.payload_type != deployment.PAYLOAD_TYPE:
            return Current(raw, None, "none of the keys in fleet.toml signed it")
        return Current(raw, deployment.parse(signed.payload, fleet=trust.fleet), "")
    except RefusedError as error:
        return Current(raw, None, f"{error} ({error.reason})")


def last_deployed(folder: FleetFolder) -> Deployed | None:
    """What `deployed.toml` says. OperatorError if it is damaged."""
    try:
        values = tomllib.loads(folder.deployed_file.read_text("utf-8"))
        return Deployed(int(values["generation"]), str(values["sha256"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OperatorError(
            f"{folder.deployed_file}: cannot be read: {error}; it is written by `deploy`, take it"
            " from git or remove it"
        ) from error


def note_deployed(folder: FleetFolder, deployed: Deployment, commit: str | None) -> None:
    """Write `deployed.toml`."""
    lines = [
        "# Written by `edge-agent fleet deploy`: what the broker has from this folder. Keep it",
        "# under git: it tells another operator's folder from one that is behind.",
        f"generation = {deployed.generation}",
        f'sha256 = "{sha256_hex(deployed.payload)}"',
    ]
    if commit is not None:
        lines.append(f'commit = "{commit}"')
    folder.write(folder.deployed_file, "\n".join(lines) + "\n")


def check_base(now: Current, last: Deployed | None, onto: int | None) -> None:
    """OperatorError unless the broker has what this folder deployed last, or `onto` names it."""
    if now.deployment is None or (onto is not None and onto == now.generation):
        return
    if onto is not None:
        raise OperatorError(f"the broker has generation {now.generation}, not {onto}; look again")
    if last is not None and last.sha256 == now.sha256:
        return
    mine = f"generation {last.generation}" if last else "nothing"
    raise OperatorError(
        f"the broker has generation {now.generation}, and this folder deployed {mine}: somebody"
        " else deployed since. Bring the folder up to date (git pull), or replace theirs knowingly"
        f" with --onto {now.generation}"
    )


def next_generation(now: Current, view: View, last: Deployed | None) -> int:
    """One above all that is known: a broker may have lost what nodes have accepted."""
    return 1 + max(
        now.generation,
        last.generation if last else 0,
        max((node.accepted for node in view.nodes.values()), default=0),
    )


def put(client: BrokerClient, topics: FleetTopics, raw: bytes, expected: bytes | None) -> None:
    """Publish the signed document in the place of `expected`. OperatorError if that changed.

    Two operators who publish at the same moment both learn of it.
    """
    with client.subscribed((topics.deployment,)) as subscription:
        kept = _first_retained(client, subscription)
        if kept != expected:
            raise OperatorError(
                "another operator deployed in this moment; nothing was published. Look at the new"
                " state with `edge-agent fleet plan` and deploy again"
            )
        client.publish(topics.deployment, raw, retain=True)
        others = _others_until(subscription, raw)
    if others or client.kept(topics.deployment) != raw:
        raise OperatorError(
            "another operator deployed in the same moment: nodes took one or the other document."
            " Agree with them what shall run, and deploy once more: the next generation settles it"
        )


def _first_retained(client: BrokerClient, subscription: Subscription) -> bytes | None:
    connection = client.connections
    message = subscription.take(0.4)
    if message is None and (client.trouble or client.connections != connection):
        raise LinkError(f"{client.url}: {client.trouble}; nothing was published")
    return message.payload if message and message.payload else None


def _others_until(subscription: Subscription, raw: bytes) -> int:
    """How many other documents come before our own does."""
    others = 0
    while (message := subscription.take(ECHO_TIMEOUT_S)) is not None:
        if message.payload == raw:
            return others
        others += not message.retained
    raise LinkError(
        "the broker acknowledged the deployment and does not keep it: may this operator write it"
        " (access list)?"
    )
