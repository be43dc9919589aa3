"""Bytes of NRI's socket: the multiplexer, ttRPC messages, fields of protobuf. Pure.

The multiplexer (containerd/nri, pkg/net/multiplex). The unix socket carries frames: u32 connection
id, u32 length, big endian, then that many bytes. A peer may split a ttRPC message over frames
anywhere, so frames are handed on piece by piece as bytes arrive and nothing is buffered here but
a cut header. Sending has a rule of its own: the peer reads each connection through a buffered
reader of 4,096 bytes and fails when *one frame* is longer than what it asks for, so a ttRPC header
and its body must be separate frames; and its queue is 256 frames for a connection, so a body is
not chopped either: one frame each.

ttRPC messages of unary calls (containerd/ttrpc, PROTOCOL.md). A message is a header of 10 bytes,
u32 length, u32 stream id, u8 type, u8 flags, big endian, then a body. NRI has no streams: data
messages and open streams are refused.

Fields (protobuf, Encoding). A message of 4 MiB can hold two million empty ones: decoding it takes
seconds and hundreds of MB with protobuf's pure-Python backend, all of it on the thread that
answers runtimes. The length of a field is enough to step over it, and the steps are counted.
"""

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from edge_agent.errors import ProtocolError

PLUGIN_SERVICE, RUNTIME_SERVICE = 1, 2
"""Connection ids: requests of the runtime, requests of the plugin."""

MAX_FRAME_BYTES = (4 << 20) + 10  # a whole ttRPC message: upstream's maxPayloadSize

_FRAME_HEADER = struct.Struct(">II")
FRAME_HEADER_BYTES = _FRAME_HEADER.size


def frame_header(connection: int, length: int) -> bytes:
    """The header before a frame of `length` bytes."""
    return _FRAME_HEADER.pack(connection, length)


