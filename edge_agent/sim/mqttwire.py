"""MQTT packets as bytes and values, 3.1.1 and 5, as far as the small broker needs. Pure."""

from collections.abc import Iterator
from typing import NamedTuple

CONNECT, CONNACK, PUBLISH, PUBACK = 0x10, 0x20, 0x30, 0x40
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK = 0x80, 0x90, 0xA0, 0xB0
PINGREQ, PINGRESP, DISCONNECT = 0xC0, 0xD0, 0xE0

VERSION_3_1_1, VERSION_5 = 4, 5
# The fleet protocol's messages have 64 KiB; nothing here needs more.
MAX_PACKET_BYTES = 256 * 1024


class Malformed(Exception):
    """A packet that breaks MQTT's rules or this broker's limits: its client is dropped."""


class Packet(NamedTuple):
    """One control packet: its type in the high half of `kind`, flags apart."""

    kind: int
    flags: int
    body: bytes


class Message(NamedTuple):
    """What is published; `properties` as MQTT 5 encodes them, without their length."""

    topic: str
    payload: bytes
    retain: bool
    properties: bytes = b""


class Connect(NamedTuple):
    """The part of CONNECT that counts here."""

    version: int
    client_id: str
    will: Message | None
    clean: bool  # no session from before is wanted


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        if self._at + count > len(self._data):
            raise Malformed("a packet ends too early")
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")

    def field(self) -> bytes:
        """Bytes behind their length in two bytes."""
        return self.take(self.number(2))

    def text(self) -> str:
        try:
            return self.field().decode()
        except UnicodeDecodeError as error:
            raise Malformed("a text is not UTF-8") from error

    def properties(self, version: int) -> bytes:
        return self.take(self._variable()) if version == VERSION_5 else b""

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)

    @property
    def at_end(self) -> bool:
        return self._at == len(self._data)

    def _variable(self) -> int:
        value = 0
        for place in range(4):
            byte = self.number(1)
            value |= (byte & 0x7F) << (7 * place)
            if not byte & 0x80:
                return value
        raise Malformed("a length has more than four bytes")


def split(received: bytearray) -> Iterator[Packet]:
    """Take the whole packets off the front of `received`."""
    while len(received) >= 2:
        length = place = 0
        while True:
            if 1 + place >= len(received):
                return
            byte = received[1 + place]
            length |= (byte & 0x7F) << (7 * place)
            place += 1
            if not byte & 0x80:
                break
            if place == 4:
                raise Malformed("a length has more than four bytes")
        if length > MAX_PACKET_BYTES:
            raise Malformed(f"a packet of {length} bytes")
        end = 1 + place + length
        if len(received) < end:
            return
        first, body = received[0], bytes(received[1 + place : end])
        del received[:end]
        yield Packet(first & 0xF0, first & 0x0F, body)


def packet(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    """A packet as it goes over the wire."""
    length, left = bytearray(), len(body)
    while True:
        left, byte = left >> 7, left & 0x7F
        length.append(byte | (0x80 if left else 0))
        if not left:
            return bytes([kind | flags]) + length + body


def publish_packet(message: Message, version: int, *, retained: bool) -> bytes:
    """`message` at QoS 0 for a client of that version."""
    topic = message.topic.encode()
    properties = b""
    if version == VERSION_5:
        # With its length in front, which is written like a packet's.
        properties = packet(0, message.properties)[1:]
    body = len(topic).to_bytes(2, "big") + topic + properties + message.payload
    return packet(PUBLISH, body, flags=int(retained))


def read_connect(received: Packet) -> Connect:
    """Raises Malformed; a version that is not served has no answer here either."""
    reader = _Reader(received.body)
    name, version, flags = reader.text(), reader.number(1), reader.number(1)
    if name != "MQTT" or version not in (VERSION_3_1_1, VERSION_5):
        raise Malformed(f"{name} {version} is not served")
    reader.number(2)  # keep-alive: a client on the loopback that is gone is seen to be gone
    reader.properties(version)
    client_id = reader.text()
    will = None
    if flags & 0x04:
        reader.properties(version)  # a delay means nothing where a session has no end of its own
        will = Message(reader.text(), reader.field(), bool(flags & 0x20))
    return Connect(version, client_id, will, bool(flags & 0x02))


def read_publish(received: Packet, version: int) -> tuple[Message, bytes | None]:
    """The message, and at QoS 1 the packet id to acknowledge. Raises Malformed."""
    reader = _Reader(received.body)
    qos = received.flags >> 1 & 3
    if qos > 1:
        raise Malformed("QoS 2 is not served")
    topic = reader.text()
    if not topic or "+" in topic or "#" in topic:
        raise Malformed(f"nothing can be published to {topic!r}")
    packet_id = reader.take(2) if qos else None
    properties = reader.properties(version)
    return Message(topic, reader.rest(), bool(received.flags & 1), properties), packet_id


def read_filters(received: Packet, version: int, *, with_options: bool) -> tuple[bytes, list[str]]:
    """Packet id and filters of SUBSCRIBE (`with_options`) or UNSUBSCRIBE. Raises Malformed."""
    reader = _Reader(received.body)
    packet_id = reader.take(2)
    reader.properties(version)
    filters = []
    while not reader.at_end:
        filters.append(reader.text())
        if with_options:
            reader.number(1)
    if not filters:
        raise Malformed("no filter")
    return packet_id, filters


def matches(wanted: str, topic: str) -> bool:
    """Whether the filter `wanted`, with + and #, takes `topic`."""
    levels, filters = topic.split("/"), wanted.split("/")
    if topic.startswith("$") and filters[0] in ("+", "#"):
        return False
    for place, part in enumerate(filters):
        if part == "#":
            return True
        if place >= len(levels) or part not in ("+", levels[place]):
            return False
    return len(levels) == len(filters)
