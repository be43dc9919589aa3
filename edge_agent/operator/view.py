"""The nodes of a fleet, from the status and state messages that the broker keeps. Pure.

A node is believed about itself; an enrolled node is believed where its key signed the state.
"""

from collections.abc import Mapping

from edge_agent.fleet_protocol import signed_states
from edge_agent.fleet_protocol.signed_states import UnprovenError
from edge_agent.fleet_protocol.topics import read_node_topic
from edge_agent.operator.enrolment import NOBODY, Enrolment
from edge_agent.operator.node_state import Node, count, text
from edge_agent.operator.subscription import Received
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