class MuxReader:
    """Splits the byte stream of one socket into pieces of its connections."""

    def __init__(self) -> None:
        self._cut = b""  # the beginning of a header
        self._connection = 0
        self._left = 0  # bytes of the present frame still to come

    def feed(self, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        """Yield (connection, piece); pieces alias `data`.

        ProtocolError: an unknown connection or an oversized frame. The stream is then
        out of step and must not be fed again.
        """
        at, end = 0, len(data)
        while at < end:
            if not self._left:
                at = self._header(data, at)
                continue
            piece = data[at : at + self._left]
            self._left -= len(piece)
            at += len(piece)
            yield self._connection, piece

    def _header(self, data: memoryview, at: int) -> int:
        if self._cut or len(data) - at < FRAME_HEADER_BYTES:
            stop = at + FRAME_HEADER_BYTES - len(self._cut)
            self._cut += data[at:stop]
            if len(self._cut) < FRAME_HEADER_BYTES:
                return len(data)
            connection, length = _FRAME_HEADER.unpack(self._cut)
            self._cut = b""
        else:  # whole: the usual case
            stop = at + FRAME_HEADER_BYTES
            connection, length = _FRAME_HEADER.unpack_from(data, at)
        if connection not in (PLUGIN_SERVICE, RUNTIME_SERVICE):
            raise ProtocolError(f"mux: frame for connection {connection}; NRI has only 1 and 2")
        if length > MAX_FRAME_BYTES:
            raise ProtocolError(f"mux: frame of {length} bytes; at most {MAX_FRAME_BYTES}")
        self._connection, self._left = connection, length
        return stop


REQUEST, RESPONSE, DATA = 1, 2, 3
REMOTE_CLOSED = 0x01  # of a request: no data follows, as with none of the flags

MAX_MESSAGE_BYTES = 4 << 20  # PROTOCOL.md, "The maximum data length is 4MB"
MAX_STREAM_ID = 0x7FFFFFFF  # ours: half of what fits; a client counts up by two

_HEADER = struct.Struct(">IIBB")
HEADER_BYTES = _HEADER.size

OK, INVALID_ARGUMENT, NOT_FOUND, ABORTED, UNIMPLEMENTED, INTERNAL = 0, 3, 5, 10, 12, 13
"""google.rpc.Code, as far as it is used."""


class Message(NamedTuple):
    """A whole message; the body is the message's own copy."""

    stream: int
    type: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Role:
    """Which messages may arrive on a connection."""

    expects: int
    name: str


SERVER = Role(REQUEST, "the plugin service")
CLIENT = Role(RESPONSE, "the runtime service")


class MessageReader:
    """Reassembles the messages of one mux connection, whatever the split."""

    def __init__(self, role: Role) -> None:
        self._role = role
        self._header = b""
        self._stream = self._type = 0
        self._body: bytearray | None = None  # None: within a header
        self._length = 0
        self._last_stream = 0

    def feed(self, data: memoryview) -> Iterator[Message]:
        """Yield messages as they become whole. ProtocolError: the peer broke the rules.

        A declared length is checked before any of it is kept, and memory grows only
        with bytes that really came.
        """
        at, end = 0, len(data)
        while at < end:
            if self._body is None:
                at = self._begin(data, at)
            body = self._body
            if body is None:
                return
            wanted = self._length - len(body)
            whole: bytes | None
            if not body and wanted <= end - at:  # whole at once: the usual case
                whole = bytes(data[at : at + wanted])
            else:
                body += data[at : at + wanted]
                whole = bytes(body) if len(body) == self._length else None
            at = min(at + wanted, end)
            if whole is None:
                return
            self._body = None
            yield Message(self._stream, self._type, whole)

    def _begin(self, data: memoryview, at: int) -> int:
        """Take a header, or what is there of it; returns where the body begins."""
        if self._header or len(data) - at < HEADER_BYTES:
            stop = at + HEADER_BYTES - len(self._header)
            self._header += data[at:stop]
            if len(self._header) < HEADER_BYTES:
                return len(data)
            length, stream, kind, flags = _HEADER.unpack(self._header)
            self._header = b""
        else:  # whole: the usual case
            stop = at + HEADER_BYTES
            length, stream, kind, flags = _HEADER.unpack_from(data, at)
        if length > MAX_MESSAGE_BYTES:
            raise self._error(f"message of {length} bytes; at most {MAX_MESSAGE_BYTES}")
        if kind != self._role.expects:
            raise self._error(f"message type {kind}, expected {self._role.expects}")
        if flags & ~REMOTE_CLOSED or (flags and kind == RESPONSE):
            raise self._error(f"flags 0x{flags:02x}; NRI has unary calls only")
        if stream % 2 == 0 or stream > MAX_STREAM_ID:
            raise self._error(f"stream id {stream}; a client's are odd and positive")
        if kind == REQUEST:
            if stream <= self._last_stream:
                raise self._error(
                    f"stream id {stream} after {self._last_stream}; they must increase"
                )
            self._last_stream = stream
        self._stream, self._type, self._length = stream, kind, length
        self._body = bytearray()
        return stop

    def _error(self, text: str) -> ProtocolError:
        return ProtocolError(f"ttRPC on {self._role.name}: {text}")


def message(connection: int, stream: int, kind: int, body: bytes) -> tuple[bytes, ...]:
    """A message as mux frames, header and body apart (see MuxReader), ready to be sent."""
    head = frame_header(connection, HEADER_BYTES) + _HEADER.pack(len(body), stream, kind, 0)
    if not body:
        return (head,)
    return (head + frame_header(connection, len(body)), body)


MAX_FIELDS = 8192  # ours: two for each container of a large node; some ms at most
_MAX_VARINT_BYTES = 10
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types; groups are not of proto3

Path = tuple[int, ...]
"""Field numbers from the outside to the inside."""


def field_paths(message: bytes, nested: Collection[Path]) -> tuple[set[Path], bool]:
    """The paths of all fields, also of those within the messages at `nested`; whether that
    is all: False with more than MAX_FIELDS fields. ValueError: this is no message.
    """
    found: set[Path] = set()
    left = MAX_FIELDS
    inside: list[tuple[Path, int, int]] = [((), 0, len(message))]
    while inside:
        outer, at, end = inside.pop()
        while at < end:
            if not left:
                return found, False
            left -= 1
            # Written out where one byte says it, as most do: two calls for each field otherwise.
            if (tag := message[at]) < 0x80:
                at += 1
            else:
                tag, at = _varint(message, at)
            number, kind = tag >> 3, tag & 7
            if kind == _BYTES and at < end and message[at] < 0x80:
                begin = at + 1
                at = begin + message[at]
            else:
                begin, at = _value(message, at, kind)
            if at > end or not number:
                raise ValueError("a field that ends outside of its message, or has no number")
            path = (*outer, number)
            found.add(path)
            if path in nested:
                if kind != _BYTES:
                    raise ValueError("a message that is not written as one")
                inside.append((path, begin, at))
    return found, True


def nested_bytes(message: bytes, path: Path) -> bytes | None:
    """The first string or message at `path`, without what stands beside it; None: there is none,
    or it comes after MAX_FIELDS others. ValueError: this is no message."""
    at, end = 0, len(message)
    left = MAX_FIELDS
    for number in path:
        while True:
            if at >= end or not left:
                return None
            left -= 1
            tag, at = _varint(message, at)
            begin, at = _value(message, at, tag & 7)
            if at > end:
                raise ValueError("a field that ends outside of its message")
            if tag >> 3 == number and tag & 7 == _BYTES:
                at, end = begin, at
                break
    return message[at:end]


def _value(message: bytes, at: int, kind: int) -> tuple[int, int]:
    """The position of a field's value, which may end beyond the message."""
    if kind == _BYTES:
        size, at = _varint(message, at)
        return at, at + size
    if kind == _VARINT:
        return at, _varint(message, at)[1]
    if kind not in (_FIXED64, _FIXED32):
        raise ValueError(f"a field of wire type {kind}")
    return at, at + (8 if kind == _FIXED64 else 4)


def _varint(message: bytes, at: int) -> tuple[int, int]:
    if at < len(message) and message[at] < 0x80:  # nearly all
        return message[at], at + 1
    value = 0
    for shift, byte in enumerate(message[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, at + shift + 1
    raise ValueError("a number that does not end")
