"""event-logger: a line and a report for every event of either generation."""

import json

import pytest

from edge_agent.pb import nri_pb2

from .guest import PLUGINS, Guest, GuestError, capture, plugin

CREATE = nri_pb2.CreateContainerRequest.FromString(capture("create_container"))
POD = {"id": CREATE.pod.id, "name": "pod-0", "namespace": "default"}
CONTAINER = {"id": CREATE.container.id, "name": "main"}
INFO, DEBUG = nri_pb2.LogRequest.LEVEL_INFO, nri_pb2.LogRequest.LEVEL_DEBUG

POD_EVENTS = [
    "run_pod_sandbox",
    "stop_pod_sandbox",
    "remove_pod_sandbox",
    "update_pod_sandbox",
    "post_update_pod_sandbox",
]
CONTAINER_EVENTS = [
    "create_container",
    "post_create_container",
    "start_container",
    "post_start_container",
    "update_container",
    "post_update_container",
    "stop_container",
    "remove_container",
]


def configured(text: str = "") -> Guest:
    guest = Guest(plugin("event-logger"))
    guest.configure(text)
    return guest


def reported(guest: Guest) -> dict[str, object]:
    (report,) = guest.reports
    assert (report.kind, report.content_type) == ("event", "application/json")
    content: dict[str, object] = json.loads(report.payload)
    return content


def test_it_exports_every_method() -> None:
    assert configured().methods == {
        *POD_EVENTS,
        *CONTAINER_EVENTS,
        *("configure", "synchronize", "shutdown", "state_change"),
        "validate_container_adjustment",
    }


@pytest.mark.parametrize("method", [*CONTAINER_EVENTS, "validate_container_adjustment"])
def test_a_container_event_by_its_own_method(method: str) -> None:
    guest = configured()
    assert guest.call(method, CREATE.SerializeToString()) == b""
    assert guest.logs == [(INFO, f"{method} default/pod-0 main")]
    assert reported(guest) == {"event": method, "pod": POD, "container": CONTAINER}


@pytest.mark.parametrize("method", POD_EVENTS)
def test_a_pod_event_by_its_own_method(method: str) -> None:
    # Field 2 of an UpdatePodSandboxRequest is no container.
    request = nri_pb2.UpdatePodSandboxRequest(pod=CREATE.pod)
    request.overhead_linux_resources.memory.limit.value = 1
    guest = configured()
    assert guest.call(method, request.SerializeToString()) == b""
    assert guest.logs == [(INFO, f"{method} default/pod-0")]
    assert reported(guest) == {"event": method, "pod": POD}


@pytest.mark.parametrize("method", [*POD_EVENTS, *CONTAINER_EVENTS])
def test_an_event_by_state_change_reads_the_same(method: str) -> None:
    change = nri_pb2.StateChangeEvent(
        event=method.upper(),
        pod=CREATE.pod,
        container=CREATE.container if method in CONTAINER_EVENTS else None,
    )
    guest = configured()
    assert guest.call("state_change", change.SerializeToString()) == b""
    own = configured()
    request = CREATE if method in CONTAINER_EVENTS else nri_pb2.RunPodSandboxRequest(pod=CREATE.pod)
    own.call(method, request.SerializeToString())
    assert guest.logs == own.logs
    assert guest.reports == own.reports


def test_an_event_that_is_not_known_yet() -> None:
    guest = configured()
    guest.call("state_change", nri_pb2.StateChangeEvent(event=nri_pb2.LAST).SerializeToString())
    assert reported(guest) == {"event": "unknown_event"}


def test_the_captured_requests() -> None:
    guest = configured()
    guest.call("run_pod_sandbox", capture("run_pod_sandbox"))
    guest.call("create_container", capture("create_container"))
    assert guest.lines == ["run_pod_sandbox default/pod-0", "create_container default/pod-0 main"]


def test_synchronize_and_shutdown() -> None:
    request = nri_pb2.SynchronizeRequest(pods=[CREATE.pod] * 3, containers=[CREATE.container] * 2)
    guest = configured()
    assert guest.call("synchronize", request.SerializeToString()) == b""
    assert guest.call("shutdown", b"") == b""
    assert guest.lines == ["synchronize: 3 pods, 2 containers", "shutdown"]
    assert reported(guest) == {"event": "synchronize", "pods": 3, "containers": 2}


def test_names_that_json_has_to_escape() -> None:
    request = nri_pb2.CreateContainerRequest()
    request.container.name = 'a"b\\c\n\x1f\u00e9'
    request.container.id = "x" * 100_000
    guest = configured()
    guest.create(request)
    container = reported(guest)["container"]
    assert container == {"id": "x" * 256, "name": 'a"b\\c\n\x1f\u00e9'}


@pytest.mark.parametrize(
    ("text", "levels", "reports"),
    [
        ("", [INFO], 1),
        ("log = debug", [DEBUG], 1),
        ("log=off", [], 1),
        ("report = off", [INFO], 0),
        ("namespace = def*", [INFO], 1),
        ("namespace = kube-*", [], 0),
        ((PLUGINS / "event-logger" / "event-logger.conf").read_text(), [INFO], 1),
    ],
)
def test_configurations(text: str, levels: list[int], reports: int) -> None:
    guest = configured(text)
    guest.create(CREATE)
    assert [level for level, _ in guest.logs] == levels
    assert len(guest.reports) == reports


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("log = loud", "line 1: log is info, debug or off"),
        ("\nreport = yes", "line 2: report is on or off"),
        ("namespace =", "line 1: unknown setting namespace =; known are log, report and namespace"),
        ("events = all", "line 1: unknown setting events = all; known are"),
    ],
)
def test_wrong_configurations_fail_configure(text: str, says: str) -> None:
    with pytest.raises(GuestError) as caught:
        configured(text)
    assert str(caught.value).startswith(says)
