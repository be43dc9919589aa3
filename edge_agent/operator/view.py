"""The nodes of a fleet, from the status and state messages that the broker keeps.

A node is believed about itself; an enrolled node is believed where its key signed the state.
`View` is pure; `read_nodes` reads the messages of a fleet of any size.
"""

from collections.abc import Mapping

from edge_agent.config import MqttConfig
from edge_agent.errors import LinkError
from edge_agent.fleet_protocol import signed_states
from edge_agent.fleet_protocol.signed_states import UnprovenError
from edge_agent.fleet_protocol.topics import read_node_topic
from edge_agent.operator.broker import ASK_S, QUIET_S, BrokerClient
from edge_agent.operator.enrolment import NOBODY, Enrolment
from edge_agent.operator.node_state import Node, count, text
from edge_agent.operator.tool_client import Quiet, Received, client_id, with_client_id
from edge_agent.operator.untrusted import UnreadableError, read_object


class View:
    """The nodes of one fleet, by name."""

    def __init__(self, enrolment: Enrolment = NOBODY) -> None:
        self.enrolment = enrolment
        self.nodes: dict[str, Node] = {}
        self.strangers = 0  # messages on topics of no node
        self._latest: dict[str, tuple[int, int]] = {}  # session and number of proven states

    def feed(self, message: Received) -> Node | None:
        """Take a `status` or `state` message; returns the node that changed."""
        found = read_node_topic(message.topic)
        if found is None or found[1] not in ("status", "state"):
            self.strangers += 1
            return None
        name, leaf = found
        if not message.payload:  # cleared: the node was removed from the fleet
            return self.nodes.pop(name, None)
        try:
            document = read_object(message.payload)
        except UnreadableError as error:
            node = self._node(name)
            node.unreadable = f"{leaf}: {error}"
            return node
        node = self._node(name)
        node.unreadable = ""
        session = count(document.get("session"))
        if leaf == "state":
            node.state = document
            node.unproven = self._unproven(name, message.payload, document)
        elif leaf == "status":
            # A will may arrive late, after the node has come back (docs/mqtt.md).
            newest = max(node.session, count(node.state.get("session")))
            if document.get("status") == "lost" and session < newest:
                return None
            node.status, node.session = text(document.get("status")), max(session, node.session)
        return node

    def _node(self, name: str) -> Node:
        return self.nodes.setdefault(name, Node(name, enrolled=name in self.enrolment.keys))

    def _unproven(self, name: str, payload: bytes, document: Mapping[str, object]) -> str:
        """Why an enrolled node's state is not proven; "": it is, or the node is not enrolled."""
        key = self.enrolment.keys.get(name)
        if key is None:
            return ""
        try:
            order = signed_states.check(payload, document, key, self.enrolment.fleet, name)
            if order < self._latest.get(name, order):
                raise UnprovenError("older", "it is older than one that was seen before")
        except UnprovenError as error:
            return f"{error} ({error.reason})"
        self._latest[name] = order
        return ""

    @property
    def unproven(self) -> list[Node]:
        """The enrolled nodes whose state is not proven."""
        return [node for node in self.sorted() if node.unproven]

    @property
    def silent(self) -> list[str]:
        """The nodes that have a status and no state: their plugins are not known."""
        return [node.name for node in self.sorted() if node.status and not node.state]

    @property
    def unreadable(self) -> int:
        """How many nodes sent a message that cannot be read."""
        return sum(bool(node.unreadable) for node in self.nodes.values())

    @property
    def online(self) -> int:
        return sum(node.online for node in self.nodes.values())

    def sorted(self) -> list[Node]:
        return [self.nodes[name] for name in sorted(self.nodes)]

    def all(self) -> list[Node]:
        """All nodes, and enrolled nodes without a message at the broker."""
        missing = (Node(name, enrolled=True) for name in self.enrolment.keys - self.nodes.keys())
        return sorted((*self.nodes.values(), *missing), key=lambda node: node.name)


# --- reading status and state of a fleet of any size
#
# Mosquitto writes all retained messages that match a subscription at once; when the socket is full
# and 1,000 more wait (`max_queued_messages`), it drops the rest without an error. So:
#
# - A dropped message stays unacknowledged in the session, and is sent when the session is resumed
#   (MQTT 5.0, 4.4). So the statuses, which name the nodes, are read in a session of their own that
#   is resumed until nothing new arrives.
# - A plain topic brings one message. So the states are read by their plain topics, some hundred at
#   a time.

# No known broker drops any of so few.
SAFE_MESSAGES = 500
WINDOW = 200  # topics asked for at once
# Each round brings some thousand; in MQTT 5 a session has at most 65,535 unacknowledged messages.
MAX_ROUNDS = 50
KEEP_S = 60  # how long the session is kept between two rounds


def read_nodes(client: BrokerClient, nodes_topic: str, *, proven: bool = True) -> dict[str, bytes]:
    """Every status and state that the broker keeps, by topic. LinkError. `proven` as in
    `BrokerClient.proof`.

    Above 65,535 nodes, or some 1,000 at a broker without MQTT 5, nodes may be missing.
    """
    leaves = (f"{nodes_topic}/+/status", f"{nodes_topic}/+/state")
    found = client.retained(leaves, proven=proven)
    if len(found) >= SAFE_MESSAGES and client.protocol == "5":
        found |= listed(client.config, f"{nodes_topic}/+/status", proven=proven)
    there = {topic for topic in found if topic.endswith("/state")}
    named = (named for topic in found if (named := read_node_topic(topic)))
    states = {f"{nodes_topic}/{name}/state" for name, leaf in named if leaf == "status"}
    return found | _at(client, sorted(states - there), proven)


def _at(client: BrokerClient, topics: list[str], proven: bool) -> dict[str, bytes]:
    """The retained messages of plain topics."""
    found = dict[str, bytes]()
    for begin in range(0, len(topics), WINDOW):
        found |= client.retained(topics[begin : begin + WINDOW], proven=proven)
    return found


def listed(config: MqttConfig, wanted: str, *, proven: bool = True) -> dict[str, bytes]:
    """All retained messages of the topics that match, in any number. LinkError."""
    own = with_client_id(config, client_id())
    found = dict[str, bytes]()
    try:
        for _ in range(MAX_ROUNDS):
            before = len(found)
            found |= _round(own, wanted, proven)
            if len(found) == before:
                return {topic: payload for topic, payload in found.items() if payload}
    finally:
        with BrokerClient(own):  # a clean start: the broker deletes the session
            pass
    raise LinkError(f"{wanted}: the broker sends more messages after {MAX_ROUNDS} rounds")


def _round(config: MqttConfig, wanted: str, proven: bool) -> dict[str, bytes]:
    """The messages that one connection of the session brings."""
    client = BrokerClient(config, keep_session_s=KEEP_S)
    arrived, found, marked = client.expect(wanted), dict[str, bytes](), False
    with client:
        quiet = Quiet(arrived, ASK_S)
        while True:
            message = quiet.take()
            if message is not None:
                client.acknowledge(message)
                found[message.topic] = message.payload
            elif marked:
                return found
            else:
                quiet.again(client.proof(wanted, QUIET_S, proven))
                marked = True
