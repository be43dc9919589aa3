"""Reads what the nodes of a fleet of any size say, past what a broker lets wait for one client.

Mosquitto writes all retained messages that match a subscription at once; when the socket is full
and 1,000 more wait (`max_queued_messages`), it drops the rest without a word.
Two ways lead past that:

- What it dropped stays unacknowledged in the session, and a session that is taken up again gets it
  (MQTT 5.0, 4.4): so the statuses are read, in a session of their own that is left and taken up
  until nothing new comes. They name the nodes.
- Plain topics bring one message each: so the states are read, for some hundred nodes at a time.
"""

from edge_agent.config import MqttConfig
from edge_agent.errors import LinkError
from edge_agent.fleet_protocol.topics import read_node_topic
from edge_agent.operator.broker import ASK_S, QUIET_S, BrokerClient, client_id
from edge_agent.operator.settings import with_client_id
from edge_agent.operator.subscription import Quiet

# No broker known drops any of so few.
SAFE_MESSAGES = 500
WINDOW = 200  # topics asked for at once
# Each brings some thousand; with MQTT 5 65,535 can be unacknowledged in one session.
MAX_ROUNDS = 50
KEEP_S = 60  # of the session between two rounds


def read(client: BrokerClient, nodes_topic: str, *, proven: bool = True) -> dict[str, bytes]:
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
    """What is kept at plain topics."""
    found = dict[str, bytes]()
    for begin in range(0, len(topics), WINDOW):
        found |= client.retained(topics[begin : begin + WINDOW], proven=proven)
    return found


def listed(config: MqttConfig, wanted: str, *, proven: bool = True) -> dict[str, bytes]:
    """What is kept at the topics that match, however much that is. LinkError."""
    own = with_client_id(config, client_id())
    found = dict[str, bytes]()
    try:
        for _ in range(MAX_ROUNDS):
            before = len(found)
            found |= _round(own, wanted, proven)
            if len(found) == before:
                return {topic: payload for topic, payload in found.items() if payload}
    finally:
        with BrokerClient(own):  # without a session to keep: the broker forgets it
            pass
    raise LinkError(f"{wanted}: after {MAX_ROUNDS} rounds more comes")


def _round(config: MqttConfig, wanted: str, proven: bool) -> dict[str, bytes]:
    """What the session brings before it is left again."""
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
