"""The simulated runtime, with plugins on the agent's own session and socket."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.errors import GuestError
from edge_agent.nri import events
from edge_agent.nri.session import DEFAULT_REQUEST_TIMEOUT_MS
from edge_agent.pb import nri_pb2
from edge_agent.sim import upstream
from edge_agent.sim.plugin_connection import PluginGone
from edge_agent.sim.runtime import SimRuntime
from tests.support.nativeplugin import Handler, NativePlugin
from tests.support.wait import TIMEOUT_S, wait_until

EVERY = frozenset(events.BY_METHOD)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "nri.sock"


def adding(**fields: object) -> Handler:
    """A CreateContainer that answers with this adjustment."""
    adjustment = nri_pb2.ContainerAdjustment(**fields)  # type: ignore[arg-type]
    reply = nri_pb2.CreateContainerResponse(adjust=adjustment).SerializeToString()
    return lambda _: reply


def env(key: str, value: str) -> Handler:
    return adding(env=[nri_pb2.KeyValue(key=key, value=value)])


def refusing(text: str) -> Handler:
    def handle(_: bytes) -> bytes:
        raise GuestError(text)

    return handle


@pytest.mark.parametrize(
    ("generation", "version", "last"),
    [("old", "v2.1.9", 11), ("middle", "v2.2.0", 14), ("new", "v2.3.0", 14)],
)
def test_a_plugin_registers_is_configured_and_synchronised(
    path: Path, generation: str, version: str, last: int
) -> None:
    with (
        SimRuntime(path, generation, name="containerd", version=version) as runtime,
        NativePlugin(path, "10", "one", {}, EVERY) as plugin,
    ):
        [served] = runtime.wait_for_plugins(1)
        assert served.events == (1 << last) - 1
        assert (served.identity, served.nri_version) == ("10-one", "v0.12.0")
        assert plugin.session.runtime is not None
        assert plugin.session.runtime.name == "containerd"
        assert plugin.session.runtime.nri_version == runtime.generation.nri_version
        assert plugin.session.runtime.request_timeout_ms == DEFAULT_REQUEST_TIMEOUT_MS


def test_plugins_are_asked_in_the_order_of_their_indices(path: Path) -> None:
    order: list[str] = []

    def noting(name: str) -> Handler:
        def handle(_: bytes) -> bytes:
            order.append(name)
            return b""

        return handle

    with SimRuntime(path) as runtime:
        plugins = [
            NativePlugin(path, index, f"p{index}", {"RunPodSandbox": noting(index)})
            for index in ("90", "10", "50")
        ]
        with plugins[0], plugins[1], plugins[2]:
            runtime.wait_for_plugins(3)
            outcome = runtime.run_pod("web")
    assert order == ["10", "50", "90"]
    assert [answer.plugin for answer in outcome.answers] == ["10-p10", "50-p50", "90-p90"]


def test_adjustments_are_merged_and_each_plugin_sees_those_before_it(path: Path) -> None:
    seen: list[nri_pb2.Container] = []

    def look(payload: bytes) -> bytes:
        seen.append(nri_pb2.CreateContainerRequest.FromString(payload).container)
        return b""

    first = env("FROM", "first")
    with (
        SimRuntime(path) as runtime,
        NativePlugin(path, "10", "first", {"CreateContainer": first}),
        NativePlugin(path, "20", "second", {"CreateContainer": look}),
    ):
        runtime.wait_for_plugins(2)
        pod = runtime.run_pod("web").pod
        outcome = runtime.create_container(pod, "app", env=["OWN=1"], memory_bytes=1 << 20)
    assert outcome.ok
    assert list(outcome.container.env) == ["OWN=1", "FROM=first"]
    assert outcome.container.linux.resources.memory.limit.value == 1 << 20
    assert [list(container.env) for container in seen] == [["OWN=1", "FROM=first"]]
    assert isinstance(outcome.request, nri_pb2.CreateContainerRequest)
    assert list(outcome.request.container.env) == ["OWN=1"]
    assert outcome.owners == {"env FROM": "10-first"}


def test_two_plugins_that_set_the_same_thing_fail_the_container(path: Path) -> None:
    with (
        SimRuntime(path) as runtime,
        NativePlugin(path, "10", "first", {"CreateContainer": env("A", "1")}),
        NativePlugin(path, "20", "second", {"CreateContainer": env("A", "2")}),
    ):
        runtime.wait_for_plugins(2)
        outcome = runtime.create_container(runtime.run_pod("web").pod, "app")
    assert outcome.error == "plugins 10-first and 20-second both set env A"
    assert not runtime.containers


def test_an_error_status_fails_the_container_and_keeps_the_plugin(path: Path) -> None:
    with (
        SimRuntime(path) as runtime,
        NativePlugin(path, "10", "strict", {"CreateContainer": refusing("not on my board")}),
    ):
        runtime.wait_for_plugins(1)
        outcome = runtime.create_container(runtime.run_pod("web").pod, "app")
        assert outcome.error == "not on my board"
        assert [plugin.name for plugin in runtime.plugins()] == ["strict"]


def test_a_late_plugin_is_dropped_and_the_container_is_created(path: Path) -> None:
    release = threading.Event()

    def wait(_: bytes) -> bytes:
        release.wait()
        return b""

    with (
        SimRuntime(path, request_timeout_s=2.0) as runtime,
        NativePlugin(path, "10", "late", {"CreateContainer": wait}) as late,
        NativePlugin(path, "20", "prompt", {"CreateContainer": env("A", "1")}),
    ):
        runtime.wait_for_plugins(2)
        outcome = runtime.create_container(runtime.run_pod("web").pod, "app")
        assert outcome.ok
        assert list(outcome.container.env) == ["A=1"]
        assert [answer.dropped for answer in outcome.answers] == [True, False]
        runtime.wait_for_plugins(1)
        release.set()
        assert late.closed.wait(TIMEOUT_S)
    assert runtime.dropped[0] == "10-late: no answer to CreateContainer within 2 s"


def test_an_old_runtime_multiplexes_pod_events_and_knows_eleven(path: Path) -> None:
    with (
        SimRuntime(path, "old") as runtime,
        NativePlugin(path, "10", "new-guest", {}, EVERY) as plugin,
    ):
        [served] = runtime.wait_for_plugins(1)
        assert served.events == (1 << 11) - 1
        pod = runtime.run_pod("web").pod
        outcome = runtime.create_container(pod, "app")
        runtime.event("UpdatePodSandbox", pod=pod)
        assert [answer.method for answer in outcome.answers] == [
            "CreateContainer",
            "StateChange",
            "StateChange",
            "StateChange",
        ]
        assert [call.event for call in plugin.calls] == [
            "RunPodSandbox",
            "CreateContainer",
            "PostCreateContainer",
            "StartContainer",
            "PostStartContainer",
        ]


def test_a_new_runtime_falls_back_to_state_change_once_and_for_all(path: Path) -> None:
    with (
        SimRuntime(path, "new") as runtime,
        NativePlugin(path, "10", "old-guest", {}, frozenset({"StateChange"})) as plugin,
    ):
        runtime.wait_for_plugins(1)
        outcomes = [runtime.run_pod(f"web{i}") for i in range(2)]
        assert all(outcome.ok for outcome in outcomes)
        assert [answer.method for o in outcomes for answer in o.answers] == ["StateChange"] * 2
        assert [call.event for call in plugin.calls] == ["RunPodSandbox"] * 2
        assert runtime.plugin("old-guest").deprecated == {"RunPodSandbox"}


def test_a_plugin_with_events_that_the_runtime_does_not_know_is_dropped(path: Path) -> None:
    with SimRuntime(path, "old", name="containerd", version="v2.2.0") as runtime:
        # The version says that it knows more: the agent believes it.
        with NativePlugin(path, "10", "one", {}, EVERY) as plugin:
            assert plugin.closed.wait(TIMEOUT_S)
        wait_until(
            lambda: any("invalid plugin events" in why for why in runtime.dropped),
            "the runtime says why",
        )


@pytest.mark.parametrize("split", [None, 1, 2])
def test_what_runs_is_synchronised_whole_or_in_parts(path: Path, split: int | None) -> None:
    with SimRuntime(path, split_sync=split) as runtime:
        for number in range(5):
            runtime.create_container(runtime.run_pod(f"pod{number}").pod, "app")
        with NativePlugin(path, "10", "one", {}, frozenset({"Synchronize"})) as plugin:
            runtime.wait_for_plugins(1)
            [call] = plugin.called("Synchronize")
    whole = nri_pb2.SynchronizeRequest.FromString(call.payload)
    assert {pod.name for pod in whole.pods} == {f"pod{number}" for number in range(5)}
    assert len(whole.containers) == 5
    assert not whole.more


def test_a_validator_judges_what_the_others_made(path: Path) -> None:
    def judge(payload: bytes) -> bytes:
        request = nri_pb2.ValidateContainerAdjustmentRequest.FromString(payload)
        keys = [entry.key for entry in request.adjust.env]
        return nri_pb2.ValidateContainerAdjustmentResponse(
            reject="BAD" in keys, reason=f"{keys} is not allowed"
        ).SerializeToString()

    with (
        SimRuntime(path) as runtime,
        NativePlugin(path, "10", "adder", {"CreateContainer": env("BAD", "1")}),
        NativePlugin(path, "90", "judge", {"ValidateContainerAdjustment": judge}),
    ):
        runtime.wait_for_plugins(2)
        outcome = runtime.create_container(runtime.run_pod("web").pod, "app")
    assert outcome.error == (
        "validator plugin 90-judge rejects the container: ['BAD'] is not allowed"
    )


def test_updates_and_evictions_are_collected(path: Path) -> None:
    def handler(container: str) -> Handler:
        reply = nri_pb2.CreateContainerResponse()
        update = reply.update.add(container_id=container)
        update.linux.resources.cpu.shares.value = 7
        reply.evict.add(container_id=container, reason="make room")
        return lambda _: reply.SerializeToString()

    with SimRuntime(path) as runtime:
        pod = runtime.run_pod("web").pod
        first = runtime.create_container(pod, "first").container
        handlers = {"CreateContainer": handler(first.id)}
        with NativePlugin(path, "10", "one", handlers):
            runtime.wait_for_plugins(1)
            outcome = runtime.create_container(pod, "second")
    assert runtime.containers[first.id].linux.resources.cpu.shares.value == 7
    assert [eviction.reason for eviction in outcome.evictions] == ["make room"]


def test_unsolicited_updates_name_the_containers_that_are_not_there(path: Path) -> None:
    with SimRuntime(path) as runtime, NativePlugin(path, "10", "one", {}, EVERY) as plugin:
        runtime.wait_for_plugins(1)
        there = runtime.create_container(runtime.run_pod("web").pod, "app").container
        request = nri_pb2.UpdateContainersRequest()
        for container in (there.id, "gone"):
            request.update.add(container_id=container).linux.resources.pids.limit = 9
        plugin.update_containers(request.SerializeToString())
        runtime.wait_until(lambda _: bool(runtime.unsolicited), "an unsolicited update")
        assert runtime.containers[there.id].linux.resources.pids.limit == 9
        runtime.run_pod("later")  # answered after the update was
        assert [updated.failed for updated in plugin.updated] == [("gone",)]


def test_update_and_stop_tell_every_step(path: Path) -> None:
    with SimRuntime(path) as runtime, NativePlugin(path, "10", "one", {}, EVERY) as plugin:
        runtime.wait_for_plugins(1)
        pod = runtime.run_pod("web").pod
        container = runtime.create_container(pod, "app").container
        resources = nri_pb2.LinuxResources(pids=nri_pb2.LinuxPids(limit=3))
        assert runtime.update_container(container, resources).ok
        assert runtime.containers[container.id].linux.resources.pids.limit == 3
        plugin.calls.clear()
        assert runtime.stop_pod(pod).ok
        assert [call.event for call in plugin.calls] == [
            "StopContainer",
            "RemoveContainer",
            "StopPodSandbox",
            "RemovePodSandbox",
        ]
    assert not runtime.pods
    assert not runtime.containers


def test_a_restart_ends_sessions_and_keeps_containers(path: Path) -> None:
    with SimRuntime(path) as runtime:
        runtime.create_container(runtime.run_pod("web").pod, "app")
        with NativePlugin(path, "10", "before", {}, EVERY) as before:
            runtime.wait_for_plugins(1)
            runtime.restart()
            assert before.closed.wait(TIMEOUT_S)
        assert runtime.plugins() == []
        with NativePlugin(path, "10", "after", {}, frozenset({"Synchronize"})) as after:
            runtime.wait_for_plugins(1)
            [call] = after.called("Synchronize")
    assert len(nri_pb2.SynchronizeRequest.FromString(call.payload).containers) == 1


@pytest.mark.parametrize(("index", "name"), [("1", "one"), ("xx", "one"), ("10", "a b")])
def test_an_impossible_name_is_refused(path: Path, index: str, name: str) -> None:
    with SimRuntime(path) as runtime, NativePlugin(path, index, name, {}, EVERY) as plugin:
        assert plugin.closed.wait(TIMEOUT_S)
        assert "the runtime refuses" in plugin.reason
        assert runtime.plugins() == []


def test_a_refused_registration_tells_the_plugin_why(path: Path) -> None:
    with (
        SimRuntime(path, refuse=lambda index, name: f"no {index}-{name} here") as _,
        NativePlugin(path, "10", "one", {}, EVERY) as plugin,
    ):
        assert plugin.closed.wait(TIMEOUT_S)
    assert plugin.reason.endswith("the runtime refuses 10-one: no 10-one here")


def misbehaviours() -> list[Callable[[], bytes]]:
    return [
        lambda: upstream.frame(7, b"x"),
        lambda: upstream.write(upstream.PLUGIN, 1, upstream.REQUEST, b""),
        lambda: upstream.write(upstream.PLUGIN, 99, upstream.RESPONSE, b""),
        lambda: upstream.write(upstream.RUNTIME, 99, upstream.RESPONSE, b""),
        lambda: b"GET / HTTP/1.1\r\nHost: nri\r\n\r\n",
    ]


@pytest.mark.parametrize("bytes_of", misbehaviours())
def test_what_a_misbehaving_runtime_sends_ends_that_session_alone(
    path: Path, bytes_of: Callable[[], bytes]
) -> None:
    with (
        SimRuntime(path) as runtime,
        NativePlugin(path, "10", "victim", {}, EVERY) as victim,
        NativePlugin(path, "20", "other", {}, EVERY),
    ):
        runtime.wait_for_plugins(2)
        runtime.send_raw("victim", bytes_of())
        assert victim.closed.wait(TIMEOUT_S)
        assert victim.reason.startswith("the runtime broke the protocol: ")
        runtime.wait_for_plugins(1)
        assert runtime.run_pod("web").ok
        with pytest.raises(LookupError, match="no plugin victim"):
            runtime.plugin("victim")


def test_a_plugin_that_leaves_during_an_event_is_dropped(path: Path) -> None:
    with SimRuntime(path) as runtime:
        leaving = NativePlugin(path, "10", "leaving", {}, EVERY)

        def leave(_: bytes) -> bytes:
            leaving.leave()
            return b""

        leaving.handlers = {"RunPodSandbox": leave}
        with leaving:
            runtime.wait_for_plugins(1)
            outcome = runtime.run_pod("web")
    assert outcome.ok
    assert [answer.dropped for answer in outcome.answers] == [True]
    assert outcome.answers[0].error == "the plugin closed the connection"


def test_a_socket_that_cannot_be_made_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file or directory"):
        SimRuntime(tmp_path / "missing" / "nri.sock").start()


def test_raw_bytes_to_a_plugin_that_left_are_an_error(path: Path) -> None:
    with SimRuntime(path) as runtime:
        with NativePlugin(path, "10", "one", {}, EVERY):
            [served] = runtime.wait_for_plugins(1)
        runtime.wait_for_plugins(0)
        with pytest.raises(PluginGone):
            served.connection.send_raw(b"x")
