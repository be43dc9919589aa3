"""One MQTT connection through paho: used and closed by one thread, then forgotten. A Connector
opens it on another.

paho's own thread, queue, reconnecting and resending stay unused: a new client is made for
each connection, because everything that must survive one is in the outbox. What the broker
keeps is wanted only where this node subscribes: then its session is kept (no clean start),
and what was published while the node was away arrives. What was sent before and not
acknowledged goes out as new messages, which at QoS 1 a broker cannot tell from resent ones.
"""

import ssl
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_agent import process
from edge_agent.config import Broker, MqttConfig
from edge_agent.errors import LinkError
from edge_agent.mqtt.client import (
    MAX_PUBLISH_BYTES,
    UNSOLICITED_PACKETS,
    BoundedClient,
    at_qos_1,
    ended,
    explain,
    left,
    publish_properties,
    refusal,
    refused,
)
from edge_agent.mqtt.inbound import Inbound, InboundMessage

VERSIONS = (MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311)  # in the order to try
_NAMES = dict(zip(VERSIONS, ("5", "3.1.1"), strict=True))

# For TCP and for TLS, each: a broker that needs longer is as good as away.
CONNECT_TIMEOUT_S = 5.0
# A broker that takes less than this at once could not take a state document.
MIN_PACKET_BYTES = 8 * 1024
# Packet identifiers have 16 bits, and this is what a broker grants that says nothing.
RECEIVE_MAXIMUM = 65_535
MAX_PACKET_BYTES = 256 * 1024 * 1024

# Messages that the broker may send before the first of them is acknowledged.
INCOMING_WINDOW = 8
# How long the broker keeps this node's session and what is published to it meanwhile.
SESSION_S = 7 * 86_400

# A ping is then sent at most a quarter late; brokers wait for half a keep-alive more.
TICKS_PER_KEEPALIVE = 4


class Answer(NamedTuple):
    """The broker's acknowledgement of a packet: for each of its topics "" or a reason."""

    packet_id: int
    refusals: Sequence[str]


