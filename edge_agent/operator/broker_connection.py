"""The operator's connection to the fleet's broker, through paho's own thread.

An operator's machine has no memory limit and a person who waits, so this differs from the
node's link: calls wait for the broker's answer, a lost connection comes back by itself with
its subscriptions, and what was not acknowledged is sent again. Errors are LinkError.
"""

import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from paho.mqtt import client as paho
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_agent.config import Broker, MqttConfig
from edge_agent.errors import LinkError
from edge_agent.mqtt.tls import explain
from edge_agent.operator.subscription import Received, Subscription
from edge_agent.operator.toolclient import MAX_PACKET_BYTES, ToolClient, hint, tool_client

VERSIONS = (MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311)  # in the order to try
CONNECT_TIMEOUT_S = 10.0  # TCP, TLS and CONNACK each
# A broker that is away for longer than this ends a command that waits for its answer.
ANSWER_TIMEOUT_S = 60.0
# What mosquitto and others let wait for acknowledgement in one direction, by default. A broker
# may grant less (MQTT 5, 3.2.2.3.3), and may disconnect who sends more (4.9).
IN_FLIGHT = 20
RECONNECT_MAX_S = 8
# Mochi takes the ids of its own messages, which are another count (MQTT 5, 2.2.1), for ours. The
# next id is free, or the next but some.
ID_IN_USE, ID_ATTEMPTS = "Packet identifier in use", 20


class NotAllowedError(LinkError):
    """The broker does not let this account write or read a topic."""


