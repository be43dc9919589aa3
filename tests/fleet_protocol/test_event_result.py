"""Outcomes as records of the fleet protocol."""

from pathlib import Path
from typing import Any

import pytest

from edge_agent.fleet_protocol.event_result import EventResult, describe
from edge_agent.nri import events, permissions
from edge_agent.pb import nri_pb2
from edge_agent.store.digest import Digest
from edge_agent.store.release import PluginId
from edge_agent.wasm.imports import Report
from tests.host.house import House

DATA = Path(__file__).parent.parent / "data"
REQUEST = (DATA / "containerd-2.1.9-create_container_request.bin").read_bytes()
ADJUSTED = nri_pb2.CreateContainerResponse(
    adjust=nri_pb2.ContainerAdjustment(
        annotations={"a": "b"},
        linux=nri_pb2.LinuxContainerAdjustment(devices=[nri_pb2.LinuxDevice(path="/dev/x")]),
    ),
    evict=[nri_pb2.ContainerEviction(container_id="x")],
).SerializeToString()


def outcome(**changes: Any) -> EventResult:
    base = EventResult(
        time_ns=1_700_000_000_500_000_000,
        plugin=PluginId("10-a"),
        digest=Digest.of_hex("ab" * 32),
        runtime="/var/run/nri/nri.sock",
        event="CreateContainer",
        export="plugin_create_container",
        kind="ok",
        duration_ns=1_234_567,
        request=REQUEST,
        reply=ADJUSTED,
        error="",
        reports=(),
        wanted="all",
    )
    return base._replace(**changes)


def test_an_adjustment_is_told_with_its_fields_pod_and_container() -> None:
    record = describe(outcome())
    assert record is not None
    assert record["outcome"] == "adjusted"
    assert record["adjusted"] == ["annotations", "evict", "linux.devices"]
    assert record["pod"]["name"] == "pod-0"
    assert record["container"]["name"] == "main"
    assert record["duration_us"] == 1234
    assert record["time"] == 1_700_000_000.5


@pytest.mark.parametrize(
    ("kind", "wanted", "is_told"),
    [
        *(("would_adjust", wanted, wanted != "errors") for wanted in ("all", "changes", "errors")),
        *(("would_reject", wanted, True) for wanted in ("all", "changes", "errors")),
    ],
)
def test_what_a_monitored_plugin_would_have_done_is_told_like_what_others_do(
    kind: str, wanted: str, is_told: bool
) -> None:
    fields = (("adjusted", ("annotations", "update")),)
    asked = outcome(kind=kind, wanted=wanted, details=fields, monitored=True, withheld=2)
    record = describe(asked)
    assert (record is not None) == is_told
    if record is not None:
        assert (record["outcome"], record["mode"]) == (kind, "monitor")
        assert (record["adjusted"], record["updates_withheld"]) == (["annotations", "update"], 2)
        assert record["container"]["name"] == "main"
    ordinary = describe(outcome())
    assert ordinary is not None
    assert not {"mode", "updates_withheld"} & ordinary.keys()


@pytest.mark.parametrize("event", ["Configure", "Synchronize", "Shutdown"])
def test_a_report_of_a_guest_that_starts_is_about_no_pod(event: str) -> None:
    told = (Report("inventory", b"x", "text/plain"),)
    record = describe(outcome(event=event, export="", request=b"", reply=b"", reports=told))
    assert record is not None
    assert (record["event"], record["outcome"]) == (event, "ok")
    assert record["reports"][0]["kind"] == "inventory"
    assert "pod" not in record


@pytest.mark.parametrize("method", events.BY_METHOD)
def test_every_event_tells_its_pod_and_its_container(method: str) -> None:
    """Against the whole message: what is read is a part of it, with numbers of its own."""
    whole = getattr(nri_pb2, f"{method}Request").FromString(REQUEST if _has(method) else b"")
    whole.pod.CopyFrom(nri_pb2.CreateContainerRequest.FromString(REQUEST).pod)
    if method == "UpdatePodSandbox":  # other fields stand where a container would
        whole.overhead_linux_resources.memory.limit.value = 1 << 20
    record = describe(outcome(event=method, export="x", request=whole.SerializeToString()))
    _tells(record, whole)


@pytest.mark.parametrize(
    "method", [event.method for event in events.EVENTS if event.in_state_change]
)
def test_an_event_that_came_as_a_change_of_state_tells_its_pod_and_container(method: str) -> None:
    whole = nri_pb2.CreateContainerRequest.FromString(REQUEST)
    change = nri_pb2.StateChangeEvent(
        event=nri_pb2.Event.Name(events.BY_METHOD[method].number),
        pod=whole.pod,
        container=whole.container if _has(method) else None,
    )
    export = events.EXPORTS[events.STATE_CHANGE]
    record = describe(outcome(event=method, export=export, request=change.SerializeToString()))
    _tells(record, change)


def _has(method: str) -> bool:
    return "container" in getattr(nri_pb2, f"{method}Request").DESCRIPTOR.fields_by_name


