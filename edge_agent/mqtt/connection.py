"""One MQTT connection through paho: opened, used and closed by one thread, then forgotten.

paho's own thread, queue, reconnecting and resending stay unused: a new client is made for
each connection, with a clean start, because everything that must survive a connection is
in the outbox. The broker is not trusted: what it may send a client that subscribes to
nothing is a short list of small packets, and anything else ends the connection.
"""

import ssl
from collections.abc import Callable

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_agent.config import Broker, MqttConfig
from edge_agent.errors import LinkError
from edge_agent.mqtt.tls import explain, tls_context

VERSIONS = (MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311)  # in the order to try
_NAMES = dict(zip(VERSIONS, ("5", "3.1.1"), strict=True))

# For TCP and for TLS, each: a broker that needs longer is as good as away.
CONNECT_TIMEOUT_S = 5.0
# Answers to what this client sends are a few bytes; properties and reasons may be longer.
MAX_INCOMING_BYTES = 16 * 1024
# Packets beyond the acknowledgements owed: CONNACK, PINGRESP, DISCONNECT and some doubt.
UNSOLICITED_PACKETS = 32
# A broker that takes less than this at once could not take a state document.
MIN_PACKET_BYTES = 8 * 1024
# Packet identifiers have 16 bits, and this is what a broker grants that says nothing.
RECEIVE_MAXIMUM = 65_535
MAX_PACKET_BYTES = 256 * 1024 * 1024

# A ping is then sent at most a quarter late; brokers wait for half a keep-alive more.
TENDS_PER_KEEPALIVE = 4

_HINTS = {
    "Bad user name or password": ": check username and password_file",
    "Not authorized": ": check username and password_file, and the broker's access list",
    "Session taken over": ": another client uses this client_id",
}

_EXPECTED = {
    packet_type << 4
    for packet_type in (
        PacketTypes.CONNACK,
        PacketTypes.PUBACK,
        PacketTypes.PINGRESP,
        PacketTypes.DISCONNECT,
    )
}


class _GuardedClient(paho.Client):
    """paho's client, which by itself takes packets of 256 MB, unasked ones among them.

    Both methods are private to paho; tests with hostile brokers fail if it renames them.
    """

    trouble = ""
    credit = UNSOLICITED_PACKETS

    def _sock_recv(self, bufsize: int) -> bytes:
        if bufsize > MAX_INCOMING_BYTES:
            self.trouble = f"it announces a packet of {bufsize} bytes"
            raise ConnectionError(self.trouble)
        try:
            return super()._sock_recv(bufsize)
        except (BlockingIOError, ConnectionResetError):
            raise  # nothing to do; closed, which is told elsewhere
        except OSError as error:
            self.trouble = explain(error)
            raise

    def _packet_handle(self) -> MQTTErrorCode:
        command = self._in_packet["command"] & 0xF0
        self.credit -= 1
        if command not in _EXPECTED:
            self.trouble = f"it sends a packet of type {command >> 4}, which was not asked for"
        elif self.credit < 0:
            self.trouble = "it floods this client with packets"
        else:
            return super()._packet_handle()
        return MQTTErrorCode.MQTT_ERR_PROTOCOL


