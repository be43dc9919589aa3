"""The C SDK's reader, writer and small parsers against the real protobuf library."""

import fnmatch
import re

import pytest
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.pb import edge_pb2, nri_pb2

from .guest import GUESTS, ROOT, AbiError, Guest, GuestError, capture
from .messages import messages

SDK = Guest(GUESTS / "sdk.wasm")  # shared by the examples: they must not disturb each other
REQUESTS: list[type[Message]] = [
    nri_pb2.CreateContainerRequest,
    nri_pb2.ValidateContainerAdjustmentRequest,
    nri_pb2.SynchronizeRequest,
    nri_pb2.UpdateContainerRequest,
]
GROUP = 3  # wire type


def pair(key: str, value: str) -> nri_pb2.KeyValue:
    return nri_pb2.KeyValue(key=key, value=value)


def ask(method: str, request: Message) -> tuple[str, bool]:
    reply = SDK.ask(method, request, nri_pb2.LogRequest)
    return reply.msg, bool(reply.level)


def fields(data: bytes) -> list[tuple[int, int, object]]:
    """As the library sees them, without a schema; DecodeError."""
    unknown = UnknownFieldSet(nri_pb2.Empty.FromString(data))
    pieces = (unknown[i] for i in range(len(unknown)))
    return [(piece.field_number, piece.wire_type, piece.data) for piece in pieces]


@given(st.sampled_from(REQUESTS).flatmap(messages))
def test_a_message_of_the_library_is_read_and_written_byte_for_byte(message: Message) -> None:
    data = message.SerializeToString()
    assert SDK.call("transcode_flat", data) == data
    assert SDK.call("transcode_deep", data) == data


@pytest.mark.parametrize("name", ["create_container", "run_pod_sandbox"])
def test_a_captured_request_is_read_and_written_byte_for_byte(name: str) -> None:
    data = capture(name)
    assert SDK.call("transcode_deep", data) == data


def assert_reads_as_the_library(data: bytes) -> None:
    try:
        expected = fields(data)
        # The reader is stricter: proto3 has no groups and Go takes no field 0 either.
        good = all(wire != GROUP and number for number, wire, _ in expected)
    except DecodeError:
        good = False
    if good:
        assert fields(SDK.call("transcode_flat", data)) == expected
    else:
        with pytest.raises(GuestError, match="malformed message"):
            SDK.call("transcode_flat", data)


@given(st.binary(max_size=64))
def test_random_bytes_are_read_as_by_the_library_or_refused(data: bytes) -> None:
    assert_reads_as_the_library(data)


@given(st.data(), st.integers(0, 3000), st.integers(0, 255))
def test_a_damaged_request_is_read_as_by_the_library_or_refused(
    data: st.DataObject, at: int, byte: int
) -> None:
    whole = bytearray(capture("create_container"))
    whole[at % len(whole)] = byte
    end = data.draw(st.integers(0, len(whole)) | st.just(len(whole)))
    assert_reads_as_the_library(bytes(whole[:end]))


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x00",  # field 0
        b"\x08",  # no value
        b"\x08" + b"\xff" * 9 + b"\x02",  # 65 bits
        b"\x08" + b"\xff" * 10 + b"\x01",  # eleven bytes
        b"\xff\xff\xff\xff\x1f\x00",  # a tag of more than 32 bits
        b"\x0a\x05abcd",  # shorter than its length
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a length of 64 bits
        b"\x09abcdefg",
        b"\x0dabc",
        b"\x0b\x0c",  # a group
        b"\x0f",  # no such wire type
    ],
)
def test_hostile_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(GuestError, match="malformed message"):
        SDK.call("transcode_flat", data)


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=5), st.text(max_size=5))
def test_a_map_is_looked_up(labels: dict[str, str], key: str) -> None:
    container = nri_pb2.Container(labels=labels).SerializeToString()
    # A string field carries it: the guest does not mind that it is no text.
    request = b"".join(
        bytes([tag]) + _varint(len(part)) + part
        for tag, part in ((0x0A, key.encode()), (0x12, container))
    )
    reply = nri_pb2.LogRequest.FromString(SDK.call("label", request))
    assert (reply.msg, bool(reply.level)) == (labels.get(key, ""), key in labels)


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=12))
def test_patterns_match_as_the_shells_do(pattern: str, text: str) -> None:
    expected = re.fullmatch(fnmatch.translate(pattern), text) is not None
    assert ask("glob", pair(pattern, text))[1] is expected


def test_a_pattern_does_not_match_what_begins_like_it() -> None:
    for text in (b"a\xff", b"a/", b"a\x00"):
        request = b"\x0a\x01a\x12\x02" + text
        assert SDK.call("glob", request) == b""


@pytest.mark.parametrize(
    ("unit", "text", "number"),
    [
        ("number", "0", 0),
        ("number", "18446744073709551615", 2**64 - 1),
        ("number", "18446744073709551616", None),
        ("number", "", None),
        ("number", "-1", None),
        ("number", "1a", None),
        ("number", "@", None),
        ("number", "\u00e9", None),
        ("size", "1024", 1024),
        ("size", "64Mi", 64 << 20),
        ("size", "1k", 1000),
        ("size", "1K", 1000),
        ("size", "2Gi", 2 << 30),
        ("size", "3T", 3 * 1000**4),
        ("size", "i", None),
        ("size", "12i", None),
        ("size", "Mi", None),
        ("size", "1MiB", None),
        ("size", "8388608Ti", None),  # 2**63
        ("size", "8388607Ti", 8388607 << 40),
        ("cpu", "2", 2000),
        ("cpu", "0.5", 500),
        ("cpu", "1.25", 1250),
        ("cpu", "500m", 500),
        ("cpu", "1.", None),
        ("cpu", "1.2345", None),
        ("cpu", "m", None),
        ("cpu", "0.5m", None),
        ("cpu", "1000001", None),
    ],
)
def test_amounts(unit: str, text: str, number: int | None) -> None:
    expected = ("", False) if number is None else (str(number), True)
    assert ask("amount", pair(unit, text)) == expected


