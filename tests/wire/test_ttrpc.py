"""ttRPC messages: any split gives the same, and a header is checked before its body comes."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import wire
from edge_agent.errors import ProtocolError
from edge_agent.wire import CLIENT, SERVER, Message, MessageReader, Role
from tests.support.pieces import cut, cuts, memory_taken, refusal

KIB, MIB = 1 << 10, 1 << 20
LARGEST = wire.MAX_MESSAGE_BYTES
BODIES = st.lists(st.binary(max_size=300), max_size=8)


def raw(message: Message, flags: int = 0) -> bytes:
    head = struct.pack(">IIBB", len(message.body), message.stream, message.type, flags)
    return head + message.body


def read(reader: MessageReader, data: bytes | memoryview) -> list[Message]:
    return list(reader.feed(memoryview(data)))


def read_all(reader: MessageReader, pieces: Iterable[memoryview]) -> list[Message]:
    return [message for data in pieces for message in read(reader, data)]


@given(BODIES, cuts(), st.sampled_from([SERVER, CLIENT]))
def test_any_split_gives_the_same_messages(bodies: list[bytes], at: list[int], role: Role) -> None:
    messages = [Message(2 * i + 1, role.expects, body) for i, body in enumerate(bodies)]
    reader = MessageReader(role)
    stream = b"".join(map(raw, messages))
    assert read_all(reader, cut(stream, at)) == messages


def test_a_body_is_the_messages_own_copy() -> None:
    data = bytearray(raw(Message(1, wire.REQUEST, b"before")))
    [message] = MessageReader(SERVER).feed(memoryview(data))
    data[:] = bytes(len(data))
    assert message.body == b"before"


def test_a_request_may_say_that_no_data_follows() -> None:
    message = Message(1, wire.REQUEST, b"x")
    assert read(MessageReader(SERVER), raw(message, wire.REMOTE_CLOSED)) == [message]


def test_answers_may_come_in_any_order() -> None:
    messages = [Message(stream, wire.RESPONSE, b"") for stream in (5, 1, 3)]
    assert read(MessageReader(CLIENT), b"".join(map(raw, messages))) == messages


# role, length, stream id, type, flags, what the error says
HOSTILE = [
    (SERVER, LARGEST + 1, 1, 1, 0, f"message of {LARGEST + 1} bytes; at most {LARGEST}"),
    (SERVER, 0xFFFFFFFF, 1, 1, 0, "message of 4294967295 bytes"),
    (CLIENT, 1 << 31, 1, 2, 0, "message of 2147483648 bytes"),
    (SERVER, 0, 1, 2, 0, "message type 2, expected 1"),
    (SERVER, 0, 1, 3, 0, "message type 3, expected 1"),
    (SERVER, 0, 1, 0, 0, "message type 0, expected 1"),
    (CLIENT, 0, 1, 1, 0, "message type 1, expected 2"),
    (CLIENT, 0, 1, 255, 0, "message type 255, expected 2"),
    (SERVER, 0, 1, 1, 2, "flags 0x02; NRI has unary calls only"),
    (SERVER, 0, 1, 1, 4, "flags 0x04"),
    (SERVER, 0, 1, 1, 0xFF, "flags 0xff"),
    (CLIENT, 0, 1, 2, 1, "flags 0x01"),
    (SERVER, 0, 0, 1, 0, "stream id 0; a client's are odd"),
    (SERVER, 0, 2, 1, 0, "stream id 2; a client's are odd"),
    (SERVER, 0, 0x80000001, 1, 0, "stream id 2147483649"),
    (CLIENT, 0, 0xFFFFFFFE, 2, 0, "stream id 4294967294"),
]


@pytest.mark.parametrize(("role", "length", "stream", "kind", "flags", "says"), HOSTILE)
@pytest.mark.parametrize("at", [[], [1], [9], list(range(wire.HEADER_BYTES))])
def test_a_hostile_header_is_refused_before_its_body(
    role: Role, length: int, stream: int, kind: int, flags: int, says: str, at: list[int]
) -> None:
    reader = MessageReader(role)
    head = struct.pack(">IIBB", length, stream, kind, flags)
    said = refusal(lambda: read_all(reader, cut(head, at)))
    assert said.startswith(f"ttRPC on {role.name}: {says}")


@pytest.mark.parametrize(("first", "second"), [(1, 1), (5, 3), (0x7FFFFFFF, 1)])
def test_a_stream_id_that_does_not_increase_is_refused(first: int, second: int) -> None:
    reader = MessageReader(SERVER)
    read(reader, raw(Message(first, wire.REQUEST, b"")))
    with pytest.raises(ProtocolError, match=f"stream id {second} after {first}; .* increase"):
        read(reader, raw(Message(second, wire.REQUEST, b"")))


def test_a_stated_length_takes_no_memory() -> None:
    reader = MessageReader(SERVER)
    head = struct.pack(">IIBB", LARGEST, 1, wire.REQUEST, 0)
    assert memory_taken(lambda: read(reader, head + b"x")) < 16 * KIB


def test_memory_grows_with_what_came_and_not_with_what_was_stated() -> None:
    reader = MessageReader(SERVER)
    read(reader, struct.pack(">IIBB", LARGEST, 1, wire.REQUEST, 0))
    piece = bytes(4 * KIB)

    def feed() -> None:
        for _ in range(64):  # a sixteenth of the message
            assert read(reader, piece) == []

    assert memory_taken(feed) < MIB


def test_the_largest_message_arrives_whole() -> None:
    body = bytes(range(256)) * (LARGEST // 256)
    reader = MessageReader(SERVER)
    stream = raw(Message(1, wire.REQUEST, body))
    found = [
        one for at in range(0, len(stream), 65536) for one in read(reader, stream[at:][:65536])
    ]
    assert [message.body for message in found] == [body]


@given(st.binary(max_size=200), cuts(), st.sampled_from([SERVER, CLIENT]))
def test_random_bytes_raise_nothing_but_a_protocol_error(
    data: bytes, at: list[int], role: Role
) -> None:
    said = refusal(lambda: read_all(MessageReader(role), cut(data, at)))
    assert not said or said.startswith(f"ttRPC on {role.name}: ")
