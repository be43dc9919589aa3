"""How upstream's Go side reads and writes the socket, with its weak points.

The agent has its own mux and ttRPC (edge_agent/wire); the simulated runtime does not use
them to read, so that a misunderstanding there cannot hide. What upstream does is told in
containerd/nri, pkg/net/multiplex/mux.go, and containerd/ttrpc, channel.go:

- each connection is read through a buffered reader of 4,096 bytes, whose `Read` takes one
  whole frame or fails with "cannot allocate memory" if the frame exceeds what was asked;
- a message is written through a buffered writer of 4,096 bytes, so a frame begins
  anywhere in a message.
"""

import struct
from collections.abc import Generator
from typing import NamedTuple

PLUGIN, RUNTIME = 1, 2  # mux connections: where the plugin serves, where the runtime does
REQUEST, RESPONSE = 1, 2  # ttRPC message types

BUFFER_BYTES = 4096  # Go's bufio, both ways
MAX_MESSAGE_BYTES = 4 << 20

_FRAME = struct.Struct(">II")
_MESSAGE = struct.Struct(">IIBB")


class UpstreamFails(Exception):
    """Upstream would have closed this plugin's connection here."""


class Message(NamedTuple):
    """A ttRPC message."""

    stream: int
    type: int
    flags: int
    body: bytes


class ConnectionReader:
    """One mux connection as ttRPC's channel reads it: frames in, messages out."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._reading = self._read()
        next(self._reading)

    def feed(self, frame: bytes) -> list[Message]:
        """UpstreamFails: the frame is longer than what upstream asked for."""
        self._reading.send(frame)
        messages, self._messages = self._messages, []
        return messages

    def _read(self) -> Generator[None, bytes, None]:
        buffered = b""
        while True:
            header, buffered = yield from _read_full(_MESSAGE.size, buffered)
            length, stream, kind, flags = _MESSAGE.unpack(header)
            if length > MAX_MESSAGE_BYTES:
                raise UpstreamFails(f"a ttRPC message of {length} bytes")
            body, buffered = yield from _read_full(length, buffered)
            self._messages.append(Message(stream, kind, flags, body))


def _read_full(size: int, buffered: bytes) -> Generator[None, bytes, tuple[bytes, bytes]]:
    """Go's io.ReadFull on its bufio.Reader: (the bytes wanted, what stays buffered)."""
    whole = b""
    while len(whole) < size:
        wanted = size - len(whole)
        if not buffered:
            room = max(wanted, BUFFER_BYTES)  # large reads bypass the buffer
            buffered = yield
            if len(buffered) > room:
                raise UpstreamFails(
                    f"a frame of {len(buffered)} bytes where {room} were asked for: "
                    "cannot allocate memory"
                )
        whole, buffered = whole + buffered[:wanted], buffered[wanted:]
    return whole, buffered


class Reader:
    """The socket's bytes, in any pieces -> (connection, message)."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._connections = {PLUGIN: ConnectionReader(), RUNTIME: ConnectionReader()}

    def feed(self, data: bytes) -> list[tuple[int, Message]]:
        """UpstreamFails: see `ConnectionReader`. Frames of unknown connections are dropped."""
        self._bytes += data
        found = []
        while len(self._bytes) >= _FRAME.size:
            connection, length = _FRAME.unpack_from(self._bytes)
            end = _FRAME.size + length
            if len(self._bytes) < end:
                break
            frame = bytes(self._bytes[_FRAME.size : end])
            del self._bytes[:end]
            reader = self._connections.get(connection)
            if reader is not None:
                found += [(connection, message) for message in reader.feed(frame)]
        return found


def frame(connection: int, payload: bytes) -> bytes:
    """One mux frame."""
    return _FRAME.pack(connection, len(payload)) + payload


def header(length: int, stream: int, kind: int, flags: int = 0) -> bytes:
    """A ttRPC header, true or not."""
    return _MESSAGE.pack(length, stream, kind, flags)


def write(connection: int, stream: int, kind: int, body: bytes) -> bytes:
    """A message as upstream writes it: what fits its buffer in one frame, then the rest."""
    whole = header(len(body), stream, kind) + body
    first, rest = whole[:BUFFER_BYTES], whole[BUFFER_BYTES:]
    return frame(connection, first) + (frame(connection, rest) if rest else b"")
