"""A runtime that comes back, is replaced or is reloaded: when the plugins are there again."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent import pathwatch
from edge_agent.host.runtime_endpoint import (
    EARLY_FOR_S,
    EARLY_MAX_S,
    FIRST_S,
    LATE_MAX_S,
    Reconnect,
    RuntimeEndpoint,
)
from edge_agent.loop import Timer
from edge_agent.pb import nri_pb2
from edge_agent.sim.runtime import SimRuntime
from edge_agent.store.release import PluginId, Probation
from tests.host.house import House
from tests.support.agent import Agent, guest
from tests.support.goanswers import Call
from tests.support.gobuild import require_go
from tests.support.gopeers import NriRuntime

DEFAULTS = {"reconnect_min": "250ms", "reconnect_max": "30s"}  # as files in the field may say


def waits(policy: Reconnect, seconds: float) -> list[tuple[float, float]]:
    """(when, how long until the next) of each failed attempt in this time."""
    now, found = 100.0, []
    while now < 100.0 + seconds:
        wait = policy.failed(now)
        found.append((now - 100.0, wait))
        now += wait
    return found


def test_no_wait_is_longer_than_a_restart_may_take() -> None:
    """Whatever the configuration says: a board's may be of a time when both meant more."""
    for early_s, late_s in ((0.25, 2.0), (0.25, 30.0), (1.5, 3600.0)):
        found = waits(Reconnect(early_s, late_s), 60.0)
        assert found[0] == (0.0, FIRST_S)
        assert max(wait for when, wait in found if when < EARLY_FOR_S) == EARLY_MAX_S
        assert max(wait for _, wait in found) == LATE_MAX_S
        assert len(found) < 80  # and not one busy loop


def test_shorter_waits_are_taken_as_configured() -> None:
    found = waits(Reconnect(0.02, 0.1), 60.0)
    assert {wait for when, wait in found if when < EARLY_FOR_S} == {
        *(0.002, 0.004, 0.008, 0.016, 0.02)
    }
    assert found[-1][1] == 0.1


def test_a_runtime_that_was_reached_is_waited_for_from_the_beginning() -> None:
    policy = Reconnect(0.25, 2.0)
    before = waits(policy, 30.0)
    policy.reset()
    assert waits(policy, 30.0) == before


def waiting(house: House, plugins: int) -> bool:
    return all(
        house.slot(each).state.ready and house.status(each) == "waiting" for each in names(plugins)
    )


@pytest.mark.system
@pytest.mark.parametrize("plugins", [1, 8])
def test_the_wait_is_the_runtimes_and_no_longer_with_more_plugins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugins: int
) -> None:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    with House(tmp_path, reconnect=(0.25, 30.0)) as house:
        house.run(*(house.release(identity, "bench") for identity in names(plugins)))
        planned, plan = [], house.loop.call_later

        def call_later(seconds: float, callback: Callable[[], None]) -> Timer:
            if callback.__qualname__.startswith(RuntimeEndpoint.__name__):
                planned.append(seconds)
            return plan(seconds, callback)

        house.during(house.runtime.stop)
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(house.runtime.path))  # a file, and nobody who listens
            house.until(lambda: waiting(house, plugins), "they wait, ready")
            monkeypatch.setattr(house.loop, "call_later", call_later)
            house.until(lambda: len(planned) >= 12, "a dozen attempts")
        assert waiting(house, plugins)
        assert max(planned) <= EARLY_MAX_S
        assert planned[:12].count(EARLY_MAX_S) >= 3


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    with House(tmp_path) as house:
        yield house


def test_guests_are_made_while_the_runtime_is_away(house: House) -> None:
    releases = [house.release(identity, "edge") for identity in names(3)]
    house.run(*releases)
    house.during(house.runtime.stop)
    house.until(lambda: waiting(house, 3), "they wait, ready")
    assert house.supervisor.runtimes()[0]["state"] == "waiting"
    house.runtime.start()
    house.run(*releases)
    for each in releases:
        entry = house.entry(each.identity)
        assert (entry["failures"], entry["restarts"]) == ({}, 0)
        assert "error" not in entry


