"""The file format of the outbox: what is written is read, what is damaged is passed over."""

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.mqtt.segment import (
    FRAME_BYTES,
    HEADER_BYTES,
    Header,
    frame,
    is_torn,
    next_frame,
    read_header,
    seed,
)
from edge_agent.mqtt.stream import StreamKey

STREAM = StreamKey("9f86d081884c7d65", "msgpack")
BEGUN = seed(STREAM)
NUMBER = st.integers(0, 2**63)
PACKED = st.lists(st.binary(max_size=200), min_size=1, max_size=20)


def row(packed: list[bytes], first: int = 1) -> bytes:
    """Records as they stand behind one another."""
    return b"".join(frame(first + at, each, BEGUN) for at, each in enumerate(packed))


def found(data: bytes, at: int = 0, least: int = 1) -> dict[int, bytes]:
    """Every record that a reader finds."""
    records = {}
    while (each := next_frame(data, at, least, BEGUN)) is not None:
        records[each.number] = data[each.start : each.end]
        at, least = each.end, each.number + 1
    return records


@given(NUMBER, NUMBER, NUMBER, st.booleans(), st.sampled_from(["msgpack", "json"]))
def test_a_header_comes_back(
    first: int, before: int, acknowledged: int, finished: bool, encoding: str
) -> None:
    stream = StreamKey(STREAM.name, encoding)
    header = Header(stream, b"b" * 16, first, before, acknowledged, finished)
    assert len(header.packed()) == HEADER_BYTES
    assert read_header(header.packed() + b"more") == header


@given(st.integers(0, HEADER_BYTES * 8 - 1))
def test_a_header_with_any_bit_flipped_is_no_header(bit: int) -> None:
    data = bytearray(Header(STREAM, b"b" * 16, 1, 0, 0).packed())
    data[bit // 8] ^= 1 << bit % 8
    assert read_header(bytes(data)) is None
    assert read_header(bytes(data[:-1])) is None


@given(PACKED, st.integers(1, 2**40))
def test_records_come_back_in_order(packed: list[bytes], first: int) -> None:
    data = row(packed, first)
    assert list(found(data, least=first).values()) == packed
    assert is_torn(data, len(data))


@given(PACKED, st.data())
def test_damage_costs_only_what_is_damaged(packed: list[bytes], data: st.DataObject) -> None:
    whole = row(packed)
    hit = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[hit] ^= data.draw(st.integers(1, 255))
    records = found(bytes(damaged))
    at = 0
    for number, each in enumerate(packed, start=1):
        end = at + FRAME_BYTES + len(each)
        if not at <= hit < end:
            assert records[number] == each
        else:
            assert number not in records
        at = end


@given(PACKED, st.binary(max_size=300), st.data())
def test_garbage_between_records_costs_none(
    packed: list[bytes], garbage: bytes, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(packed)))
    whole = row(packed[:at]) + garbage + row(packed[at:], 1 + at)
    assert list(found(whole).values()) == packed


@given(PACKED, st.data())
def test_a_cut_costs_only_what_is_behind_it_and_is_known_as_one(
    packed: list[bytes], data: st.DataObject
) -> None:
    whole = row(packed)
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    records = found(cut)
    assert list(records.values()) == packed[: len(records)]
    end = len(row(packed[: len(records)]))
    assert is_torn(cut, end)
    assert len(cut) - end < FRAME_BYTES + 200


def test_a_damaged_record_is_not_taken_for_a_cut() -> None:
    data = bytearray(row([b"one", b"two"]))
    data[-1] ^= 1
    assert not is_torn(bytes(data), FRAME_BYTES + 3)


def test_records_of_another_stream_and_with_old_numbers_are_not_found() -> None:
    other = seed(StreamKey("0" * 16, "msgpack"))
    data = frame(1, b"other", other) + frame(1, b"old", BEGUN) + frame(5, b"new", BEGUN)
    assert found(data, least=2) == {5: b"new"}


def test_a_record_that_a_plugin_put_into_another_one_is_not_found_by_itself() -> None:
    """Its report may hold anything; only damage around it could lay it open, and its numbers
    must then still fit between those of its neighbours."""
    inner = frame(1 << 50, b"forged", BEGUN)
    data = bytearray(row([b"x" + inner, b"next"]))
    data[FRAME_BYTES] ^= 1
    assert found(bytes(data)) == {2: b"next"}
