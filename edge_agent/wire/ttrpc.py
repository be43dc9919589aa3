"""ttRPC messages of unary calls (containerd/ttrpc, PROTOCOL.md).

A message is a header of 10 bytes, u32 length, u32 stream id, u8 type, u8 flags, big
endian, then a body. NRI has no streams: data messages and open streams are refused.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from edge_agent.errors import ProtocolError
from edge_agent.wire.mux import frame_header

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
    """What may arrive on a connection."""

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
    """A message as mux frames, header and body apart (see wire.mux), ready to be sent."""
    head = frame_header(connection, HEADER_BYTES) + _HEADER.pack(len(body), stream, kind, 0)
    if not body:
        return (head,)
    return (head + frame_header(connection, len(body)), body)
