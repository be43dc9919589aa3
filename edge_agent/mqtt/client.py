"""paho's client as the agent and the operator's tools use it: bounded, with TLS, in plain words.

By itself paho takes packets of 256 MB, unasked ones among them. Here is bounded which packets a
broker may send, how large, how many, how fast. Names that are private to paho stand here and in
operator/tool_client alone; tests with hostile brokers fail if it renames them. Errors say why a
connection ended or never began, in an operator's words.
"""

import math
import socket
import ssl
from collections.abc import Callable, Iterable

from paho.mqtt import client as paho
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_agent.config import MqttConfig
from edge_agent.errors import LinkError
from edge_agent.fleet_protocol.topics import MAX_MESSAGE_BYTES
from edge_agent.pacing import TokenBucket

_HINTS = {
    "Bad user name or password": ": check username and password_file",
    "Not authorized": ": check username and password_file, and the broker's access list",
    "Client identifier not valid": ": every broker takes 1 to 23 letters and digits as client_id",
    "Session taken over": ": another client uses this client_id",
}


class _NamedContext(ssl.SSLContext):
    """A context that expects `server_name` in the certificate, whatever the host's name."""

    server_name: str | None = None

    # The only way to tell paho: it hands over the host that it connects to.
    def wrap_socket(  # type: ignore[override]
        self,
        sock: socket.socket,
        server_hostname: str | None = None,
        do_handshake_on_connect: bool = True,
    ) -> ssl.SSLSocket:
        name = self.server_name or server_hostname
        return super().wrap_socket(
            sock,
            server_hostname=plain(name) if name is not None else None,
            do_handshake_on_connect=do_handshake_on_connect,
        )


def plain(host: str) -> str | bytes:
    """A host's name for Python's sockets. Of a str they would look at each letter, also where
    all are ASCII, with tables of 0.5 MB."""
    return host.encode() if host.isascii() else host


def tls_context(config: MqttConfig) -> ssl.SSLContext:
    """TLS 1.2 or later with the broker's certificate and name checked. Raises LinkError.

    Made for each connection, so that renewed files are taken up.
    """
    context = _NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.server_name = config.tls_server_name
    if config.ca_file is None:
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(config.ca_file)
        except OSError as error:
            raise LinkError(f"ca_file {config.ca_file}: {explain(error)}") from error
    if config.cert_file is not None:
        try:
            # Without a password here OpenSSL would ask for one on the terminal.
            context.load_cert_chain(config.cert_file, config.key_file, password="")
        except (OSError, ValueError) as error:
            raise LinkError(
                f"cert_file {config.cert_file} with key_file {config.key_file}:"
                f" {explain(error)}; PEM files without a password are needed"
            ) from error
    return context


