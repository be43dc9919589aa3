from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from edge_agent.config import PERMISSIONS
from edge_agent.nri.difference import Change, changes, leaves, message_types
from edge_agent.nri.events import BY_METHOD
from edge_agent.nri.permissions import touched
from edge_agent.pb import nri_pb2

CAPTURE = Path(__file__).parents[1] / "data" / "containerd-2.1.9-create_container_request.bin"
CREATE = nri_pb2.CreateContainerRequest.FromString(CAPTURE.read_bytes())
ADJUSTMENT = [name for name in PERMISSIONS if name not in ("update", "evict")]


@pytest.fixture
def request_() -> nri_pb2.CreateContainerRequest:
    """As a real containerd sent it."""
    return nri_pb2.CreateContainerRequest.FromString(CAPTURE.read_bytes())


def adjust(**fields: Any) -> nri_pb2.CreateContainerResponse:
    return nri_pb2.CreateContainerResponse(adjust=nri_pb2.ContainerAdjustment(**fields))


def linux(**fields: Any) -> nri_pb2.CreateContainerResponse:
    return adjust(linux=nri_pb2.LinuxContainerAdjustment(**fields))


def resources(**fields: Any) -> nri_pb2.CreateContainerResponse:
    return linux(resources=nri_pb2.LinuxResources(**fields))


def filled(message: Message) -> Message:
    """With something in every field, all the way down."""
    for field in message.DESCRIPTOR.fields:
        target = getattr(message, field.name)
        if field.message_type and field.message_type.GetOptions().map_entry:
            value = field.message_type.fields_by_name["value"]
            if value.message_type:
                filled(target["key"])
            else:
                target["key"] = "value"
        elif field.is_repeated:
            if field.message_type:
                filled(target.add())
            else:
                target.append("text" if field.type == field.TYPE_STRING else 1)
        elif field.message_type:
            filled(target)
        else:
            words: dict[int, object] = {field.TYPE_STRING: "text", field.TYPE_BOOL: True}
            setattr(message, field.name, words.get(field.type, 1))
    return message


@pytest.mark.parametrize("name", ADJUSTMENT)
def test_every_field_of_an_adjustment_is_told(
    request_: nri_pb2.CreateContainerRequest, name: str
) -> None:
    reply = nri_pb2.CreateContainerResponse()
    filled(reply.adjust)
    parts: list[tuple[Message, str]] = [(reply.adjust, ""), (reply.adjust.linux, "linux.")]
    for message, prefix in parts:
        for field in message.DESCRIPTOR.fields:
            path = prefix + field.name.lower()
            if path != name and not name.startswith(f"{path}."):
                message.ClearField(field.name)
    assert touched("CreateContainer", reply.SerializeToString()) == {name}
    assert {change.field for change in changes(request_, reply)} == {name}


def test_every_word_of_the_permissions_is_used() -> None:
    reply = nri_pb2.CreateContainerResponse()
    filled(reply)
    assert touched("CreateContainer", reply.SerializeToString()) == set(PERMISSIONS)


