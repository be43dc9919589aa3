"""NRI's connection multiplexer (containerd/nri, pkg/net/multiplex).

The unix socket carries frames: u32 connection id, u32 length, big endian, then that many
bytes. A peer may split a ttRPC message over frames anywhere, so frames are handed on
piece by piece as bytes arrive and nothing is buffered here but a cut header.

Sending has a rule of its own. The peer reads each connection through a buffered reader
of 4,096 bytes and fails when *one frame* is longer than what it asks for: a ttRPC header
and its body must be separate frames. And its queue is 256 frames for a connection, so a
body is not chopped either: one frame each.
"""

import struct
from collections.abc import Iterator

from edge_agent.errors import ProtocolError

PLUGIN_SERVICE, RUNTIME_SERVICE = 1, 2
"""Connection ids: requests of the runtime, requests of the plugin."""

MAX_FRAME_BYTES = (4 << 20) + 10  # a whole ttRPC message: upstream's maxPayloadSize

_HEADER = struct.Struct(">II")
HEADER_BYTES = _HEADER.size


def frame_header(connection: int, length: int) -> bytes:
    """The header before a frame of `length` bytes."""
    return _HEADER.pack(connection, length)


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
        if self._cut or len(data) - at < HEADER_BYTES:
            stop = at + HEADER_BYTES - len(self._cut)
            self._cut += data[at:stop]
            if len(self._cut) < HEADER_BYTES:
                return len(data)
            connection, length = _HEADER.unpack(self._cut)
            self._cut = b""
        else:  # whole: the usual case
            stop = at + HEADER_BYTES
            connection, length = _HEADER.unpack_from(data, at)
        if connection not in (PLUGIN_SERVICE, RUNTIME_SERVICE):
            raise ProtocolError(f"mux: frame for connection {connection}; NRI has only 1 and 2")
        if length > MAX_FRAME_BYTES:
            raise ProtocolError(f"mux: frame of {length} bytes; at most {MAX_FRAME_BYTES}")
        self._connection, self._left = connection, length
        return stop