def test_lines_without_comments_and_blanks_keep_their_numbers() -> None:
    text = "# first\n\n  one two  # said\r\nurl=a#b\n\t\n#"
    assert ask("lines", pair("", text))[0] == "3:one two|4:url=a#b|"


def test_pieces_of_a_line() -> None:
    reply = SDK.call("pieces", "ab\u00e9\u20ac".encode())
    said = nri_pb2.LogRequest.FromString(reply).msg
    assert said == f"text view -1 2 {-(2**63)} {2**64 - 1} ab\u00e9"


def test_the_last_of_two_fields_counts() -> None:
    request = nri_pb2.KeyValue(key="a*").SerializeToString() + b"\x12\x01b\x12\x02ab"
    assert nri_pb2.LogRequest.FromString(SDK.call("glob", request)).level == 1


def test_running_out_of_memory_is_an_error_and_the_guest_lives_on() -> None:
    with pytest.raises(GuestError, match="out of memory"):
        SDK.call("exhaust", b"")
    assert SDK.call("transcode_flat", b"\x08\x01") == b"\x08\x01"


def test_an_error_of_no_text_is_no_reply() -> None:
    assert SDK.call("shutdown", b"") == b""


# ---- the heap, as the host uses it ----


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 9)), max_size=60))
def test_blocks_stay_apart_in_any_order_of_malloc_and_free(steps: list[tuple[int, int]]) -> None:
    guest = Guest(GUESTS / "sdk.wasm")
    blocks: list[tuple[int, bytes]] = []
    for number, (size, which) in enumerate(steps):
        if which < 4 and blocks:
            pointer, content = blocks.pop(which % len(blocks))
            assert guest.read(pointer, len(content)) == content
            guest.free(pointer)
        else:
            pointer = guest.malloc(size)
            assert pointer % 8 == 0
            content = bytes([number]) * size
            guest.write(pointer, content)
            blocks.append((pointer, content))
            assert guest.call("transcode_flat", b"\x08\x05") == b"\x08\x05"
    for pointer, content in blocks:
        assert guest.read(pointer, len(content)) == content
        guest.free(pointer)
    first = guest.malloc(8)
    assert guest.malloc(8) == first + 16  # all of it has come back, as one piece


def test_memory_does_not_grow_with_the_number_of_calls() -> None:
    guest = Guest(GUESTS / "sdk.wasm")
    request = capture("create_container")
    guest.call("transcode_deep", request)
    before = guest.memory_size()
    for _ in range(500):
        guest.call("transcode_deep", request)
    assert guest.memory_size() == before


def test_malloc_of_too_much_gives_nothing() -> None:
    guest = Guest(GUESTS / "sdk.wasm")
    for size in (33 << 20, 1 << 30, (1 << 31) - 1, (1 << 31) - 1 << 1):
        assert guest.malloc(size) == 0
    with pytest.raises(AbiError):
        guest.call("shutdown", bytes(33 << 20))
    assert guest.call("shutdown", b"\x08\x01") == b""


def test_free_of_what_malloc_never_gave_is_harmless() -> None:
    guest = Guest(GUESTS / "sdk.wasm")
    for pointer in (0, 8, 0x7FFFFFF0):
        guest.free(pointer)
    block = guest.malloc(64)
    guest.free(block)
    guest.free(block)
    assert guest.malloc(64) == block


def test_the_fields_of_time_and_pressure_are_those_of_their_messages() -> None:
    """The header has their numbers by hand."""
    header = (ROOT / "plugins" / "sdk" / "edge_nri.h").read_text()
    numbers = {
        name: int(number) for name, number in re.findall(r"^\s+EDGE_(\w+) = (\d+),", header, re.M)
    }
    share = [(f"{kind}_{window}".upper(), edge_pb2.Pressure, f"{kind}_{window}")
             for kind in ("some", "full") for window in (10, 60, 300)]  # fmt: skip
    fields_of: list[tuple[str, type[Message], str]] = [
        ("TIMER_INTERVAL_MS", edge_pb2.OnTimerRequest, "interval_ms"),
        ("PRESSURE_EXCEEDED", edge_pb2.OnPressureRequest, "exceeded"),
        ("REQ_BOARD", edge_pb2.OnTimerRequest, "board"),
        ("REQ_BOARD", edge_pb2.OnPressureRequest, "board"),
        *((f"EXCEEDED_{each.upper()}", edge_pb2.Exceeded, each)
          for each in ("reading", "value", "threshold")),
        *((f"BOARD_{each.upper()}", edge_pb2.Board, each)
          for each in ("memory", "cpu", "io", "temperature", "throttled", "disk")),
        *share,
        ("DISK_FREE", edge_pb2.Disk, "free_bytes"),
        ("DISK_TOTAL", edge_pb2.Disk, "total_bytes"),
    ]  # fmt: skip
    assert {name for name, _, _ in fields_of} == numbers.keys()
    for name, message, field in fields_of:
        assert message.DESCRIPTOR.fields_by_name[field].number == numbers[name]
