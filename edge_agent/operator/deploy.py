"""Publishes a deployment, and never replaces another operator's unnoticed.

The broker has one retained document. Its generation follows from signed documents and the folder
only: unsigned messages of nodes and the broker never raise it (docs/adr/0040). The document is read
again right before and after publishing, because brokers have no compare-and-set.
"""

import time
import tomllib
from typing import NamedTuple

from edge_agent import strictjson
from edge_agent.errors import LinkError, OperatorError, RefusedError
from edge_agent.fleet_protocol import deployment
from edge_agent.fleet_protocol.deployment import MAX_GENERATION_STEP, Deployment, message_name
from edge_agent.fleet_protocol.topics import FleetTopics
from edge_agent.fleet_protocol.trust import TrustSet
from edge_agent.operator.broker import QUIET_S, BrokerClient
from edge_agent.operator.folder import FleetFolder
from edge_agent.operator.keyring import Signed
from edge_agent.operator.node_state import Node
from edge_agent.operator.tool_client import Subscription, until
from edge_agent.operator.view import View
from edge_agent.store.digest import sha256_hex

# After the broker's acknowledgement; its own copy of the message comes in the same stream.
ECHO_TIMEOUT_S = 30.0


class Current(NamedTuple):
    """The deployment that the broker keeps."""

    raw: bytes | None
    deployment: Deployment | None  # None: there is none, or none that is valid
    problem: str  # why it is not valid

    @property
    def generation(self) -> int:
        return self.deployment.generation if self.deployment else 0

    @property
    def order(self) -> tuple[int, int]:
        """Epoch and generation."""
        return self.deployment.order if self.deployment else (0, 0)

    @property
    def message(self) -> str:
        """The name that a node's refusal of this document has (fleet_protocol/deployment)."""
        return "" if self.raw is None else message_name(self.raw)

    @property
    def sha256(self) -> str:
        return sha256_hex(self.deployment.payload) if self.deployment else ""


class Deployed(NamedTuple):
    """`deployed.toml`: the last deployment from this folder, by any operator who shares it."""

    generation: int
    sha256: str  # of the payload
    epoch: int = 0


class Numbers(NamedTuple):
    """The generations that the next document may have."""

    epoch: int
    base: int  # the highest generation of this epoch that a signed document has; 0: none
    next: int  # the following one; nodes accept up to `last`

    @property
    def last(self) -> int:
        return min(self.base + MAX_GENERATION_STEP, strictjson.MAX_INTEGER)


def believed(raw: bytes | None, trust: TrustSet, last: Deployed | None) -> Current:
    """A deployment with enough signatures of trusted keys, or of this folder (`last`).

    The latter is known by its digest, since its keys may have been rotated out meanwhile.
    """
    if raw is None:
        return Current(None, None, "")
    try:
        signed = Signed.read(raw, trust.keys)
        if signed.payload_type != deployment.PAYLOAD_TYPE:
            return Current(raw, None, f"it is of the type {signed.payload_type[:80]!r}")
        own = last is not None and sha256_hex(signed.payload) == last.sha256
        if not own and not signed.enough(trust.threshold):
            good = len(signed.signers)
            return Current(raw, None, f"{good} of {trust.threshold} trusted keys signed it")
        return Current(raw, deployment.parse(signed.payload, fleet=trust.fleet), "")
    except RefusedError as error:
        return Current(raw, None, f"{error} ({error.reason})")


def last_deployed(folder: FleetFolder) -> Deployed | None:
    """Read `deployed.toml`. OperatorError: the file is damaged."""
    try:
        values = tomllib.loads(folder.deployed_file.read_text("utf-8"))
        epoch = int(values.get("epoch", 0))
        return Deployed(int(values["generation"]), str(values["sha256"]), epoch)
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
    if deployed.epoch:
        lines.append(f"epoch = {deployed.epoch}")
    if commit is not None:
        lines.append(f'commit = "{commit}"')
    folder.write(folder.deployed_file, "\n".join(lines) + "\n")


