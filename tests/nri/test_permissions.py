"""What a reply touches, and what of it is refused."""

from __future__ import annotations

import pytest

from edge_agent.nri.permissions import UPDATE_CONTAINERS, NotPermitted, check, touched
from edge_agent.pb import nri_pb2

ADJUSTED = nri_pb2.CreateContainerResponse(
    adjust=nri_pb2.ContainerAdjustment(
        annotations={"a": "b"},
        linux=nri_pb2.LinuxContainerAdjustment(devices=[nri_pb2.LinuxDevice(path="/dev/x")]),
    ),
    update=[nri_pb2.ContainerUpdate(container_id="x")],
).SerializeToString()
ASKED = nri_pb2.UpdateContainersRequest(
    update=[nri_pb2.ContainerUpdate(container_id="x")],
    evict=[nri_pb2.ContainerEviction(container_id="x")],
).SerializeToString()


@pytest.mark.parametrize(
    ("event", "reply", "names"),
    [
        ("CreateContainer", ADJUSTED, {"annotations", "linux.devices", "update"}),
        ("CreateContainer", b"", set()),
        ("CreateContainer", b"\x78\x00", {"field 15"}),
        ("CreateContainer", b"\x0a\x03\xfa\x06\x00", {"field 111"}),
        ("RunPodSandbox", b"anything", set()),
        ("Synchronize", nri_pb2.SynchronizeResponse(more=True).SerializeToString(), set()),
        (UPDATE_CONTAINERS, ASKED, {"update", "evict"}),
    ],
)
def test_names_of_what_is_touched(event: str, reply: bytes, names: set[str]) -> None:
    assert touched(event, reply) == names


def test_what_is_granted_passes_and_the_rest_is_named() -> None:
    check("CreateContainer", ADJUSTED, None)
    check("CreateContainer", ADJUSTED, ("annotations", "linux.devices", "update"))
    with pytest.raises(NotPermitted, match=r"touches linux.devices, update, and it may only"):
        check("CreateContainer", ADJUSTED, ("annotations",))
    with pytest.raises(NotPermitted, match="its UpdateContainers touches evict"):
        check(UPDATE_CONTAINERS, ASKED, ("update",))


@pytest.mark.parametrize("garbage", [b"\x0a\x05\x12", b"\xff" * 12, b"\x0b"])
def test_a_reply_that_cannot_be_read_is_not_permitted(garbage: bytes) -> None:
    with pytest.raises(NotPermitted, match="is no CreateContainerResponse"):
        check("CreateContainer", garbage, ())


@pytest.mark.parametrize("flood", [b"\x12\x00", b"\x78\x00", b"\x0a\x02\x12\x00"])
def test_a_flood_of_fields_is_refused_though_each_is_granted(flood: bytes) -> None:
    """Decoding two million empty updates takes seconds: it is not even tried."""
    with pytest.raises(NotPermitted, match="more than 8192 fields"):
        check("CreateContainer", flood * (1 << 20), ("update", "annotations", "field 15"))


def test_a_refusal_of_many_fields_is_short() -> None:
    reply = b"".join(bytes((0x80 | each & 0x78, each >> 4, 0)) for each in range(8, 1024, 8))
    with pytest.raises(NotPermitted) as caught:
        check("CreateContainer", reply, ())
    assert len(str(caught.value)) < 300
