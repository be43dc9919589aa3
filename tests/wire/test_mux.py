"""The mux: any split gives the same pieces; nothing is believed that is not allowed."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import ProtocolError
from edge_agent.wire import HEADER_BYTES, MAX_FRAME_BYTES, MuxReader, frame_header
from tests.support.pieces import cut, cuts, memory_taken, refusal

FRAMES = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=300)), max_size=8)


def joined(frames: list[tuple[int, bytes]]) -> dict[int, bytes]:
    """What each connection carries."""
    found = {1: b"", 2: b""}
    for connection, payload in frames:
        found[connection] += payload
    return found


def read(reader: MuxReader, data: bytes | memoryview) -> list[tuple[int, bytes]]:
    return [(connection, bytes(piece)) for connection, piece in reader.feed(memoryview(data))]


def read_all(reader: MuxReader, pieces: Iterable[memoryview]) -> list[tuple[int, bytes]]:
    return [found for data in pieces for found in read(reader, data)]


@given(FRAMES, cuts())
def test_any_split_gives_each_connection_its_bytes_in_order(
    frames: list[tuple[int, bytes]], at: list[int]
) -> None:
    stream = b"".join(struct.pack(">II", to, len(payload)) + payload for to, payload in frames)
    reader = MuxReader()
    found = read_all(reader, cut(stream, at))
    assert joined(found) == joined(frames)
    assert all(piece for _, piece in found)


@given(FRAMES.filter(bool))
def test_pieces_alias_what_was_fed(frames: list[tuple[int, bytes]]) -> None:
    stream = bytearray()
    for to, payload in frames:
        stream += frame_header(to, len(payload)) + payload
    pieces = [piece for _, piece in MuxReader().feed(memoryview(stream))]
    assert all(piece.obj is stream for piece in pieces)


@pytest.mark.parametrize("connection", [0, 3, 4, 1 << 24, 0xFFFFFFFF])
@pytest.mark.parametrize("at", [[], [1], [4], [7], list(range(HEADER_BYTES))])
def test_an_unknown_connection_is_refused_with_its_number(connection: int, at: list[int]) -> None:
    reader = MuxReader()
    pieces = cut(frame_header(connection, 1), at)
    with pytest.raises(ProtocolError, match=rf"mux: frame for connection {connection}; .* 1 and 2"):
        read_all(reader, pieces)


@pytest.mark.parametrize("length", [MAX_FRAME_BYTES + 1, 1 << 24, 1 << 31, 0xFFFFFFFF])
def test_an_oversized_frame_is_refused_by_its_header_alone(length: int) -> None:
    reader = MuxReader()
    message = rf"mux: frame of {length} bytes; at most {MAX_FRAME_BYTES}"
    with pytest.raises(ProtocolError, match=message):
        read(reader, frame_header(1, length))


def test_the_largest_frame_costs_no_memory_of_the_reader() -> None:
    payload = bytes(MAX_FRAME_BYTES)
    reader = MuxReader()
    seen = 0

    def feed() -> None:
        nonlocal seen
        assert read(reader, frame_header(1, MAX_FRAME_BYTES)) == []
        for _, piece in reader.feed(memoryview(payload)):
            seen += len(piece)

    assert memory_taken(feed) < 16 << 10
    assert seen == MAX_FRAME_BYTES


def test_after_the_largest_frame_the_next_header_is_in_step() -> None:
    stream = frame_header(2, MAX_FRAME_BYTES) + bytes(MAX_FRAME_BYTES) + frame_header(1, 2) + b"ok"
    assert read(MuxReader(), stream)[-1] == (1, b"ok")


@given(st.binary(max_size=200), cuts())
def test_random_bytes_raise_nothing_but_a_protocol_error(data: bytes, at: list[int]) -> None:
    said = refusal(lambda: read_all(MuxReader(), cut(data, at)))
    assert not said or said.startswith("mux: frame ")