class Connection:
    """One connection to `broker`; every method may raise LinkError, after which only `close`."""

    def __init__(
        self,
        broker: Broker,
        config: MqttConfig,
        version: MQTTProtocolVersion,
        client_id: str,
        will: tuple[str, bytes],
        inbound: Inbound | None,
    ) -> None:
        """`inbound` takes what the broker sends; None: nothing may come."""
        self.version = version
        self.accepted = False  # the broker's CONNACK has come
        self.session_kept = False  # it knows what was subscribed to before
        self.wrong_version = False  # the broker may be one that speaks 3.1.1 only
        self.version_refused = (
            False  # by a reason code; a mere close may come from a proxy without its broker
        )
        self.wrong_id = False  # it takes another client id only
        self.receive_maximum = RECEIVE_MAXIMUM
        self.max_packet_bytes = MAX_PACKET_BYTES
        self.tick_due = 0.0  # monotonic
        self.protocol = _NAMES[version]
        self.url = broker.url
        self._answers: list[Answer] = []
        self._inbound = inbound
        self._broker = broker
        self._config = config
        self._client_id = client_id
        self._will = will
        self._client: BoundedClient | None = None
        self._lost = ""

    def open(self) -> None:
        """Connect TCP and TLS and send CONNECT: the only step that waits, for two time-outs.

        A host with several addresses is tried on each of them.
        """
        client = self._client = self._make_client()
        options: dict[str, object] = {}
        if self.version == MQTTProtocolVersion.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.MaximumPacketSize = MAX_PUBLISH_BYTES
            properties.ReceiveMaximum = INCOMING_WINDOW
            if self._inbound is not None:
                properties.SessionExpiryInterval = SESSION_S
            options = {"clean_start": self._inbound is None, "properties": properties}
        try:
            client.connect(
                self._broker.host,
                self._broker.port,
                keepalive=self._config.keepalive_s,
                **options,  # type: ignore[arg-type]
            )
        except (OSError, ValueError) as error:
            closed = isinstance(error, ConnectionResetError | ssl.SSLEOFError)
            hint = "; does that port speak TLS?" if self._broker.tls and closed else ""
            raise self._error(explain(error) + hint) from error
        self._opened()

    def fileno(self) -> int:
        """For a selector."""
        sock = self._opened().socket()
        assert sock is not None  # `_opened` looked
        return sock.fileno()

    @property
    def wants_write(self) -> bool:
        """Bytes wait for the socket to take them."""
        return self._client is not None and self._client.want_write()

    def read_due(self, now: float) -> float:
        """From when on `ready` may read: not at once after a flood."""
        return self._opened().read_due(now)

    @property
    def has_read(self) -> bool:
        """Whether TLS holds decrypted bytes, which make no socket readable."""
        sock = self._opened().socket()
        return isinstance(sock, ssl.SSLSocket) and sock.pending() > 0

    def ready(self, readable: bool, writable: bool) -> None:
        """Read and write what the socket is ready for."""
        client = self._opened()
        if readable:
            self._do(client.loop_read)
        if writable:
            self._do(client.loop_write)

    def take_answers(self) -> list[Answer]:
        """The acknowledgements since the last call."""
        answers, self._answers = self._answers, []
        return answers

    def tick(self, now: float) -> None:
        """Send a ping when one is due, give up when its answer is; no more often than needed."""
        if now < self.tick_due:
            return
        client = self._opened()
        self.tick_due = now + max(1.0, client.keepalive / TICKS_PER_KEEPALIVE)
        client.credit = min(client.credit + 1, UNSOLICITED_PACKETS)
        self._do(client.loop_misc)

    def publish(
        self, topic: str, payload: bytes, retain: bool, correlation: bytes | None = None
    ) -> int:
        """Send at QoS 1 and return the packet id that an answer will name.

        MQTT 3.1.1 has no place for `correlation`, and never gave one.
        """
        client = self._opened()
        client.credit += 1
        properties = publish_properties(self.version, CorrelationData=correlation)
        info = client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        return self._sent(info.rc, info.mid, "published")

    def subscribe(self, topics: Sequence[str]) -> int:
        """Ask for `topics` at QoS 1; returns the packet id that the answer will name."""
        client = self._opened()
        client.credit += 1
        return self._sent(*client.subscribe(at_qos_1(self.version, topics)))

    def unsubscribe(self, topics: Sequence[str]) -> int:
        """Give `topics` up; returns the packet id that the answer will name."""
        client = self._opened()
        client.credit += 1
        return self._sent(*client.unsubscribe(list(topics)))

    def _sent(self, code: MQTTErrorCode, packet_id: int | None, what: str = "asked") -> int:
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS or packet_id is None:
            raise self._error(self._lost or f"not {what}: {code.name}")
        return packet_id

    def disconnect(self) -> None:
        """Say goodbye, so that the broker keeps the will to itself, and close."""
        try:
            self._opened().disconnect()
        except (LinkError, OSError):
            pass  # gone already: the broker will publish the will
        self.close()

    def close(self) -> None:
        """Drop the connection; the broker publishes the will unless `disconnect` was sent."""
        client, self._client = self._client, None
        sock = client.socket() if client is not None else None
        if sock is not None:
            sock.close()

    def _make_client(self) -> BoundedClient:
        client = BoundedClient(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            clean_session=(
                None if self.version == MQTTProtocolVersion.MQTTv5 else self._inbound is None
            ),
            protocol=self.version,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        topic, payload = self._will
        client.will_set(topic, payload, qos=1, retain=True)
        client.take_credentials(self._config, tls=self._broker.tls)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = lambda _c, _u, packet_id, reason, _p: self._answers.append(
            Answer(packet_id, [refusal(reason)])
        )
        client.on_subscribe = lambda _c, _u, packet_id, reasons, _p: self._answers.append(
            Answer(packet_id, [refusal(reason) for reason in reasons])
        )
        client.on_unsubscribe = lambda _c, _u, packet_id, _reasons, _p: self._answers.append(
            Answer(packet_id, ())
        )
        client.on_message = self._on_message
        client.too_large = self._too_large
        return client

    def _on_connect(
        self,
        client: paho.Client,
        _userdata: object,
        flags: paho.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self.session_kept = flags.session_present
        # A broker may ask for more pings, not for fewer: what forgets silent connections
        # between here and there (NAT, firewalls) was not asked.
        if not 0 < client.keepalive <= self._config.keepalive_s:
            self._opened().set_keepalive(self._config.keepalive_s)
        self.tick_due = 0.0  # what was due next was reckoned with our own
        self.receive_maximum = max(1, getattr(properties, "ReceiveMaximum", RECEIVE_MAXIMUM))
        self.max_packet_bytes = getattr(properties, "MaximumPacketSize", MAX_PACKET_BYTES)
        if reason.is_failure:
            self.wrong_version = reason == "Unsupported protocol version"
            self.version_refused = self.wrong_version
            self.wrong_id = reason == "Client identifier not valid"
            self._lost = refused(str(reason))
        elif self.max_packet_bytes < MIN_PACKET_BYTES:
            self._lost = (
                f"the broker takes {self.max_packet_bytes} bytes at once,"
                f" {MIN_PACKET_BYTES} are needed: raise its maximum packet size"
            )
        else:
            self.accepted = True

    def _on_disconnect(
        self,
        client: paho.Client,
        _userdata: object,
        flags: paho.DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if self._lost:
            return
        problem = client.last_error if isinstance(client, BoundedClient) else ""
        if not self.accepted:
            self.wrong_version = True  # how brokers without MQTT 5 may answer it
        said = flags.is_disconnect_packet_from_server
        self._lost = (
            left(problem) if problem else ended(str(reason), accepted=self.accepted, said=said)
        )

    def _on_message(
        self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage
    ) -> None:
        properties = message.properties
        arrived = InboundMessage(
            message.topic,
            bytes(message.payload),
            message.retain,
            getattr(properties, "ResponseTopic", None),
            getattr(properties, "CorrelationData", None),
        )
        if problem := self._judge(lambda inbound: inbound.arrived(arrived), message.topic):
            self._lost = self._lost or left(problem)

    def _too_large(self, topic: str, size: int) -> str:
        return self._judge(lambda inbound: inbound.too_large(topic, size), topic)

    def _judge(self, judge: Callable[[Inbound], str], topic: str) -> str:
        if not self.accepted:
            return f"it sends a message on {topic[:200]!r} before its CONNACK (MQTT 5, 3.2.0-1)"
        if self._inbound is None:
            return f"it sends a message on {topic[:200]!r}, which was not asked for"
        return judge(self._inbound)

    def _opened(self) -> BoundedClient:
        if self._client is None or self._client.socket() is None or self._lost:
            raise self._error(self._lost or "not connected")
        return self._client

    def _do(self, step: Callable[[], object]) -> None:
        """Run a step of paho's; whatever escapes it on malformed packets ends the connection."""
        try:
            step()
        except Exception as error:
            self._lost = self._lost or f"broken packet: {error!r}"
        self._opened()

    def _error(self, what: str) -> LinkError:
        return LinkError(f"{self._broker.url}: {what}")


class Connector:
    """Opens a connection on a thread of its own, which begins at once. After `finished` the
    connection belongs to the caller."""

    def __init__(
        self,
        connect: Callable[[], None],
        close: Callable[[], None],
        done: Callable[[], None],
        stack_bytes: int,
    ) -> None:
        """`connect` and `close` are the connection's; `done` is called on the new thread, at the
        end."""
        self._connect = connect
        self._close = close
        self._done = done
        self._error: Exception | None = None
        self._lock = threading.Lock()
        self._finished = self._abandoned = False
        process.start(self._run, name="mqtt-connect", stack_bytes=stack_bytes)

    @property
    def finished(self) -> bool:
        """There is a result."""
        return self._finished

    def result(self) -> None:
        """Once finished: raises what went wrong."""
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """The result is not wanted any more: unless it has finished, it closes what it opens."""
        with self._lock:
            self._abandoned = True

    def _run(self) -> None:
        try:
            self._connect()
        except Exception as error:
            self._error = error
        with self._lock:
            self._finished = True
            if self._abandoned:
                self._close()
        self._done()
