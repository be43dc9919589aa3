"""The operator's connection to the fleet's broker, through paho's own thread.

An operator's machine has no memory limit, and a person waits for the answer. So this differs from
the node's link: calls wait for the broker's answer, a lost connection is made again with its
subscriptions, and unacknowledged messages are sent again. Errors are LinkError.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Self

from paho.mqtt import client as paho
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_agent.config import Broker, MqttConfig
from edge_agent.errors import LinkError
from edge_agent.mqtt.client import explain
from edge_agent.operator.tool_client import (
    MAX_PACKET_BYTES,
    Subscription,
    ToolClient,
    hint,
    tool_client,
)

VERSIONS = (MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311)  # in the order to try
CONNECT_TIMEOUT_S = 10.0  # TCP, TLS and CONNACK each
# A broker that is away for longer than this ends a command that waits for its answer.
ANSWER_TIMEOUT_S = 60.0
# What mosquitto and others let wait for acknowledgement in one direction, by default. A broker
# may grant less (MQTT 5, 3.2.2.3.3), and may disconnect who sends more (4.9).
IN_FLIGHT = 20
RECONNECT_MAX_S = 8


class BrokerConnection(ABC):
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
        self._client: ToolClient | None = None
        self._subscriptions: list[Subscription] = []
        self._lock = threading.Lock()
        self._answered = threading.Condition(self._lock)
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

    def _make(self, broker: Broker, version: MQTTProtocolVersion) -> ToolClient:
        client = tool_client(self._config, version, tls=broker.tls, clean=not self._keep_session_s)
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.reconnect_delay_set(1, RECONNECT_MAX_S)
        client.max_inflight_messages_set(IN_FLIGHT)  # `send` keeps to what the broker grants
        client.manual_ack_set(bool(self._keep_session_s))
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        return client

    def _close(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        client.disconnect()
        client.forget_messages()
        client.loop_stop()

    @property
    def config(self) -> MqttConfig:
        """For another connection to the same broker."""
        return self._config

    @property
    def trouble(self) -> str:
        """Why there is no connection at the moment; "" while there is one."""
        return self._lost

    # --- for the messages over it

    @abstractmethod
    def _subscribe(self, subscription: Subscription) -> None:
        """Send SUBSCRIBE for what is to be received; called again after each reconnection."""

    def _opened(self) -> ToolClient:
        if self._client is None:
            raise LinkError("the connection to the broker is closed")
        return self._client

    def _answer_by(self) -> float:
        """The end of the time for an answer that is asked for now, on the monotonic clock."""
        return time.monotonic() + ANSWER_TIMEOUT_S

    def _wait_for(self, answered: Callable[[], bool]) -> None:
        with self._answered:
            before = self.connections
            done = self._answered.wait_for(answered, ANSWER_TIMEOUT_S)
        self._check_answered(done, before)

    def _check_answered(self, done: bool, before: int) -> None:
        """LinkError unless `done`; `before` is the number of connections when the wait began."""
        with self._answered:
            why = self._lost or "the broker is connected, but does not answer"
            if not self._lost and self.connections != before:
                why = f"the broker is connected again, but does not answer; before: {self._broke}"
        if not done:
            raise LinkError(
                f"{self.url}: no answer from the broker for {ANSWER_TIMEOUT_S:.0f} s: {why};"
                " run the command again when the broker is back; it continues where it stopped"
            )

    def _on_connect(
        self,
        client: paho.Client,
        _userdata: object,
        flags: paho.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        assert isinstance(client, ToolClient)
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
                    self._connack = (
                        "the broker does not keep retained messages, which a fleet needs"
                    )
                client.set_reconnecting(not self._connack)
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
        assert isinstance(client, ToolClient)
        with self._answered:
            if self._connack is None:  # how brokers without MQTT 5 may answer it
                self._wrong_version = True
                self._connack = (
                    "the broker closed the connection without accepting it. Is this the right"
                    " port, and does it need TLS (mqtts)?"
                )
            # What it says of a broken connection is "Unspecified error".
            why = f" ({reason})" if reason != "Unspecified error" else ""
            self._lost = self._broke = (
                client.last_error or self._lost or f"no connection to the broker{why}"
            )
            self._answered.notify_all()