class BrokerConnection:
    """A context manager: connected inside. Its methods may be called by any thread."""

    def __init__(
        self, config: MqttConfig, *, keep_session_s: int = 0, unacknowledged: int = 65_535
    ) -> None:
        """With `keep_session_s` the broker keeps what arrives while this client's id is away.

        A message then counts as arrived once `acknowledge` was called for it; a broker with MQTT 5
        sends so many before.
        """
        self._config = config
        self._unacknowledged = unacknowledged
        self._keep_session_s = keep_session_s
        self._client: paho.Client | None = None
        self._subscriptions: list[Subscription] = []
        self._lock = threading.Lock()
        self._answered = threading.Condition(self._lock)
        self._acknowledged: dict[int, str] = {}  # packet ids, each with "" or why it was refused
        self._subscribing: dict[int, Subscription] = {}
        self._connack: str | None = None  # "" or why not
        self._wrong_version = False
        self._lost = ""  # why there is no connection now
        self._broke = ""  # why the last one ended
        self._granted = IN_FLIGHT  # messages that may wait for acknowledgement
        self._unanswered = 0  # that do
        self.url = ""
        self.protocol = ""  # "5" or "3.1.1"
        self.max_packet_bytes = 256 << 20  # MQTT's own
        self.session_present = False
        self.connections = 0  # how often the broker accepted this client

    # --- opening and closing

    def __enter__(self) -> Self:
        problems = []
        for broker in self._config.brokers:
            try:
                self._open(broker)
            except LinkError as error:
                problems.append(str(error))
            else:
                return self
        raise LinkError("\n".join(problems))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def _open(self, broker: Broker) -> None:
        for version in VERSIONS:
            try:
                self._try(broker, version)
            except LinkError:
                self._close()
                if not self._wrong_version or version == VERSIONS[-1]:
                    raise
            else:
                return

    def _try(self, broker: Broker, version: MQTTProtocolVersion) -> None:
        self._connack, self._wrong_version, self._lost = None, False, ""
        self._granted, self._unanswered = IN_FLIGHT, 0
        self.url, self.protocol = broker.url, "5" if version == VERSIONS[0] else "3.1.1"
        client = self._client = self._make(broker, version)
        properties = None
        if version == MQTTProtocolVersion.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.ReceiveMaximum = self._unacknowledged
            properties.MaximumPacketSize = MAX_PACKET_BYTES
            properties.SessionExpiryInterval = self._keep_session_s
        try:
            client.connect(
                broker.host,
                broker.port,
                keepalive=min(self._config.keepalive_s, 60),
                clean_start=not self._keep_session_s if properties else 3,  # 3: paho's own "unset"
                properties=properties,
            )
        except (OSError, ValueError) as error:
            raise LinkError(f"{broker.url}: {explain(error)}") from error
        client.loop_start()
        with self._answered:
            self._answered.wait_for(lambda: self._connack is not None, CONNECT_TIMEOUT_S)
            if self._connack is None:
                raise LinkError(f"{broker.url}: the broker does not answer; is this its MQTT port?")
            if self._connack:
                raise LinkError(f"{broker.url}: {self._connack}")

    def _make(self, broker: Broker, version: MQTTProtocolVersion) -> paho.Client:
        client = tool_client(self._config, version, tls=broker.tls, clean=not self._keep_session_s)
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.reconnect_delay_set(1, RECONNECT_MAX_S)
        client.max_inflight_messages_set(IN_FLIGHT)  # `send` keeps to what the broker grants
        client.manual_ack_set(bool(self._keep_session_s))
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        return client

    def _close(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        client.disconnect()
        # paho's loop goes on until its queue is empty: without a connection, for ever.
        client._out_messages.clear()
        client.loop_stop()

    def expect(self, *filters: str) -> Subscription:
        """Before connecting: what is to be received, a kept session's messages among it."""
        subscription = Subscription(filters)
        self._subscriptions.append(subscription)
        return subscription

    # --- using

    @property
    def config(self) -> MqttConfig:
        """For another connection to the same broker."""
        return self._config

    @property
    def trouble(self) -> str:
        """Why there is no connection at the moment; "" while there is one."""
        return self._lost

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
        given = None
        if properties and client.protocol == MQTTProtocolVersion.MQTTv5:
            given = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            for name, value in properties.items():
                setattr(given, name, value)
        self._wait_for(self._reserved)
        info = client.publish(topic, payload, qos=1, retain=retain, properties=given)
        # Without a connection it waits in paho's queue for the next.
        if info.rc not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN):
            with self._lock:
                self._unanswered -= 1
            raise LinkError(f"{self.url}: {topic}: not sent: {info.rc.name}")
        return info.mid

    def wait(self, packet_id: int) -> None:
        """Until the broker has what `send` sent. LinkError if it refuses or stays away."""
        self._wait_for(lambda: packet_id in self._acknowledged)
        with self._lock:
            refusal = self._acknowledged.pop(packet_id)
        if refusal:
            raise NotAllowedError(f"{self.url}: the broker refuses it: {refusal}{hint(refusal)}")

    @contextmanager
    def subscribed(
        self, filters: Iterable[str], latest: Collection[str] = (), again_s: float = math.inf
    ) -> Iterator[Subscription]:
        """Receive what matches `filters` at QoS 1, beginning with what the broker kept; `latest`
        as in `Subscription`. Without an answer it is asked for again after `again_s`.

        Brokers bound what waits for a client, mosquitto to 1,000 messages, and drop the rest
        without a word. With MQTT 5 this client's receive maximum lifts that for what its socket
        takes at once, some thousand messages (operator/listing reads more).
        """
        subscription = Subscription(tuple(filters), latest)
        with self._lock:
            self._subscriptions.append(subscription)
        try:
            self._subscribe_answered(subscription, again_s)
            if subscription.answer:
                raise NotAllowedError(
                    f"{self.url}: the broker refuses to tell of {', '.join(subscription.filters)}:"
                    f" {subscription.answer}{hint(subscription.answer)}"
                )
            yield subscription
        finally:
            with self._lock:
                self._subscriptions.remove(subscription)
                still = {each for other in self._subscriptions for each in other.filters}
            gone = [each for each in subscription.filters if each not in still]
            # A session that is kept keeps its subscriptions, or nothing would wait for us.
            if gone and self._client is not None and not self._keep_session_s:
                self._client.unsubscribe(gone)

    def offer(self, topic: str, payload: bytes, within_s: float) -> str:
        """Send one message, not retained, that need not arrive; why it is refused, or "".

        Some brokers have no other word for "refused" than to hang up: once is chance, twice is
        meant.
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
            client = self._opened()
            with client._out_message_mutex:  # or it would be sent with each connection
                client._out_messages.pop(packet_id, None)
            return "it ends the connection" if self.connections > before + 1 else ""

    def acknowledge(self, message: Received) -> None:
        """It need not be sent again."""
        self._opened().ack(message.packet_id, 1)

    # --- inside

    def _opened(self) -> paho.Client:
        if self._client is None:
            raise LinkError("the connection to the broker is closed")
        return self._client

    def _reserved(self) -> bool:
        """Whether one more message may be sent now; it is counted then."""
        if self._unanswered >= self._granted:
            return False
        self._unanswered += 1
        return True

    def _wait_for(self, answered: Callable[[], bool]) -> None:
        with self._answered:
            before = self.connections
            done = self._answered.wait_for(answered, ANSWER_TIMEOUT_S)
        self._check_answered(done, before)

    def _check_answered(self, done: bool, before: int) -> None:
        """LinkError unless it was `done`; `before` are the connections before that was waited."""
        with self._answered:
            why = self._lost or "it is connected, but does not answer"
            if not self._lost and self.connections != before:
                why = f"it is connected again, but does not answer; before, {self._broke}"
        if not done:
            raise LinkError(
                f"{self.url}: no answer from the broker for {ANSWER_TIMEOUT_S:.0f} s: {why};"
                " run the command again when it is back, it goes on where it stopped"
            )

    def _subscribe_answered(self, subscription: Subscription, again_s: float) -> None:
        """LinkError: there is no answer in time."""
        end, before = time.monotonic() + ANSWER_TIMEOUT_S, self.connections
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
        wanted: list[tuple[str, SubscribeOptions]] | list[tuple[str, int]]
        wanted = [(each, 1) for each in subscription.filters]
        if client.protocol == MQTTProtocolVersion.MQTTv5:
            # A session that is taken up again brings what it held, not all that is retained anew.
            handling = (
                SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
                if self._keep_session_s
                else SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE
            )
            options = SubscribeOptions(qos=1, retainHandling=handling)
            wanted = [(each, options) for each in subscription.filters]
        with self._lock:  # or the answer might come before it is known to whom
            _, packet_id = client.subscribe(wanted)
            if packet_id is not None:  # without a connection: `_on_connect` does it again
                self._subscribing[packet_id] = subscription

    def _on_connect(
        self,
        client: paho.Client,
        _userdata: object,
        flags: paho.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        with self._answered:
            if reason.is_failure:
                self._wrong_version = reason == "Unsupported protocol version"
                self._connack = f"the broker refuses the connection: {reason}{hint(str(reason))}"
                self._lost = self._connack
            else:
                self._connack, self._lost = "", ""
                self.session_present = flags.session_present
                self.max_packet_bytes = getattr(
                    properties, "MaximumPacketSize", self.max_packet_bytes
                )
                granted = getattr(properties, "ReceiveMaximum", IN_FLIGHT)
                self._granted = max(1, min(granted, IN_FLIGHT))
                if not getattr(properties, "RetainAvailable", 1):
                    self._connack = "the broker keeps no retained messages; a fleet needs them"
                # Private to paho; a broker that comes back in a test fails without it.
                client._reconnect_on_failure = not self._connack
                self.connections += 1
            self._answered.notify_all()
            again = list(self._subscriptions)
        if not reason.is_failure and client is self._client:
            for subscription in again:
                self._subscribe(subscription)

    def _on_disconnect(
        self,
        client: paho.Client,
        _userdata: object,
        _flags: paho.DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        with self._answered:
            if self._connack is None:  # how brokers without MQTT 5 may answer it
                self._wrong_version = True
                self._connack = (
                    "the broker closed the connection without accepting it; is this the right"
                    " port, and is TLS wanted there (mqtts)?"
                )
            # What it says of a broken connection is "Unspecified error".
            why = f" ({reason})" if reason != "Unspecified error" else ""
            trouble = client.last_error if isinstance(client, ToolClient) else ""
            self._lost = self._broke = trouble or self._lost or f"the broker is away{why}"
            self._answered.notify_all()

    def _on_publish(
        self,
        _client: paho.Client,
        _userdata: object,
        packet_id: int,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        with self._answered:
            self._acknowledged[packet_id] = str(reason) if reason.is_failure else ""
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
        refused = [str(reason) for reason in reasons if reason.is_failure]
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
            return  # no topic of MQTT; nothing that was asked for
        received = Received(topic, bytes(message.payload), message.retain, message.mid)
        with self._lock:
            for subscription in self._subscriptions:
                if subscription.wants(received.topic):
                    subscription.put(received)
