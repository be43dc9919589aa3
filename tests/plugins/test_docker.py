"""The C plugins under Docker Engine: no pods, names with a slash, variables and mounts only.

Requests are made as moby makes them (v29.7.2, daemon/internal/nri/nri.go, containerToNRI), and
replies are judged as it takes them (checkForUnsupportedAdjustments, applyMounts).
"""

import base64
import json
from pathlib import Path

import pytest

from edge_agent.authors.tryout import Runtime, Tryout, read_plugin
from edge_agent.errors import EngineError
from edge_agent.nri.events import EXPORTS
from edge_agent.pb import nri_pb2
from edge_agent.wasm.engine_selection import select_engine
from tests.support.engines import PACKAGES
from tests.support.gobuild import require_go
from tests.support.gopeers import NriRuntime

from .guest import Guest, GuestError, plugin

ID = "8d1c2e7b6a5f4e3d2c1b0a9f8e7d6c5b4a3f2e1d0c9b8a7f6e5d4c3b2a1f0e9d"
MOUNT = "- {source: /srv/readings, destination: /data, type: bind, options: [rbind, ro]}"
DEVICE = "- {path: /dev/i2c-1, type: c, major: 89, minor: 1}"


def docker_request(
    annotations: dict[str, str] | None = None, labels: dict[str, str] | None = None
) -> nri_pb2.CreateContainerRequest:
    """What `docker run --name web --annotation ... --label ... alpine sleep 60` makes of it."""
    request = nri_pb2.CreateContainerRequest(
        pod=nri_pb2.PodSandbox(id=ID, name="/web"),
        container=nri_pb2.Container(
            id=ID,
            pod_sandbox_id=ID,
            name="/web",
            state=nri_pb2.CONTAINER_CREATED,
            labels=labels or {},
            annotations=annotations or {},
            args=["sleep", "60"],
            env=["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        ),
    )
    request.container.linux.SetInParent()
    return request


def as_docker_takes_them(adjust: nri_pb2.ContainerAdjustment) -> list[tuple[str, str, str, bool]]:
    """(type, source, target, read-only) of each mount, or the failure of `docker run`."""
    fields = {field.name for field, _ in adjust.ListFields()}
    assert fields <= {"env", "mounts"}, f"unsupported container adjustments: {fields}"
    for mount in adjust.mounts:
        for option in mount.options:
            assert option in ("ro", "readonly"), f'mount option "{option}" is not supported'
    return [
        (each.type, each.source, each.destination, bool(each.options)) for each in adjust.mounts
    ]


def in_base64(request: nri_pb2.CreateContainerRequest) -> str:
    return base64.b64encode(request.SerializeToString()).decode()


@pytest.fixture(scope="module")
def injector() -> Guest:
    guest = Guest(plugin("device-injector"))
    guest.configure("mount /srv/*\n")
    return guest


@pytest.mark.parametrize(
    "key",
    [
        "mounts.noderesource.dev/container.web",
        "mounts.nri.io/container.web",
        "mounts.noderesource.dev/pod",
        "mounts.noderesource.dev",
        "mounts.nri.io",
    ],
)
def test_a_mount_that_the_containers_annotation_names(injector: Guest, key: str) -> None:
    adjust = injector.create(docker_request({key: MOUNT})).adjust
    assert as_docker_takes_them(adjust) == [("bind", "/srv/readings", "/data", True)]
    assert injector.lines[-1] == "web: mount /srv/readings at /data"


@pytest.mark.parametrize("options", ["[bind, rw]", "[rbind, rprivate]", "[]"])
def test_options_that_docker_sets_by_itself_are_not_passed_on(
    injector: Guest, options: str
) -> None:
    wish = f"- {{source: /srv/a, destination: /a, type: bind, options: {options}}}"
    adjust = injector.create(docker_request({"mounts.noderesource.dev": wish})).adjust
    assert as_docker_takes_them(adjust) == [("bind", "/srv/a", "/a", False)]


def test_an_option_that_docker_does_not_take_is_refused_with_its_place(injector: Guest) -> None:
    wish = "- source: /srv/a\n  destination: /a\n  type: bind\n  options: [ro, noexec]\n"
    with pytest.raises(GuestError) as caught:
        injector.create(docker_request({"mounts.noderesource.dev": wish}))
    assert str(caught.value) == (
        "annotation mounts.noderesource.dev, line 4: Docker Engine takes no option noexec "
        "of a plugin's mount, only ro"
    )


def test_a_device_is_refused_with_what_to_do_instead(injector: Guest) -> None:
    with pytest.raises(GuestError) as caught:
        injector.create(docker_request({"devices.noderesource.dev/container.web": DEVICE}))
    assert str(caught.value) == (
        "annotation devices.noderesource.dev/container.web, line 1: Docker Engine takes no "
        "devices from a plugin; use `docker run --device /dev/i2c-1` instead"
    )


@pytest.mark.parametrize(
    ("annotation", "text", "says"),
    [
        (
            "cdi-devices.noderesource.dev",
            "- hailo.example/npu=0",
            "devices from a plugin; use `docker run --device hailo.example/npu=0` instead",
        ),
        (
            "network-devices.noderesource.dev",
            "[{hostIf: can0, name: can0}]",
            "network devices from a plugin",
        ),
    ],
)
def test_nor_does_docker_take_other_devices(
    injector: Guest, annotation: str, text: str, says: str
) -> None:
    with pytest.raises(GuestError) as caught:
        injector.create(docker_request({annotation: text}))
    assert str(caught.value) == f"annotation {annotation}, line 1: Docker Engine takes no {says}"


def test_rules_hold_for_docker_too(injector: Guest) -> None:
    wish = "- {source: /etc, destination: /x, type: bind}"
    with pytest.raises(GuestError, match="no rule of the configuration allows mounting /etc"):
        injector.create(docker_request({"mounts.noderesource.dev": wish}))


def test_an_images_labels_give_it_nothing(injector: Guest) -> None:
    labels = {"mounts.noderesource.dev": MOUNT, "mounts.noderesource.dev/container.web": MOUNT}
    request = docker_request(labels=labels)
    assert injector.call("create_container", request.SerializeToString()) == b""


def test_a_pods_container_gets_nothing_by_annotations_of_its_own(injector: Guest) -> None:
    # In Kubernetes the pod's annotations are the user's; a container's are made by others.
    request = docker_request({"mounts.noderesource.dev": MOUNT})
    request.pod.id = request.container.pod_sandbox_id = "another"
    assert injector.call("create_container", request.SerializeToString()) == b""


@pytest.mark.parametrize("engine", PACKAGES)
def test_device_injector_serves_docker_on_every_engine(engine: str) -> None:
    try:
        select_engine(engine)
    except EngineError as error:
        pytest.skip(f"needs {engine}: {error}")
    with Tryout(read_plugin(plugin("device-injector"), None, None), engine) as tryout:
        tryout.compile()
        tryout.start()
        tryout.configure(Runtime("docker", "29.7.2"))
        tryout.synchronize(b"")
        wish = docker_request({"mounts.noderesource.dev": MOUNT}).SerializeToString()
        reply = tryout.call(EXPORTS["CreateContainer"], wish)
        adjust = nri_pb2.CreateContainerResponse.FromString(reply).adjust
        assert as_docker_takes_them(adjust) == [("bind", "/srv/readings", "/data", True)]


@pytest.mark.system
def test_the_mount_reaches_a_runtime_that_speaks_as_docker_does(tmp_path: Path) -> None:
    require_go()
    from tests.support.agent import Agent

    socket = tmp_path / "nri.sock"
    plugins = {"10-device-injector": plugin("device-injector")}
    with (
        NriRuntime(socket, name="docker", version="29.7.2", owners=False, careless=True) as docker,
        Agent(tmp_path / "agent", sockets=[socket], plugins=plugins) as agent,
    ):
        agent.wait_running("10-device-injector")
        docker.wait_for_plugins("10-device-injector")
        request = docker_request({"mounts.noderesource.dev/container.web": MOUNT})
        outcome = docker.event("CreateContainer", base64=in_base64(request))
        assert outcome.error == ""
        (mount,) = outcome.adjust["mounts"]
        assert (mount["source"], mount["destination"]) == ("/srv/readings", "/data")
        request = docker_request({"devices.noderesource.dev/container.web": DEVICE})
        outcome = docker.event("CreateContainer", base64=in_base64(request))
        assert "docker run --device" in outcome.error


def test_the_other_plugins_name_a_container_without_its_slash() -> None:
    logger = Guest(plugin("event-logger"))
    logger.configure()
    logger.create(docker_request())
    assert logger.lines == ["create_container /web web"]
    assert json.loads(logger.reports[0].payload)["container"]["name"] == "web"

    guard = Guest(plugin("resource-guard"))
    guard.configure("[default]\npids.default = 7\n")
    guard.create(docker_request())
    assert guard.lines == ["web/web: pids limited to 7"]
