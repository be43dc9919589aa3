"""The topics of a fleet and of one of its nodes, and the sizes of messages (fleet protocol,
version 1). Pure. The limits stand in docs/fleet-protocol.md, and here once each.
"""

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from edge_agent import VERBS, Verb
from edge_agent.errors import ConfigError
from edge_agent.store.digest import SHORT_DIGITS, Digest, sha256_hex

# A whole message but for its topic: a document, an answer, a batch of results, a part of a blob.
# One of this size passes every broker that was looked at (AWS IoT Core: 128 KiB).
MAX_MESSAGE_BYTES = 64 << 10
MAX_REQUEST_BYTES = 4096  # ours: an id, a verb's few arguments, an envelope around them
MIN_PART_BYTES, MAX_PART_BYTES = 256, MAX_MESSAGE_BYTES
# MQTT allows 65,535 bytes; AWS IoT Core, the narrowest of the common brokers, 256.
MAX_TOPIC_BYTES = 256
MAX_CLIENT_ID_CHARS = 23  # that a broker must take, of 0-9 a-z A-Z (MQTT 5, 3.1.3-5)
# Of a digest that had to be cut: "sha256:" and the digits that `edge-agent status` shows.
CUT_DIGEST_CHARS = len("sha256:") + SHORT_DIGITS


ROOT = "edge/v1"
# Nothing that MQTT gives a meaning ("/", "+", "#", "$") and short enough for any broker.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
# A number as `blob_part` writes it; a deployment names at most 6 digits of parts.
_PART = re.compile(r"0|[1-9][0-9]{0,5}")


class FleetTopics(NamedTuple):
    """Topics of the messages that the operator retains for all nodes of a fleet."""

    deployment: str
    trust: str
    blobs: str  # the level above all parts; no topic of its own

    def blob_part(self, digest: Digest, number: int) -> str:
        """The topic of part `number` (from 0) of a blob."""
        return f"{self.blobs}/{digest.hex}/{number}"

    @property
    def nodes(self) -> str:
        """The level above what each node says; no topic of its own."""
        return f"{self.blobs.removesuffix('blobs')}nodes"


class NodeTopics(NamedTuple):
    """Topics that one node publishes to; status and state are retained, the others are not."""

    status: str
    state: str
    results: str
    logs: str
    metrics: str

    def request(self, verb: str) -> str:
        """The topic of requests for `verb`. ValueError unless that is one of VERBS."""
        return f"{self._node}/request/{_known(verb)}"

    @property
    def responses(self) -> str:
        """The level above its answers; no topic of its own."""
        return f"{self._node}/response"

    def response(self, verb: str) -> str:
        """The topic of answers, unless the request named another. ValueError as in `request`."""
        return f"{self.responses}/{_known(verb)}"

    def may_answer_on(self, topic: str) -> bool:
        """Whether an answer may go to `topic`, which any client of the broker may have chosen.

        Not to what another program believes: inside the protocol only this node's own answers.
        """
        return is_plain(topic) and (
            not f"{topic}/".startswith(f"{ROOT}/") or topic.startswith(f"{self.responses}/")
        )

    @property
    def _node(self) -> str:
        return self.status.rpartition("/")[0]


Kind = Literal["deployment", "trust"]
DEPLOYMENT: Kind = "deployment"
TRUST: Kind = "trust"


class RequestFor(NamedTuple):
    """A request to this node."""

    verb: Verb


class DocumentOf(NamedTuple):
    """A signed document for all nodes, the only retained one of its kind."""

    kind: Kind


class PartOf(NamedTuple):
    """A part of a blob."""

    digest: Digest
    number: int  # from 0


Route = RequestFor | DocumentOf | PartOf
"""What a message for a node is, by its topic alone."""


class Router:
    """Which topics concern a node, and what a message on one of them is."""

    def __init__(self, fleet: FleetTopics, node: NodeTopics) -> None:
        self._requests: dict[str, Route] = {node.request(verb): RequestFor(verb) for verb in VERBS}
        self._known: dict[str, Route] = {
            **self._requests,
            fleet.deployment: DocumentOf(DEPLOYMENT),
            fleet.trust: DocumentOf(TRUST),
        }
        self._parts = f"{fleet.blobs}/"

    @property
    def requests(self) -> Iterable[str]:
        """The topics of requests to the node."""
        return self._requests

    def route(self, topic: str) -> Route | None:
        """None: nothing that a node takes."""
        if found := self._known.get(topic):
            return found
        if topic.startswith(self._parts) and (part := read_blob_part(topic)):
            return PartOf(*part)
        return None


def fleet_topics(fleet: str) -> FleetTopics:
    """The topics that all nodes of `fleet` read. Raises ConfigError as `node_topics` does."""
    _check("fleet", fleet)
    return FleetTopics(*(f"{ROOT}/{fleet}/{leaf}" for leaf in FleetTopics._fields))


def node_topics(fleet: str, node: str) -> NodeTopics:
    """The topics of `node` in `fleet`. Raises ConfigError for a name that no topic can hold."""
    _check("fleet", fleet)
    _check("node", node)
    return NodeTopics(*(f"{ROOT}/{fleet}/nodes/{node}/{leaf}" for leaf in NodeTopics._fields))


def read_node_topic(topic: str) -> tuple[str, str] | None:
    """The node and the last level of what `node_topics` makes; None for any other topic."""
    levels = topic.split("/")
    if len(levels) != 6 or levels[3] != "nodes" or not _NAME.fullmatch(levels[4]):
        return None
    return levels[4], levels[5]


def read_blob_part(topic: str) -> tuple[Digest, int] | None:
    """The digest and the number of what `blob_part` makes; None for any other topic."""
    levels = topic.split("/")
    if len(levels) != 6 or not _PART.fullmatch(levels[5]):
        return None
    try:
        return Digest.of_hex(levels[4]), int(levels[5])
    except ValueError:
        return None


def plain_client_id(fleet: str, node: str) -> str:
    """A client id that every broker takes: letters and digits, few enough."""
    return sha256_hex(f"{fleet}/{node}".encode())[:MAX_CLIENT_ID_CHARS]


def is_plain(topic: str) -> bool:
    """Whether something can be published to `topic`, and subscribed to it alone."""
    return (
        0 < len(topic.encode("utf-8", "replace")) <= MAX_TOPIC_BYTES
        and topic.isprintable()
        and not topic.startswith("$")
        and "+" not in topic
        and "#" not in topic
    )


def _check(what: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{what} {name!r} cannot stand in a topic: use 1 to 63 of a-z 0-9 . _ -"
            " with a letter or digit first"
        )


def _known(verb: str) -> str:
    if verb not in VERBS:
        raise ValueError(f"{verb!r}: not one of {', '.join(VERBS)}")
    return verb