def test_no_guest_is_made_for_a_runtime_that_was_never_there(tmp_path: Path) -> None:
    """Its memory would be lost, as long as the agent lives."""
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    absent = SimRuntime(tmp_path / "absent.sock")
    with House(tmp_path, second=absent) as house:
        house.during(absent.stop)
        house.until(lambda: house.supervisor.runtimes()[1]["state"] == "waiting", "it goes")
        house.run(house.release("10-edge", "edge"))
        assert not house.supervisor.endpoints[1].slots[PluginId("10-edge")].state.ready


def test_those_that_must_not_be_missed_are_registered_first(tmp_path: Path) -> None:
    """A runtime takes one after the other, and creates containers in between."""
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    order: list[str] = []

    def noted(index: str, name: str) -> str:
        order.append(f"{index}-{name}")
        return ""

    with House(tmp_path, SimRuntime(tmp_path / "nri.sock", refuse=noted)) as house:
        releases = [
            house.release(identity, "bench", failure_policy=policy)
            for identity, policy in zip(names(4), ("Ignore", "Fail", "Ignore", "Fail"), strict=True)
        ]
        house.run(*releases)
        house.during(house.runtime.stop)
        house.until(lambda: waiting(house, 4), "they wait, ready")
        order.clear()
        house.runtime.start()
        house.run(*releases)
    assert order == ["11-edge", "13-edge", "10-edge", "12-edge"]


def test_another_release_is_what_is_ready_when_the_runtime_is_back(house: House) -> None:
    one, two = (house.release("10-edge", "edge", config=each) for each in "ab")
    house.run(one)
    house.during(house.runtime.stop)
    house.until(lambda: house.slot("10-edge").state.ready, "it waits, ready")
    house.apply(two)
    house.until(lambda: house.slot("10-edge").state.ready, "so does the other")
    house.runtime.start()
    house.run(two)


@pytest.mark.system
def test_a_release_is_not_judged_by_the_restarts_of_its_runtime(tmp_path: Path) -> None:
    """Turned away twice in a row it would be rejected, if the runtime did it."""
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")

    runtime = Ending(tmp_path / "nri.sock")
    with House(tmp_path, runtime) as house:
        release = house.release("10-edge", "edge")
        house.apply(replace(release, probation=Probation(1_000_000, 3600.0, 0)))
        for ends in range(2):
            house.until(runtime.ended.is_set, f"its end number {ends + 1}")
            runtime.ended.clear()
            house.during(runtime.restart)
        house.until(lambda: house.status("10-edge") == "probation", "it is served")
        assert house.verdicts == []
        assert house.entry("10-edge")["failures"] == {}


class Ending(SimRuntime):
    """Ends in the middle of its first two synchronisations."""

    ends = 2

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.ended = threading.Event()

    def sync_parts(self) -> list[nri_pb2.SynchronizeRequest]:
        if self.ends:
            self.ends -= 1
            assert self._listener is not None
            self.path.unlink()
            self._listener.shutdown(socket.SHUT_RDWR)
            for connection in list(self._connections):
                connection.close("ends")
            self.ended.set()
        return super().sync_parts()


# --- upstream's own runtime side


@pytest.fixture
def path(tmp_path: Path) -> Path:
    require_go()
    return tmp_path / "nri.sock"


def asked(calls: Iterable[Call]) -> list[str]:
    """Who was asked about the creation, in order."""
    return [call.plugin for call in calls if call.operation == "CreateContainer"]


def names(count: int) -> list[str]:
    return [f"{10 + number}-edge" for number in range(count)]


@pytest.mark.system
def test_plugins_are_there_before_a_restarted_runtimes_later_containers(
    path: Path, tmp_path: Path
) -> None:
    """It was killed and left its socket behind; each plugin of eight doubled the others' wait."""
    plugins = dict.fromkeys(names(8), guest("event-logger"))
    with Agent(tmp_path / "agent", sockets=[path], plugins=plugins, nri=DEFAULTS) as agent:
        with NriRuntime(path) as runtime:
            agent.wait_running(*plugins)
            runtime.kill()
        agent.wait_for(lambda status: status["runtimes"][0]["state"] == "waiting", "it is missed")
        assert path.is_socket()
        with NriRuntime(path, burst={"max": 400, "pause_us": 20_000}) as runtime:
            runtime.wait_for_burst(400)
            made = runtime.burst_stop()
        assert asked(made[-1].calls) == list(plugins)
        for identity in plugins:
            assert agent.entry(identity)["failures"] == {}
            assert agent.entry(identity)["restarts"] == 0


