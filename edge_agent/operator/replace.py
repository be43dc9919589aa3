"""Replaces what the broker keeps at a topic, and learns whether the broker does keep it.

An acknowledgement does not say so. A cluster of NATS servers acknowledges a retained message that
its stream did not store, and a member goes on to show the one before while another member, which
feeds that member's index, is away (nats-server 2.15.3, `mqttHandlePubRetain` and the ephemeral
consumer of `$MQTT_rmsgs`).
"""

import time

from edge_agent.errors import LinkError
from edge_agent.operator.broker import BrokerClient

# A cluster that elects a leader stores nothing for some seconds (NATS: its API times out at 5 s).
SETTLE_S = 15.0
AGAIN_S = 2.0

NOT_KEPT = (
    "the broker sent it to the nodes that are connected, and shows who connects now what it kept"
    " before: is a member of its cluster away? Start that member again"
)


class NotKeptError(LinkError):
    """Published and delivered, but not kept: who connects later does not get it."""


def settled(client: BrokerClient, topic: str, payload: bytes, before: bytes | None) -> bytes | None:
    """What the broker keeps after `payload` was published in the place of `before`.

    Waits, and publishes again, while that is still `before`. The client must not be subscribed
    to `topic`: what it publishes would come back, and count as kept. LinkError.
    """
    end = time.monotonic() + SETTLE_S
    while (kept := client.kept(topic)) == before != payload and time.monotonic() < end:
        time.sleep(AGAIN_S)
        client.publish(topic, payload, retain=True)
    return kept
