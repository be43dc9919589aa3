"""The retained messages of a fleet's broker: all with proof, replacing one, a whole fleet."""

import os
import time
from collections.abc import Iterable
from itertools import takewhile

from edge_agent.config import MqttConfig
from edge_agent.errors import LinkError
from edge_agent.fleet_protocol.topics import read_node_topic
from edge_agent.operator.broker_messages import BrokerMessages, NotAllowedError
from edge_agent.operator.subscription import Quiet, until
from edge_agent.operator.tool_client import client_id, hint, with_client_id

# MQTT does not mark the end of the retained messages. Silence of this length ends a listing only
# after a message of our own (a mark), published after the subscription, has come back
# (docs/adr/0042).
QUIET_S = 0.4
ASK_S = 0.05  # of silence, before the mark is published
MARK_TIMEOUT_S = 20.0  # until the mark must be back
# Mosquitto 2.0 drops answers too while 1,000 packets wait for a client that reads slowly: SUBSCRIBE
# and PUBLISH of a mark are sent again.
MARK_AGAIN_S = 4.0
# The silence that ends a listing without proof, where the broker does not take a mark.
UNPROVEN_QUIET_S = 2.0
ATTEMPTS = 3  # at reading retained messages when the connection breaks meanwhile


class BrokerClient(BrokerMessages):
    """A context manager: connected inside. Its methods may be called by any thread."""

    may_mark = True  # False once the broker did not take or bring back a mark

    def retained(
        self, filters: Iterable[str], quiet_s: float = QUIET_S, *, proven: bool = True
    ) -> dict[str, bytes]:
        """All retained messages of the topics that match, by topic. LinkError: not all came.

        Returns at once when each filter is a plain topic and has a message. `proven` as in `proof`.
        """
        filters = tuple(filters)
        exact = not any("+" in each or "#" in each for each in filters)
        for _ in range(ATTEMPTS):
            connection, found = self.connections, dict[str, bytes]()
            with self.subscribed(filters) as subscription:
                quiet, marked = Quiet(subscription, min(quiet_s, ASK_S), flagged=not exact), False
                while not (exact and len(found) == len(filters)):
                    message = quiet.take()
                    if message is not None:
                        if message.retained or exact:  # else perhaps another operator's mark
                            found[message.topic] = message.payload
                    elif marked:
                        break
                    else:
                        quiet.again(self.proof(filters[0], quiet_s, proven))
                        marked = True
            found = {topic: payload for topic, payload in found.items() if payload}
            # Over a connection that broke, perhaps not all of them came.
            if connection == self.connections and not self._lost:
                return found
        raise LinkError(f"{self.url}: the connection broke at each attempt; last: {self._lost}")

    def kept(self, topic: str, quiet_s: float = QUIET_S, *, proven: bool = True) -> bytes | None:
        """The retained message of one topic; None if there is none, which is proven."""
        return self.retained((topic,), quiet_s, proven=proven).get(topic)

    def proof(self, beside: str, quiet_s: float, proven: bool = True) -> float:
        """Mark the end of the retained messages at `beside`; returns the silence to wait, in s.

        Without `proven`, for a listing that is only shown, an account that may not write marks
        waits longer instead; then `may_mark` is False. LinkError.
        """
        if proven or self.may_mark:
            try:
                self.mark(beside)
            except NotAllowedError:
                self.may_mark = False
                if proven:
                    raise
            else:
                return quiet_s
        return max(quiet_s, UNPROVEN_QUIET_S)

    def mark(self, beside: str) -> None:
        """Publish a message and wait until it comes back: the broker has answered all before.

        The topic is in the fleet of `beside`, where the operator may write and no node reads.
        LinkError: the message does not come back, so the listing has no proof.
        """
        topic = mark_topic(beside, self._config.client_id)
        nonce = os.urandom(8).hex().encode()
        end = time.monotonic() + MARK_TIMEOUT_S
        with self.subscribed((topic,), again_s=MARK_AGAIN_S) as marks:
            while True:
                if refusal := self.offer(topic, nonce, MARK_AGAIN_S):
                    raise NotAllowedError(
                        f"{self.url}: {topic}: the broker refuses it: {refusal}{hint(refusal)}"
                    )
                left = max(0.0, end - time.monotonic())
                for message in until(marks, min(left, MARK_AGAIN_S)):
                    if self._keep_session_s:
                        self.acknowledge(message)
                    if message.payload == nonce:
                        return
                if left < MARK_AGAIN_S:
                    break
        raise NotAllowedError(
            f"{self.url}: the broker is too slow, or does not let this operator read {topic}: what"
            f" it keeps at {beside} is not known"
        )


def mark_topic(beside: str, name: str) -> str:
    """Below `blobs` of the same fleet: `configs/mosquitto/acl` lets the operator write there."""
    plain = takewhile(lambda level: level not in "+#", beside.split("/")[:3])
    return "/".join((*plain, "blobs", "mark", name))


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
    """What the broker keeps after `payload` was published in the place of `before`.

    Waits and publishes again while the broker still keeps `before`. The client must not be
    subscribed to `topic`: its own message would come back and count as kept. LinkError.
    """
    end = time.monotonic() + SETTLE_S
    while (kept := client.kept(topic)) == before != payload and time.monotonic() < end:
        time.sleep(AGAIN_S)
        client.publish(topic, payload, retain=True)
    return kept


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