@pytest.mark.system
def test_docker_engines_reload_takes_the_plugins_along(path: Path, tmp_path: Path) -> None:
    """The connections of before stay open for ever, and nothing comes through them."""
    plugins = dict.fromkeys(names(3), guest("event-logger"))
    with (
        NriRuntime(path, name="docker", version="29.7.2", careless=True) as runtime,
        Agent(tmp_path / "agent", sockets=[path], plugins=plugins, nri=DEFAULTS) as agent,
    ):
        agent.wait_running(*plugins)
        for reloads in range(1, 3):
            before = path.stat()
            runtime.reload()
            assert path.stat().st_mtime_ns != before.st_mtime_ns
            runtime.wait_for_plugins(*plugins)
            assert asked(runtime.create_container(f"c{reloads}").calls) == list(plugins)
            agent.wait_for_line("made a new socket and left", times=reloads)
            agent.wait_running(*plugins)
        assert [agent.entry(each)["failures"] for each in plugins] == [{}, {}, {}]


@pytest.mark.system
def test_a_placeholder_comes_along_at_a_reload_and_a_restart(path: Path, tmp_path: Path) -> None:
    """A plugin that must not be missed, and cannot be loaded: its containers stay refused."""
    broken = {"10-broken": b"\0asm\1\0\0\0"}
    with Agent(tmp_path / "agent", sockets=[path], plugins=broken) as agent:
        with NriRuntime(path, careless=True) as runtime:
            runtime.wait_for_plugins("10-broken")
            assert "10-broken" in runtime.create_container("c1").error
            runtime.reload()
            runtime.wait_for_plugins("10-broken")
            assert "10-broken" in runtime.create_container("c2").error
            runtime.kill()
        with NriRuntime(path) as runtime:
            runtime.wait_for_plugins("10-broken")
            assert "10-broken" in runtime.create_container("c3").error
        agent.wait_for(lambda status: status["runtimes"][0]["state"] == "waiting", "it is missed")


@pytest.mark.system
def test_a_reload_is_seen_without_inotify(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    monkeypatch.setattr(pathwatch, "_open", lambda: -1)  # the machine has no watch left
    with NriRuntime(path, careless=True) as runtime, House(tmp_path, socket=path) as house:
        house.run(house.release("10-edge", "bench"))
        runtime.reload()
        house.during(lambda: runtime.wait_for_plugins("10-edge"))
        assert house.during(runtime.create_container).plugins == ["10-edge"]


@pytest.mark.system
def test_two_runtimes_at_one_path_keep_what_they_have(path: Path, tmp_path: Path) -> None:
    """containerd and CRI-O have the same default; the second takes the path over."""
    plugins = {"10-edge": guest("bench")}
    with (
        NriRuntime(path) as first,
        Agent(tmp_path / "agent", sockets=[path], plugins=plugins) as agent,
    ):
        agent.wait_running(*plugins)
        with NriRuntime(path, name="cri-o", version="1.37.0") as second:
            agent.wait_for_line("give each its own socket")
            assert first.create_container("c1").plugins == list(plugins)
            first.kill()
            second.wait_for_plugins(*plugins)
            assert second.create_container("c2").plugins == list(plugins)
            agent.wait_running(*plugins)
            assert "reason" not in agent.status()["runtimes"][0]


@pytest.mark.system
def test_sessions_outlive_their_socket_file(path: Path, tmp_path: Path) -> None:
    """Somebody tidied up: the runtime still calls its plugins, and says so when it ends."""
    plugins = {"10-edge": guest("bench")}
    with (
        NriRuntime(path) as runtime,
        Agent(tmp_path / "agent", sockets=[path], plugins=plugins) as agent,
    ):
        agent.wait_running(*plugins)
        path.unlink()
        agent.wait_for_line("its socket is gone")
        assert runtime.create_container().plugins == list(plugins)
        runtime.kill()
        agent.wait_for(lambda status: status["runtimes"][0]["state"] == "waiting", "it is missed")
