"""Stepping over fields: the same as decoding says, and bounded whatever the bytes are."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.pb import nri_pb2
from edge_agent.wire import MAX_FIELDS, Path, field_paths, nested_bytes

ADJUST = (nri_pb2.CreateContainerResponse.ADJUST_FIELD_NUMBER,)
LINUX = (*ADJUST, nri_pb2.ContainerAdjustment.LINUX_FIELD_NUMBER)

RESPONSE = nri_pb2.CreateContainerResponse(
    adjust=nri_pb2.ContainerAdjustment(
        annotations={"a": "b" * 300, "c": "d"},
        env=[nri_pb2.KeyValue(key="A", value="b")],
        linux=nri_pb2.LinuxContainerAdjustment(cgroups_path="/x"),
    ),
    evict=[nri_pb2.ContainerEviction(container_id="x"), nri_pb2.ContainerEviction()],
)


def numbers(kind: type, *names: str) -> set[int]:
    return {kind.DESCRIPTOR.fields_by_name[name].number for name in names}  # type: ignore[attr-defined]


def test_fields_are_found_inside_the_messages_that_are_asked_for() -> None:
    raw = RESPONSE.SerializeToString()
    outside = {(each,) for each in numbers(nri_pb2.CreateContainerResponse, "adjust", "evict")}
    assert field_paths(raw, ()) == (outside, True)
    within = numbers(nri_pb2.ContainerAdjustment, "annotations", "env", "linux")
    inside = numbers(nri_pb2.LinuxContainerAdjustment, "cgroups_path")
    assert field_paths(raw, (ADJUST, LINUX)) == (
        outside | {(*ADJUST, each) for each in within} | {(*LINUX, each) for each in inside},
        True,
    )


def test_a_message_in_two_pieces_is_both() -> None:
    """Protobuf merges them, so what either of them has counts."""
    one = nri_pb2.CreateContainerResponse(adjust={"args": ["x"]}).SerializeToString()
    two = nri_pb2.CreateContainerResponse(adjust={"rlimits": [{}]}).SerializeToString()
    assert field_paths(one + two, (ADJUST,))[0] == field_paths(two + one, (ADJUST,))[0]
    assert len(field_paths(one + two, (ADJUST,))[0]) == 3


@pytest.mark.parametrize(
    ("flood", "fields"), [(b"\x12\x00", 1), (b"\x78\x00", 1), (b"\x0a\x02\x12\x00", 2)]
)
def test_a_flood_of_fields_is_not_read_to_its_end(flood: bytes, fields: int) -> None:
    most = MAX_FIELDS // fields
    assert field_paths(flood * most, (ADJUST,))[1]
    assert not field_paths(flood * (most + 1), (ADJUST,))[1]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff" * 20,
        b"\x0a",
        b"\x0a\x05abc",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x0b",  # a group begins
        b"\x0c",
        b"\x0f",
        b"\x1b\x00\x00\x00\x00",  # long enough for any other field
        b"\x1f\x00\x00\x00\x00",
        b"\x00\x00",  # field 0
        b"\x09abc",
        b"\x0dabc",
        b"\x08",
        b"\x08\x01",  # `adjust` as a number
        b"\x0a\x02\x12\x05",  # too long for the message around it
    ],
)
def test_what_is_no_message_is_refused(garbage: bytes) -> None:
    with pytest.raises(ValueError, match=r"a "):
        field_paths(garbage, (ADJUST,))


@given(st.binary(max_size=60))
def test_nothing_that_can_be_decoded_hides_a_field(raw: bytes) -> None:
    try:
        message = nri_pb2.CreateContainerResponse.FromString(raw)
    except (DecodeError, UnicodeDecodeError):
        return
    set_fields: set[Path] = {(field.number,) for field, _ in message.ListFields()}
    set_fields |= {(*ADJUST, field.number) for field, _ in message.adjust.ListFields()}
    set_fields |= {(*LINUX, field.number) for field, _ in message.adjust.linux.ListFields()}
    try:
        found, whole = field_paths(raw, (ADJUST, LINUX))
    except ValueError:
        return  # refused altogether, such as a group
    assert whole
    assert set_fields <= found


def test_a_nested_string_is_found_without_what_stands_beside_it() -> None:
    request = nri_pb2.CreateContainerRequest(
        pod=nri_pb2.PodSandbox(id="pod", name="x" * 300),
        container=nri_pb2.Container(id="ctr", name="y"),
    ).SerializeToString()
    assert nested_bytes(request, (2, 1)) == b"ctr"
    assert nested_bytes(request, (1, 1)) == b"pod"
    assert nested_bytes(request, (2, 3)) == b"y"
    assert nested_bytes(request, (3, 1)) is None
    assert nested_bytes(b"", (2, 1)) is None
    assert nested_bytes(b"\x08\x01" * (MAX_FIELDS + 1) + request, (2, 1)) is None
    with pytest.raises(ValueError, match="ends outside"):
        nested_bytes(request[:-1], (2, 3))


@given(st.binary(max_size=200))
def test_a_nested_string_of_anything(message: bytes) -> None:
    try:
        found = nested_bytes(message, (2, 1))
    except ValueError:
        return
    assert found is None or found in message