def _password(config: MqttConfig) -> str | None:
    path = config.password_file
    if path is None:
        return None
    try:
        return path.read_text("utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise LinkError(f"password_file {path}: {error}") from error


def explain(error: Exception) -> str:
    """What happened, in an operator's words, and what to do where that is known."""
    match error:
        case ssl.SSLCertVerificationError():
            return (
                f"its certificate is refused: {error.verify_message}; ca_file must hold the"
                " authority that signed it, and url or tls_server_name its name"
            )
        case ssl.SSLError():
            return f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"
        case socket.gaierror():
            return f"the host's name has no address: {error.strerror}"
        case ConnectionRefusedError():
            return "connection refused: nothing listens on that port"
        case TimeoutError():
            return "no answer in time"
        case OSError():
            return error.strerror or str(error)
        case _:
            return str(error)


def refused(reason: str) -> str:
    """The broker's CONNACK says no, with MQTT's name for the reason."""
    return f"the broker refuses the connection: {reason}{_HINTS.get(reason, '')}"


def left(problem: str) -> str:
    """The agent ended the connection: the broker broke the protocol or a limit."""
    return f"disconnected from the broker: {problem}"


def ended(reason: str, *, accepted: bool, said: bool) -> str:
    """The connection is gone. `said`: the broker gave the `reason`, else paho has found it."""
    if reason == "Protocol error" and not said:
        return left("its answer is not MQTT")
    if said:
        return f"the broker ended the connection: {reason}{_HINTS.get(reason, '')}"
    if reason == "Keep alive timeout":
        return "the broker stopped answering"
    if accepted:
        return (
            "the broker closed the connection without a reason; if that repeats, another"
            " client uses this client_id, or the broker's access list is against it"
        )
    return (
        "the broker closed the connection without accepting it; is this the right"
        " port, and is TLS wanted there (mqtts)?"
    )


# Answers to what this client sends are a few bytes; properties and reasons may be longer.
MAX_ANSWER_BYTES = 16 * 1024
# The protocol's largest message, its topic and properties. MQTT 5 brokers are told.
MAX_PUBLISH_BYTES = MAX_MESSAGE_BYTES + 4 * 1024
# Packets beyond the acknowledgements owed: CONNACK, PINGRESP, DISCONNECT and some doubt.
UNSOLICITED_PACKETS = 32
# Messages in one go, and then in a second: a window of an update's parts passes at once, and
# 12 MB in a second are more than a board could use. A broker that sends more waits.
MESSAGE_BURST, MESSAGES_PER_S = 256, 200
# Acknowledgements that a broker has not read yet, after which no more is read from it.
OWED_PACKETS = 64
# Of a message that is too large, what is kept at a time to find its topic in.
SKIP_BYTES = 4 * 1024

_ANSWERS = {
    PacketTypes.CONNACK,
    PacketTypes.PUBACK,
    PacketTypes.SUBACK,
    PacketTypes.UNSUBACK,
    PacketTypes.PINGRESP,
    PacketTypes.DISCONNECT,
}
_QOS_BITS, _QOS_1 = 0b0110, 0b0010


class BoundedClient(paho.Client):
    """After anything unexpected `last_error` says what it was, and the connection is over."""

    max_answer_bytes = MAX_ANSWER_BYTES
    max_publish_bytes = MAX_PUBLISH_BYTES
    last_error = ""
    credit = UNSOLICITED_PACKETS
    # Told of a message that was skipped; returns "" or why the broker is to be left.
    too_large: Callable[[str, int], str]

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self.messages = TokenBucket(MESSAGE_BURST, MESSAGES_PER_S)

    def take_credentials(self, config: MqttConfig, *, tls: bool) -> None:
        """Name, password and certificate, as the configuration has them. LinkError."""
        if config.username is not None:
            self.username_pw_set(config.username, _password(config))
        if tls:
            self.tls_set_context(tls_context(config))

    def set_keepalive(self, seconds: int) -> None:
        """Ping the broker so often from now on, while connected."""
        self._keepalive = seconds

    def set_reconnecting(self, wanted: bool) -> None:
        """Whether paho's loop connects again by itself after the end of a connection."""
        self._reconnect_on_failure = wanted

    def forget_message(self, packet_id: int) -> None:
        """Do not send this message with the next connection, if it is not acknowledged yet."""
        with self._out_message_mutex:
            self._out_messages.pop(packet_id, None)

    def forget_messages(self) -> None:
        """The same for all: paho's loop goes on until its queue is empty, connected or not."""
        with self._out_message_mutex:
            self._out_messages.clear()

    def _create_socket_connection(self) -> socket.socket:
        address = (plain(self._host), self._port)
        return socket.create_connection(address, self._connect_timeout)  # type: ignore[arg-type]

    def read_due(self, now: float) -> float:
        """From when on packets may be read (monotonic); infinity: once some were written."""
        return math.inf if len(self._out_packet) > OWED_PACKETS else self.messages.due(now)

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._in_packet["have_remaining"]:
            bufsize = self._bounded(bufsize)
        try:
            return super()._sock_recv(bufsize)
        except (BlockingIOError, ConnectionResetError):
            raise  # nothing to do; closed, which is reported elsewhere
        except OSError as error:
            self.last_error = explain(error)
            raise

    def _bounded(self, bufsize: int) -> int:
        """How much of the packet's rest to read now. ConnectionError: nothing, it is too large."""
        size = self._in_packet["remaining_length"]
        if self._kind() != PacketTypes.PUBLISH:
            if size <= self.max_answer_bytes:
                return bufsize
        elif size <= self.max_publish_bytes:
            return bufsize
        elif self._protocol != MQTTProtocolVersion.MQTTv5:
            # It has not been told of the bound, and what it keeps would come again and again.
            del self._in_packet["packet"][SKIP_BYTES:]
            return min(bufsize, SKIP_BYTES)
        self.last_error = f"it announces a packet of {size} bytes"
        raise ConnectionError(self.last_error)

    def _packet_handle(self) -> MQTTErrorCode:
        kind = self._kind()
        if kind == PacketTypes.PUBLISH:
            return self._message()
        self.credit -= 1
        if kind not in _ANSWERS:
            self.last_error = f"it sends a packet of type {kind}, which was not asked for"
        elif self.credit < 0:
            self.last_error = "it floods this client with packets"
        else:
            return super()._packet_handle()
        return MQTTErrorCode.MQTT_ERR_PROTOCOL

    def _message(self) -> MQTTErrorCode:
        self.messages.spend()
        qos = self._in_packet["command"] & _QOS_BITS
        if qos > _QOS_1:
            self.last_error = "it sends a message at a quality of service that was not asked for"
        elif self._in_packet["remaining_length"] > self.max_publish_bytes:
            return self._skipped(qos == _QOS_1)
        else:
            return super()._packet_handle()
        return MQTTErrorCode.MQTT_ERR_PROTOCOL

    def _skipped(self, acknowledge: bool) -> MQTTErrorCode:
        """A message that is too large has gone by; its first bytes are still there."""
        begun = self._in_packet["packet"]
        end = 2 + int.from_bytes(begun[:2], "big")
        if end + 2 > SKIP_BYTES:
            self.last_error = "it sends a topic of an impossible length"
        else:
            topic = bytes(begun[2:end]).decode("utf-8", "replace")
            self.last_error = self.too_large(topic, self._in_packet["remaining_length"])
        if self.last_error:
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        if not acknowledge:
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        return self._send_puback(int.from_bytes(begun[end : end + 2], "big"))

    def _kind(self) -> int:
        return int(self._in_packet["command"]) >> 4


def refusal(reason: ReasonCode) -> str:
    """The broker's name for why it refuses; empty: it took what was sent."""
    return str(reason) if reason.is_failure else ""


def publish_properties(version: MQTTProtocolVersion, **values: object) -> Properties | None:
    """The properties of a PUBLISH; those that are None are left out. MQTT 3.1.1 has none."""
    given = {name: value for name, value in values.items() if value is not None}
    if not given or version != MQTTProtocolVersion.MQTTv5:
        return None
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    for name, value in given.items():
        setattr(properties, name, value)
    return properties


def at_qos_1(
    version: MQTTProtocolVersion,
    filters: Iterable[str],
    retain_handling: int = SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE,
) -> list[tuple[str, SubscribeOptions]] | list[tuple[str, int]]:
    """What to subscribe to, in paho's form; MQTT 3.1.1 has no `retain_handling`."""
    if version != MQTTProtocolVersion.MQTTv5:
        return [(each, 1) for each in filters]
    options = SubscribeOptions(qos=1, retainHandling=retain_handling)
    return [(each, options) for each in filters]