# What a plugin answers to the captured request, and what that does.
TABLE: dict[str, tuple[nri_pb2.CreateContainerResponse, list[str]]] = {
    "nothing": (adjust(), []),
    "an annotation added": (adjust(annotations={"new": "x"}), ["+ annotation new: x"]),
    "an annotation changed": (
        adjust(annotations={"example.com/c": "2"}),
        ["~ annotation example.com/c: 1 -> 2"],
    ),
    "an annotation emptied": (
        adjust(annotations={"example.com/c": ""}),
        ["~ annotation example.com/c: 1 -> (empty)"],
    ),
    "an annotation set to what it was": (
        adjust(annotations={"example.com/c": "1"}),
        ["= annotation example.com/c: 1, as it was"],
    ),
    "an annotation removed": (
        adjust(annotations={"-example.com/c": ""}),
        ["- annotation example.com/c (was 1)"],
    ),
    "an annotation removed that was not there": (
        adjust(annotations={"-x": ""}),
        ["- annotation x"],
    ),
    "an annotation removed and set": (
        adjust(annotations={"-example.com/c": "", "example.com/c": "2"}),
        ["~ annotation example.com/c: 1 -> 2"],
    ),
    "variables": (
        adjust(
            env=[
                nri_pb2.KeyValue(key="A", value="B=C"),
                nri_pb2.KeyValue(key="FOO", value="baz"),
                nri_pb2.KeyValue(key="-HOSTNAME"),
            ]
        ),
        ["+ env A=B=C", "~ env FOO: bar -> baz", "- env HOSTNAME (was board)"],
    ),
    "mounts": (
        adjust(
            mounts=[
                nri_pb2.Mount(destination="-/proc"),
                nri_pb2.Mount(destination="/data", type="bind", source="/src", options=["ro"]),
            ]
        ),
        ["- mount /proc (was proc proc nosuid noexec nodev)", "+ mount /data: bind /src ro"],
    ),
    "arguments": (
        adjust(args=["/bin/sh", "a b"]),
        ["~ args: /bin/sh -c 'env; exec sleep 3600' -> /bin/sh 'a b'"],
    ),
    "arguments that another plugin may have set": (
        adjust(args=["", "/bin/true"]),
        ["~ args: /bin/sh -c 'env; exec sleep 3600' -> /bin/true"],
    ),
    "a hook": (
        adjust(hooks=nri_pb2.Hooks(poststop=[nri_pb2.Hook(path="/h", args=["h", "x y"])])),
        ["+ hook poststop: /h 'x y'"],
    ),
    "a limit of the process": (
        adjust(rlimits=[nri_pb2.POSIXRlimit(type="RLIMIT_NOFILE", soft=1, hard=2)]),
        ["+ rlimit RLIMIT_NOFILE: soft 1, hard 2"],
    ),
    "a CDI device": (
        adjust(CDI_devices=[nri_pb2.CDIDevice(name="vendor.com/class=x")]),
        ["+ CDI device vendor.com/class=x"],
    ),
    "a device": (
        linux(
            devices=[
                nri_pb2.LinuxDevice(
                    path="/dev/gpiochip0",
                    type="c",
                    major=254,
                    file_mode=nri_pb2.OptionalFileMode(value=0o660),
                    gid=nri_pb2.OptionalUInt32(value=0),
                ),
                nri_pb2.LinuxDevice(path="-/dev/null"),
            ]
        ),
        ["+ device /dev/gpiochip0: c 254:0 mode 0660 gid 0", "- device /dev/null"],
    ),
    "a memory limit": (
        resources(memory=nri_pb2.LinuxMemory(limit=nri_pb2.OptionalInt64(value=32 << 20))),
        ["~ memory limit: 64MiB -> 32MiB"],
    ),
    "no memory limit": (
        resources(memory=nri_pb2.LinuxMemory(limit=nri_pb2.OptionalInt64(value=-1))),
        ["~ memory limit: 64MiB -> -1"],
    ),
    "a number that is zero": (
        resources(memory=nri_pb2.LinuxMemory(swappiness=nri_pb2.OptionalUInt64())),
        ["+ memory swappiness: 0"],
    ),
    "processors": (
        resources(cpu=nri_pb2.LinuxCPU(shares=nri_pb2.OptionalUInt64(value=2), cpus="0-1")),
        ["~ cpu shares: 512 -> 2", "+ cpu cpus: 0-1"],
    ),
    "processes": (resources(pids=nri_pb2.LinuxPids(limit=9)), ["+ pids limit: 9"]),
    "no processes": (resources(pids=nri_pb2.LinuxPids()), ["+ pids limit: 0"]),
    "huge pages": (
        resources(
            hugepage_limits=[
                nri_pb2.HugepageLimit(page_size="2MB", limit=4 << 20),
                nri_pb2.HugepageLimit(page_size="1GB", limit=1 << 30),
            ]
        ),
        ["+ hugepage_limits 2MB: 4MiB", "+ hugepage_limits 1GB: 1GiB"],
    ),
    "cgroup device rules are added to those there": (
        resources(devices=[nri_pb2.LinuxDeviceCgroup(allow=True, type="c", access="rw")]),
        ["+ devices: allow true, type c, access rw"],
    ),
    "resources that say nothing": (
        resources(memory=nri_pb2.LinuxMemory(), cpu=nri_pb2.LinuxCPU()),
        [],
    ),
    "the score for running out of memory": (
        linux(oom_score_adj=nri_pb2.OptionalInt()),
        ["~ oom_score_adj: 500 -> 0"],
    ),
    "namespaces": (
        linux(
            namespaces=[
                nri_pb2.LinuxNamespace(type="-uts"),
                nri_pb2.LinuxNamespace(type="network"),
            ]
        ),
        [
            f"- namespace uts (was /proc/{CREATE.pod.pid}/ns/uts)",
            f"~ namespace network: /proc/{CREATE.pod.pid}/ns/net -> new",
        ],
    ),
    "a kernel parameter": (linux(sysctl={"net.x": "1"}), ["+ sysctl net.x: 1"]),
    "a priority of input and output": (
        linux(io_priority=nri_pb2.LinuxIOPriority(**{"class": nri_pb2.IOPRIO_CLASS_IDLE})),
        ["+ io_priority class: IOPRIO_CLASS_IDLE"],
    ),
    "a number that stands for no word": (
        nri_pb2.CreateContainerResponse.FromString(b"\x0a\x06\x32\x04\x52\x02\x08\x63"),
        ["+ scheduler policy: 99"],
    ),
    "what would drive a terminal": (
        adjust(annotations={"a\x1b[2J": "b\nc"}),
        [r"+ annotation a\x1b[2J: b\nc"],
    ),
    "what is very long": (
        adjust(annotations={"a": "x" * 1000}),
        ["+ annotation a: " + "x" * 160 + "..."],
    ),
}