def check_base(
    now: Current, last: Deployed | None, onto: int | None = None, first: bool = False
) -> None:
    """OperatorError unless the broker has this folder's last deployment, or `onto` the broker's."""
    check_first(now, last, first)
    if now.deployment is None or (onto is not None and onto == now.generation):
        return
    if onto is not None:
        raise OperatorError(f"the broker has generation {now.generation}, not {onto}; look again")
    if last is not None and last.sha256 == now.sha256:
        return
    if last is not None and (last.epoch, last.generation) > now.order:
        raise OperatorError(
            f"the broker has generation {now.generation}, older than generation {last.generation},"
            " which this folder deployed: has it lost its data, or is a member of its cluster"
            f" behind? To deploy above both of them: --onto {now.generation}"
        )
    mine = f"generation {last.generation}" if last else "nothing"
    raise OperatorError(
        f"the broker has generation {now.generation}, and this folder deployed {mine}: another"
        " operator deployed since. Bring the folder up to date (git pull), or replace that"
        f" deployment with --onto {now.generation}"
    )


def check_first(now: Current, last: Deployed | None, first: bool) -> None:
    """OperatorError if `first` does not match whether the broker has no deployment.

    An empty broker alone does not allow a first deployment: another broker, or one that lost its
    data, is empty too.
    """
    if now.raw is None and not first:
        before = f", and this folder deployed generation {last.generation}" if last else ""
        raise OperatorError(
            f"the broker has no deployment{before}: is it the right one, or has it lost its data?"
            " If this is the fleet's first deployment, give --first"
        )
    if now.deployment is not None and first:
        raise OperatorError("the broker has a deployment: this is not the first; leave out --first")


def numbers(now: Current, last: Deployed | None, epoch: int) -> Numbers:
    """The numbers after the documents known here; `epoch` is that of fleet.toml. OperatorError.

    A new epoch continues the count while nodes accept that as its first number, so that nodes
    which know no epochs (0.1.0) follow too.
    """
    known = max(now.order, (last.epoch, last.generation) if last else (0, 0))
    epoch = max(epoch, known[0])
    following = known[1] + 1
    if epoch == known[0]:
        if following > strictjson.MAX_INTEGER:
            raise OperatorError(
                f"generation {known[1]} is the last that there is; begin to count anew with:"
                " edge-agent fleet trust rotate --new-epoch"
            )
        return Numbers(epoch, known[1], following)
    return Numbers(epoch, 0, following if following <= MAX_GENERATION_STEP else 1)


def chosen(found: Numbers, word: int | None) -> int:
    """The generation to sign: the next, or the operator's number `word`. OperatorError."""
    if word is None or word == found.next:
        return found.next
    if not found.base < word <= found.last:
        raise OperatorError(
            f"generation {word} cannot follow {found.base}: nodes take {found.base + 1} to"
            f" {found.last}; beyond that begin to count anew with: edge-agent fleet trust rotate"
            " --new-epoch"
        )
    return word


def check_next(document: Deployment, found: Numbers, word: int | None) -> None:
    """OperatorError unless another operator's document is the next, or `word` is its number.

    With one stolen key an attacker could otherwise make others sign a number that ends the count.
    """
    if document.order == (found.epoch, found.next):
        return
    if document.order == (found.epoch, chosen(found, word)):
        return
    raise OperatorError(
        f"it is generation {document.generation} of epoch {document.epoch}, and the next here is"
        f" {found.next} of epoch {found.epoch}: bring the folder up to date (git pull), or give"
        f" --generation {document.generation} to accept this number"
    )


def ahead(view: View, epoch: int, generation: int) -> list[Node]:
    """Nodes that report a later accepted document, and so would refuse this one."""
    return [node for node in view.sorted() if (node.epoch, node.accepted) >= (epoch, generation)]