def _tells(record: Any, whole: Any) -> None:
    pod = whole.pod
    assert pod.uid
    assert record["pod"] == {"namespace": pod.namespace, "name": pod.name, "uid": pod.uid}
    container = getattr(whole, "container", None)
    if container is None or not container.id:
        assert "container" not in record
    else:
        assert record["container"] == {"name": container.name, "id": container.id}


def test_its_size_counts_what_others_determine() -> None:
    told = (Report("k", b"x" * 100, "text/plain"), Report("k", b"y" * 10, "text/plain"))
    assert outcome(request=b"12", reply=b"3", error="four", reports=told).size == 117


def test_an_empty_reply_is_ok() -> None:
    record = describe(outcome(reply=b""))
    assert record is not None
    assert record["outcome"] == "ok"
    assert "adjusted" not in record


def test_a_state_change_is_told_of_its_pod() -> None:
    pod = nri_pb2.PodSandbox(name="p", namespace="n")
    change = nri_pb2.StateChangeEvent(event=nri_pb2.RUN_POD_SANDBOX, pod=pod)
    record = describe(
        outcome(
            event="RunPodSandbox",
            export="plugin_state_change",
            request=change.SerializeToString(),
            reply=b"",
        )
    )
    assert record is not None
    assert record["pod"] == {"namespace": "n", "name": "p", "uid": ""}
    assert "container" not in record


def test_garbage_is_told_not_raised() -> None:
    record = describe(outcome(request=b"\xff\xff", reply=b"\xff"))
    assert record is not None
    assert record["outcome"] == "error"
    assert "CreateContainerResponse" in record["error"]
    assert "pod" not in record


@pytest.mark.parametrize(
    ("wanted", "changes", "told"),
    [
        ("all", {"reply": b""}, True),
        ("changes", {"reply": b""}, False),
        ("changes", {}, True),
        ("changes", {"reply": b"", "reports": (Report("k", b"p", "text/plain"),)}, True),
        ("changes", {"kind": "timeout", "reply": b""}, True),
        ("errors", {}, False),
        ("errors", {"kind": "rejected", "reply": b""}, True),
    ],
)
def test_the_report_setting_chooses(wanted: str, changes: dict[str, Any], told: bool) -> None:
    assert (describe(outcome(wanted=wanted, **changes)) is not None) is told


def test_reports_of_the_plugin_come_along() -> None:
    record = describe(outcome(reports=(Report("k", b"\x01", "x/y"),)))
    assert record is not None
    assert record["reports"] == [{"kind": "k", "content_type": "x/y", "payload": b"\x01"}]


def test_permissions_name_what_is_refused() -> None:
    with pytest.raises(permissions.NotPermitted, match=r"touches evict, linux\.devices"):
        permissions.check("CreateContainer", ADJUSTED, ("annotations",))
    permissions.check("CreateContainer", ADJUSTED, ("annotations", "evict", "linux.devices"))
    permissions.check("CreateContainer", ADJUSTED, None)
    permissions.check("StartContainer", ADJUSTED, ())


@pytest.mark.parametrize(
    ("reply", "name"),
    [
        (b"\xfa\x01\x00", "field 31"),
        (b"\x0a\x03\xfa\x01\x00", "field 31"),
        (b"\x0a\x05\x32\x03\xfa\x01\x00", r"linux\.field 31"),
    ],
    ids=["reply", "adjust", "linux"],
)
def test_a_field_of_a_newer_nri_needs_a_permission_that_nobody_has(reply: bytes, name: str) -> None:
    with pytest.raises(permissions.NotPermitted, match=name):
        permissions.check("CreateContainer", reply, ("annotations", "linux.devices"))


def test_every_field_of_an_adjustment_has_a_permission() -> None:
    from edge_agent.config import PERMISSIONS

    fields = {field.name.lower() for field in nri_pb2.ContainerAdjustment.DESCRIPTOR.fields}
    linux = {f"linux.{field.name}" for field in nri_pb2.LinuxContainerAdjustment.DESCRIPTOR.fields}
    assert set(PERMISSIONS) == (fields - {"linux"}) | linux | {"update", "evict"}


def test_the_runtime_of_a_result_is_that_of_the_state(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        house.run(house.release("10-edge", "edge"))
        pod = house.during(lambda: house.runtime.run_pod("web")).pod
        house.during(lambda: house.runtime.create_container(pod, "app"))
        told = {each.runtime for each in house.results}
        assert told == {each["socket"] for each in house.supervisor.runtimes()}
        assert told == {each["runtime"] for each in house.supervisor.plugins()}


def test_what_became_of_a_reply_has_its_fields_and_the_other_plugin() -> None:
    details = (("fields", ("env A",)), ("with", ("20-b",)))
    aftermath = outcome(kind="conflict", reply=b"", error="env A: ...", details=details)
    for wanted in ("all", "changes", "errors"):
        record = describe(aftermath._replace(wanted=wanted))
        assert record is not None
        assert record["outcome"] == "conflict"
        assert (record["fields"], record["with"]) == (["env A"], ["20-b"])
        assert record["container"]["name"] == "main"
        assert "adjusted" not in record
    assert aftermath.size == len(REQUEST) + len("env A: ...") + len("env A") + len("20-b")
