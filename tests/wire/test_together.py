"""Mux and ttRPC as they meet on a socket, and against upstream's way to read and write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import wire
from edge_agent.sim import upstream
from edge_agent.wire import PLUGIN_SERVICE, RUNTIME_SERVICE, MessageReader, MuxReader
from tests.support.pieces import cut, cuts

SIZES = st.one_of(
    st.integers(0, 200),
    st.sampled_from([4085, 4086, 4087, 4095, 4096, 4097, 8191, 8192, 8193, 20000]),
)


class Wire:
    """Both readers, connected as a session does it."""

    def __init__(self) -> None:
        self._mux = MuxReader()
        self._readers = {
            PLUGIN_SERVICE: MessageReader(wire.SERVER),
            RUNTIME_SERVICE: MessageReader(wire.CLIENT),
        }

    def feed(self, data: memoryview) -> list[tuple[int, bytes]]:
        return [
            (connection, message.body)
            for connection, piece in self._mux.feed(data)
            for message in self._readers[connection].feed(piece)
        ]


def body(number: int, size: int) -> bytes:
    """Distinct bytes of a size, so that no two messages look alike."""
    return (b"%d:" % number * (size + 1))[:size]


@given(
    st.lists(st.tuples(st.sampled_from([PLUGIN_SERVICE, RUNTIME_SERVICE]), SIZES), max_size=6),
    cuts(),
    st.lists(st.integers(1, 5000), min_size=1, max_size=5),
)
def test_messages_arrive_however_they_are_framed_interleaved_and_cut(
    messages: list[tuple[int, int]], at: list[int], frame_sizes: list[int]
) -> None:
    sent: dict[int, list[bytes]] = {PLUGIN_SERVICE: [], RUNTIME_SERVICE: []}
    bytes_of = {PLUGIN_SERVICE: b"", RUNTIME_SERVICE: b""}
    for number, (connection, size) in enumerate(messages):
        kind = wire.REQUEST if connection == PLUGIN_SERVICE else wire.RESPONSE
        content = body(number, size)
        sent[connection].append(content)
        bytes_of[connection] += upstream.header(size, 2 * number + 1, kind) + content
    stream = b""
    turn = 0
    while any(bytes_of.values()):  # frames of odd sizes, in turn, on both connections
        for connection, left in bytes_of.items():
            size = frame_sizes[turn % len(frame_sizes)]
            turn += 1
            if left:
                stream += upstream.frame(connection, left[:size])
                bytes_of[connection] = left[size:]
    reader = Wire()
    found = [one for data in cut(stream, at) for one in reader.feed(data)]
    for connection, bodies in sent.items():
        assert [content for to, content in found if to == connection] == bodies


@given(st.lists(SIZES, max_size=6), cuts())
def test_what_upstream_writes_is_understood(sizes: list[int], at: list[int]) -> None:
    bodies = [body(number, size) for number, size in enumerate(sizes)]
    stream = b"".join(
        upstream.write(PLUGIN_SERVICE, 2 * number + 1, wire.REQUEST, content)
        for number, content in enumerate(bodies)
    )
    reader = Wire()
    found = [content for data in cut(stream, at) for _, content in reader.feed(data)]
    assert found == bodies


@given(st.lists(SIZES, max_size=6))
def test_what_is_sent_suits_upstreams_reader(sizes: list[int]) -> None:
    reader = upstream.Reader()
    for number, size in enumerate(sizes):
        content = body(number, size)
        frames = wire.message(PLUGIN_SERVICE, 2 * number + 1, wire.RESPONSE, content)
        sent = upstream.Message(2 * number + 1, wire.RESPONSE, 0, content)
        assert reader.feed(b"".join(frames)) == [(PLUGIN_SERVICE, sent)]


@pytest.mark.parametrize("size", [1, 4087, 4096, 1 << 20, wire.MAX_MESSAGE_BYTES])
def test_a_message_is_two_frames_of_which_the_first_is_its_header(size: int) -> None:
    sent = b"".join(wire.message(PLUGIN_SERVICE, 1, wire.RESPONSE, bytes(size)))
    assert sent == upstream.frame(1, upstream.header(size, 1, wire.RESPONSE)) + upstream.frame(
        1, bytes(size)
    )


def test_an_empty_message_is_one_frame() -> None:
    sent = b"".join(wire.message(PLUGIN_SERVICE, 1, wire.RESPONSE, b""))
    assert sent == upstream.frame(1, upstream.header(0, 1, wire.RESPONSE))


def test_header_and_body_in_one_large_frame_is_what_upstream_fails_on() -> None:
    whole = upstream.header(4087, 1, wire.RESPONSE) + bytes(4087)
    with pytest.raises(upstream.UpstreamFails, match="cannot allocate memory"):
        upstream.Reader().feed(upstream.frame(PLUGIN_SERVICE, whole))


def test_upstreams_reader_takes_header_and_body_in_one_small_frame() -> None:
    whole = upstream.header(4086, 1, wire.RESPONSE) + bytes(4086)
    [(_, message)] = upstream.Reader().feed(upstream.frame(PLUGIN_SERVICE, whole))
    assert len(message.body) == 4086