def check_followed(view: View, found: Numbers, ahead: list[Node]) -> None:
    """OperatorError if most nodes report a later generation than all that is signed here.

    A few such nodes are only shown: a compromised node must not stop the fleet.
    """
    if 2 * len(ahead) <= len(view.nodes):
        return
    claimed = max(node.accepted for node in ahead)
    above = f"--generation {claimed + 1}" if claimed < found.last else "trust rotate --new-epoch"
    raise OperatorError(
        f"{len(ahead)} of {len(view.nodes)} nodes say that they accepted up to generation"
        f" {claimed}, and would refuse generation {found.next}, which follows what is signed and"
        " known here. Is this folder behind (git pull), or has the broker lost its data? To go"
        f" above them: {above}; if they are wrong: --generation {found.next}"
    )


def put(client: BrokerClient, topics: FleetTopics, raw: bytes, expected: bytes | None) -> None:
    """Replace `expected` by the signed document `raw`. OperatorError: `expected` changed.

    Of two operators who publish at the same moment each gets the error. NotKeptError: connected
    nodes have the document, the others do not get it.
    """
    with client.subscribed((topics.deployment,)) as subscription:
        kept = _kept_now(client, topics, subscription)
        if kept != expected:
            raise OperatorError(
                "another operator deployed at this moment; nothing was published. Look at the new"
                " state with `edge-agent fleet plan` and deploy again"
            )
        client.publish(topics.deployment, raw, retain=True)
        others = _others_until(subscription, raw)
    if not others:
        kept = settled(client, topics.deployment, raw, expected)
    if others or kept not in (raw, expected):
        raise OperatorError(
            "another operator deployed in the same moment: nodes took one or the other document."
            " Agree with them, and deploy again: the next generation replaces both"
        )
    if kept != raw:
        raise NotKeptError(f"{client.url}: {NOT_KEPT}, then deploy again")


def _kept_now(
    client: BrokerClient, topics: FleetTopics, subscription: Subscription
) -> bytes | None:
    """The retained document, with proof that the broker has sent it. LinkError."""
    connection, kept = client.connections, None
    client.mark(topics.deployment)
    end = time.monotonic() + ECHO_TIMEOUT_S
    while (message := subscription.take(QUIET_S if kept is None else 0)) is not None:
        kept = message.payload or None
        if time.monotonic() > end:
            raise LinkError(f"{client.url}: it sends deployments endlessly")
    if client.trouble or client.connections != connection:
        raise LinkError(f"{client.url}: {client.trouble}; nothing was published")
    return kept


def _others_until(subscription: Subscription, raw: bytes) -> int:
    """How many other documents arrive before our own."""
    others = 0
    for message in until(subscription, ECHO_TIMEOUT_S):
        if message.payload == raw:
            return others
        others += not message.retained
    raise LinkError(
        "the broker acknowledged the deployment and does not deliver it: may this operator write it"
        " (access list)?"
    )


# --- replacing a retained message
#
# An acknowledgement does not say that the broker keeps a message. A cluster of NATS servers
# acknowledges a retained message that its stream did not store, and a member goes on delivering the
# one before while another member, which feeds that member's index, is away (nats-server 2.15.3,
# `mqttHandlePubRetain` and the ephemeral consumer of `$MQTT_rmsgs`).

# A cluster that elects a leader stores nothing for some seconds (NATS: its API times out at 5 s).
SETTLE_S = 15.0
AGAIN_S = 2.0

NOT_KEPT = (
    "the broker sent it to the connected nodes, and sends to clients that connect now what it kept"
    " before. A member of its cluster may be away: start that member again"
)


class NotKeptError(LinkError):
    """The broker delivered the message and does not keep it: later subscribers do not get it."""


def settled(client: BrokerClient, topic: str, payload: bytes, before: bytes | None) -> bytes | None:
    """The message that the broker keeps after `payload` was published in place of `before`.

    Waits and publishes again while the broker still keeps `before`. The client must not be
    subscribed to `topic`: its own message would come back and count as kept. LinkError.
    """
    end = time.monotonic() + SETTLE_S
    while (kept := client.kept(topic)) == before != payload and time.monotonic() < end:
        time.sleep(AGAIN_S)
        client.publish(topic, payload, retain=True)
    return kept