class Connection:
    """One connection to `broker`; every method may raise LinkError, after which only `close`."""

    def __init__(
        self,
        broker: Broker,
        config: MqttConfig,
        version: MQTTProtocolVersion,
        will: tuple[str, bytes],
    ) -> None:
        self.version = version
        self.accepted = False  # the broker's CONNACK has come
        self.wrong_version = False  # the broker may be one that speaks 3.1.1 only
        self.receive_maximum = RECEIVE_MAXIMUM
        self.max_packet_bytes = MAX_PACKET_BYTES
        self.tend_due = 0.0  # monotonic
        self.protocol = _NAMES[version]
        self.url = broker.url
        self._answers: list[tuple[int, str]] = []
        self._broker = broker
        self._config = config
        self._will = will
        self._client: _GuardedClient | None = None
        self._lost = ""

    def open(self) -> None:
        """Connect TCP and TLS and send CONNECT: the only step that waits, for two time-outs.

        A host with several addresses is tried on each of them.
        """
        client = self._client = self._make_client()
        properties = None
        if self.version == MQTTProtocolVersion.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.MaximumPacketSize = MAX_INCOMING_BYTES
        try:
            client.connect(
                self._broker.host,
                self._broker.port,
                keepalive=self._config.keepalive_s,
                properties=properties,
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

    def ready(self, readable: bool, writable: bool) -> None:
        """Read and write what the socket is ready for."""
        client = self._opened()
        if readable:
            self._do(client.loop_read)
            # What TLS has decrypted already makes no socket readable.
            while isinstance(sock := client.socket(), ssl.SSLSocket) and sock.pending():
                self._do(client.loop_read)
        if writable:
            self._do(client.loop_write)

    def take_answers(self) -> list[tuple[int, str]]:
        """What the broker acknowledged since: packet ids, each with "" or a refusal's reason."""
        answers, self._answers = self._answers, []
        return answers

    def tend(self, now: float) -> None:
        """Send a ping when one is due, give up when its answer is; no more often than needed."""
        if now < self.tend_due:
            return
        client = self._opened()
        # A broker may shorten the keep-alive, down to zero (none).
        self.tend_due = now + max(1.0, client.keepalive / TENDS_PER_KEEPALIVE)
        client.credit = min(client.credit + 1, UNSOLICITED_PACKETS)
        self._do(client.loop_misc)

    def publish(self, topic: str, payload: bytes, retain: bool) -> int:
        """Send at QoS 1 and return the packet id that an answer will name."""
        client = self._opened()
        client.credit += 1
        info = client.publish(topic, payload, qos=1, retain=retain)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise self._error(self._lost or f"not published: {info.rc.name}")
        return info.mid

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

    def _make_client(self) -> _GuardedClient:
        client = _GuardedClient(
            CallbackAPIVersion.VERSION2,
            client_id=self._config.client_id,
            clean_session=None if self.version == MQTTProtocolVersion.MQTTv5 else True,
            protocol=self.version,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        topic, payload = self._will
        client.will_set(topic, payload, qos=1, retain=True)
        if self._config.username is not None:
            client.username_pw_set(self._config.username, self._password())
        if self._broker.tls:
            client.tls_set_context(tls_context(self._config))
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        return client

    def _password(self) -> str | None:
        path = self._config.password_file
        if path is None:
            return None
        try:
            return path.read_text("utf-8").rstrip("\r\n")
        except (OSError, ValueError) as error:
            raise LinkError(f"password_file {path}: {error}") from error

    def _on_connect(
        self,
        _client: paho.Client,
        _userdata: object,
        _flags: paho.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self.receive_maximum = max(1, getattr(properties, "ReceiveMaximum", RECEIVE_MAXIMUM))
        self.max_packet_bytes = getattr(properties, "MaximumPacketSize", MAX_PACKET_BYTES)
        if reason.is_failure:
            self.wrong_version = reason == "Unsupported protocol version"
            self._lost = f"the broker refuses the connection: {reason}{_HINTS.get(str(reason), '')}"
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
        trouble = client.trouble if isinstance(client, _GuardedClient) else ""
        if not self.accepted:
            self.wrong_version = True  # how brokers without MQTT 5 may answer it
        if trouble:
            self._lost = f"the broker is left: {trouble}"
        elif reason == "Protocol error":
            self._lost = "the broker is left: its answer is not MQTT"
        elif flags.is_disconnect_packet_from_server:
            self._lost = f"the broker ended the connection: {reason}{_HINTS.get(str(reason), '')}"
        elif reason == "Keep alive timeout":
            self._lost = "the broker stopped answering"
        elif self.accepted:
            self._lost = (
                "the broker closed the connection without a reason; if that repeats, another"
                " client uses this client_id, or the broker's access list is against it"
            )
        else:
            self._lost = (
                "the broker closed the connection without accepting it; is this the right"
                " port, and is TLS wanted there (mqtts)?"
            )

    def _on_publish(
        self,
        _client: paho.Client,
        _userdata: object,
        packet_id: int,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._answers.append((packet_id, str(reason) if reason.is_failure else ""))

    def _opened(self) -> _GuardedClient:
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
