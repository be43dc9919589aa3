"""paho's client with bounds: which packets a broker may send, how large, how many, how fast.

By itself paho takes packets of 256 MB, unasked ones among them. The methods overridden here
are private to it; tests with hostile brokers fail if it renames them.
"""

import math
import socket
from collections.abc import Callable

from paho.mqtt import client as paho
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes

from edge_agent.fleet_protocol.limits import MAX_MESSAGE_BYTES
from edge_agent.mqtt.tls import explain, plain
from edge_agent.pacing import TokenBucket

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