@pytest.mark.parametrize(("reply", "lines"), TABLE.values(), ids=TABLE.keys())
def test_an_adjustment_reads_as(
    request_: nri_pb2.CreateContainerRequest,
    reply: nri_pb2.CreateContainerResponse,
    lines: list[str],
) -> None:
    assert [str(change) for change in changes(request_, reply)] == lines


def test_a_change_has_its_parts_for_tools(request_: nri_pb2.CreateContainerRequest) -> None:
    reply = adjust(annotations={"example.com/c": "2"})
    assert changes(request_, reply) == [Change("annotations", "~", "example.com/c", "1", "2")]


def limited(container: str, limit: int) -> nri_pb2.ContainerUpdate:
    memory = nri_pb2.LinuxMemory(limit=nri_pb2.OptionalInt64(value=limit))
    resources = nri_pb2.LinuxResources(memory=memory)
    return nri_pb2.ContainerUpdate(
        container_id=container, linux=nri_pb2.LinuxContainerUpdate(resources=resources)
    )


def test_updates_and_evictions_of_other_containers_name_them(
    request_: nri_pb2.CreateContainerRequest,
) -> None:
    reply = nri_pb2.CreateContainerResponse(
        update=[limited("f" * 64, 1 << 20)],
        evict=[nri_pb2.ContainerEviction(container_id="other", reason="too hungry")],
    )
    assert [str(change) for change in changes(request_, reply)] == [
        "+ update ffffffffffff memory limit: 1MiB",
        "- evict other: too hungry",
    ]


def test_an_update_is_compared_with_the_update_that_was_asked_for() -> None:
    request = nri_pb2.UpdateContainerRequest(
        container=nri_pb2.Container(id="c"), linux_resources=limited("c", 5 << 20).linux.resources
    )
    reply = nri_pb2.UpdateContainerResponse(update=[limited("c", 1 << 20)])
    assert [str(change) for change in changes(request, reply)] == [
        "~ update c memory limit: 5MiB -> 1MiB"
    ]


def test_an_update_at_synchronisation_is_compared_with_the_container() -> None:
    container = nri_pb2.Container(id="c")
    container.linux.resources.CopyFrom(limited("c", 5 << 20).linux.resources)
    reply = nri_pb2.SynchronizeResponse(update=[limited("c", 1 << 20), limited("d", 7)])
    request = nri_pb2.SynchronizeRequest(containers=[container])
    assert [str(change) for change in changes(request, reply)] == [
        "~ update c memory limit: 5MiB -> 1MiB",
        "+ update d memory limit: 7B",
    ]


def test_a_rejection_is_told_with_its_reason() -> None:
    reply = nri_pb2.ValidateContainerAdjustmentResponse(reject=True, reason="no devices")
    request = nri_pb2.ValidateContainerAdjustmentRequest()
    assert [str(change) for change in changes(request, reply)] == ["- reject: no devices"]


@pytest.mark.parametrize("method", [*BY_METHOD, "Configure", "Synchronize", "StateChange"])
def test_every_method_has_messages_and_an_empty_reply_changes_nothing(method: str) -> None:
    request, reply = message_types(method)
    assert changes(request(), reply()) == []


def test_leaves_of_a_missing_message_are_none() -> None:
    assert leaves(None) == {}


@pytest.mark.parametrize("kind", [nri_pb2.CreateContainerRequest, nri_pb2.PodSandbox])
def test_leaves_tell_every_field(kind: Callable[[], Message]) -> None:
    message = kind()
    filled(message)
    names = {path.split()[0] for path in leaves(message)}
    assert names == {field.name for field in message.DESCRIPTOR.fields}
