"""The messages of an operator: publish and wait, subscribe and receive, list retained ones."""

import math
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile

from paho.mqtt import client as paho
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_agent.config import Broker, MqttConfig
from edge_agent.errors import LinkError
from edge_agent.mqtt.client import at_qos_1, publish_properties, refusal
from edge_agent.operator.broker_connection import BrokerConnection
from edge_agent.operator.tool_client import (
    Quiet,
    Received,
    Subscription,
    ToolClient,
    hint,
    until,
)

# Mochi takes the ids of its own messages, which are another count (MQTT 5, 2.2.1), for ours. The
# next id is free, or one of the following.
ID_IN_USE, ID_ATTEMPTS = "Packet identifier in use", 20

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


class NotAllowedError(LinkError):
    """The broker does not let this account write or read a topic."""


class BrokerClient(BrokerConnection):
    """A context manager: connected inside. Its methods may be called by any thread.

    Messages have QoS 1 in both directions.
    """

    may_mark = True  # False once the broker did not take or bring back a mark

    def __init__(
        self, config: MqttConfig, *, keep_session_s: int = 0, unacknowledged: int = 65_535
    ) -> None:
        super().__init__(config, keep_session_s=keep_session_s, unacknowledged=unacknowledged)
        self._acknowledged: dict[int, str] = {}  # packet ids, each with "" or why it was refused
        self._subscribing: dict[int, Subscription] = {}

    def expect(self, *filters: str) -> Subscription:
        """Before connecting: receive these topics, also the messages of a kept session."""
        subscription = Subscription(filters)
        self._subscriptions.append(subscription)
        return subscription

    def publish(
        self, topic: str, payload: bytes, *, retain: bool, properties: Mapping[str, object] = {}
    ) -> None:
        """Send one message at QoS 1 and wait until the broker has it."""
        self.wait(self.send(topic, payload, retain=retain, properties=properties))

    def send(
        self, topic: str, payload: bytes, *, retain: bool, properties: Mapping[str, object] = {}
    ) -> int:
        """Send one message at QoS 1; `wait` for what this returns.

        Waits while as many as the broker grants are unacknowledged.
        """
        client = self._opened()
        given = publish_properties(client.protocol, **properties)
        self._wait_for(self._reserved)
        info = client.publish(topic, payload, qos=1, retain=retain, properties=given)
        # Without a connection it waits in paho's queue for the next.
        if info.rc not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN):
            with self._lock:
                self._unanswered -= 1
            raise LinkError(f"{self.url}: {topic}: not sent: {info.rc.name}")
        return info.mid

    def wait(self, packet_id: int) -> None:
        """Wait until the broker has the message of `send`. LinkError: refused, or no answer."""
        self._wait_for(lambda: packet_id in self._acknowledged)
        with self._lock:
            why = self._acknowledged.pop(packet_id)
        if why:
            raise NotAllowedError(f"{self.url}: the broker refuses it: {why}{hint(why)}")

    @contextmanager
    def subscribed(
        self, filters: Iterable[str], latest: Collection[str] = (), again_s: float = math.inf
    ) -> Iterator[Subscription]:
        """Receive messages that match `filters` at QoS 1, retained messages first; `latest` as in
        `Subscription`. SUBSCRIBE is sent again after `again_s` without an answer.

        Brokers bound the messages that wait for a client, mosquitto to 1,000, and drop the rest
        without an error. In MQTT 5 this client's receive maximum raises that to what its socket
        takes at once, some thousand messages (`listed` in operator/view reads more).
        """
        subscription = Subscription(tuple(filters), latest)
        with self._lock:
            self._subscriptions.append(subscription)
        try:
            self._subscribe_answered(subscription, again_s)
            if subscription.answer:
                wanted = ", ".join(subscription.filters)
                raise NotAllowedError(
                    f"{self.url}: the broker refuses the subscription to {wanted}:"
                    f" {subscription.answer}{hint(subscription.answer)}"
                )
            yield subscription
        finally:
            with self._lock:
                self._subscriptions.remove(subscription)
                still = {each for other in self._subscriptions for each in other.filters}
            gone = [each for each in subscription.filters if each not in still]
            # In a kept session the subscriptions stay, so that messages wait there.
            if gone and self._client is not None and not self._keep_session_s:
                self._client.unsubscribe(gone)

    def offer(self, topic: str, payload: bytes, within_s: float) -> str:
        """Send one message, not retained, that need not arrive; why it is refused, or "".

        Some brokers refuse by ending the connection: two ends after one message are a refusal, one
        end may be chance.
        """
        before = self.connections
        packet_id = self.send(topic, payload, retain=False)
        with self._answered:
            self._answered.wait_for(
                lambda: packet_id in self._acknowledged or self.connections > before + 1, within_s
            )
            if packet_id in self._acknowledged:
                return self._acknowledged.pop(packet_id)
            self._unanswered -= 1
            self._opened().forget_message(packet_id)
            return "the broker ends the connection" if self.connections > before + 1 else ""

    def acknowledge(self, message: Received) -> None:
        """Send PUBACK: the broker need not send the message again."""
        self._opened().ack(message.packet_id, 1)

    # --- retained messages, with proof

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
        """The retained message of one topic; None: proven absent."""
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

    # --- inside

    def _reserved(self) -> bool:
        """Reserve the sending of one more message; False: not now."""
        if self._unanswered >= self._granted:
            return False
        self._unanswered += 1
        return True

    def _subscribe_answered(self, subscription: Subscription, again_s: float) -> None:
        """Subscribe and wait for the answer. LinkError: none in time."""
        end, before = self._answer_by(), self.connections
        in_use = 0
        while in_use < ID_ATTEMPTS:
            subscription.answer = None
            self._subscribe(subscription)
            with self._answered:
                wait_s = min(again_s, max(0.0, end - time.monotonic()))
                self._answered.wait_for(lambda: subscription.answer is not None, wait_s)
            in_use += subscription.answer == ID_IN_USE
            if subscription.answer not in (None, ID_IN_USE) or time.monotonic() >= end:
                break
        self._check_answered(subscription.answer is not None, before)

    def _subscribe(self, subscription: Subscription) -> None:
        client = self._opened()
        # A resumed session delivers its own messages, and not all retained messages again.
        handling = (
            SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
            if self._keep_session_s
            else SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE
        )
        wanted = at_qos_1(client.protocol, subscription.filters, handling)
        with self._lock:  # the answer's callback needs the entry below
            _, packet_id = client.subscribe(wanted)
            if packet_id is not None:  # without a connection: `_on_connect` does it again
                self._subscribing[packet_id] = subscription

    def _on_publish(
        self,
        _client: paho.Client,
        _userdata: object,
        packet_id: int,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        with self._answered:
            self._acknowledged[packet_id] = refusal(reason)
            self._unanswered -= 1
            self._answered.notify_all()

    def _on_subscribe(
        self,
        _client: paho.Client,
        _userdata: object,
        packet_id: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        refused = [why for reason in reasons if (why := refusal(reason))]
        with self._answered:
            subscription = self._subscribing.pop(packet_id, None)
            if subscription is not None:
                subscription.answer = refused[0] if refused else ""
            self._answered.notify_all()

    def _on_message(
        self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage
    ) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return  # an invalid topic, of no subscription
        received = Received(topic, bytes(message.payload), message.retain, message.mid)
        with self._lock:
            for subscription in self._subscriptions:
                if subscription.wants(received.topic):
                    subscription.put(received)

    def _make(self, broker: Broker, version: MQTTProtocolVersion) -> ToolClient:
        client = super()._make(broker, version)
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        return client


def mark_topic(beside: str, name: str) -> str:
    """Below `blobs` of the same fleet: `configs/mosquitto/acl` lets the operator write there."""
    plain = takewhile(lambda level: level not in "+#", beside.split("/")[:3])
    return "/".join((*plain, "blobs", "mark", name))
