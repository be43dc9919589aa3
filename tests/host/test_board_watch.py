"""Plugins that are called by time and by pressure of the board, on every engine."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from edge_agent.config import Limits, pressure
from edge_agent.errors import EngineError
from edge_agent.fleet_protocol.event_result import describe
from edge_agent.host import board_watch, readings
from edge_agent.loop import Loop, Timer
from edge_agent.nri.link import Link
from edge_agent.sim.plugin_connection import Outcome
from edge_agent.wasm.engine_selection import engine_names, select_engine
from tests.host.house import House
from tests.host.test_readings import CALM, board
from tests.support.agent import Agent, guest
from tests.support.gopeers import NriRuntime
from tests.support.memorypressure import memory_pressure
from tests.support.wait import wait_until

NAME = "10-pressure"
PRESSED = (
    "some avg10=25.00 avg60=12.00 avg300=3.00 total=99\n"
    "full avg10=1.00 avg60=0.50 avg300=0.10 total=9\n"
)
RELIEVED = f"some {CALM}\nfull {CALM}\n"
WATCH: dict[str, Any] = {"pressure": (("every", "20ms"), ("memory", "some 20% over 10s"))}
TIMER: dict[str, Any] = {"timer": 0.05}


@pytest.fixture(params=engine_names())
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    try:
        select_engine(name)
    except EngineError as error:
        pytest.skip(f"needs {name}: {error}")
    return name


@pytest.fixture(autouse=True)
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A board whose memory is short, and a watch that has less patience."""
    root = board(tmp_path / "root", PRESSED, zones="61000")
    read = readings.read
    monkeypatch.setattr(readings, "read", lambda _, disks: read(root, disks))
    monkeypatch.setattr(board_watch, "LOOK_S", 0.01)
    monkeypatch.setattr(pressure, "LEAST_S", 0.001)
    return root


def told(house: House, event: str) -> list[dict[str, Any]]:
    found = [describe(each) for each in house.results if each.event == event]
    return [each for each in found if each is not None]


def reports(house: House, event: str) -> list[bytes]:
    return [
        report.payload for each in house.results if each.event == event for report in each.reports
    ]


def create(house: House, **more: Any) -> Outcome:
    pod = house.during(lambda: house.runtime.run_pod("web")).pod
    return house.during(lambda: house.runtime.create_container(pod, "app", **more))


def relieve(system: Path) -> None:
    (system / "proc/pressure/memory").write_text(RELIEVED)


@pytest.mark.parametrize("instance", ["lasting", "per-event"])
def test_a_plugin_is_called_again_and_again_by_its_timer(
    tmp_path: Path, engine: str, instance: str
) -> None:
    with House(tmp_path, engine=engine) as house:
        house.run(house.release(NAME, "pressure", instance=instance, **TIMER))
        house.until(lambda: len(reports(house, "OnTimer")) >= 3, "the timer")
        assert set(reports(house, "OnTimer")) == {b"50 2500"}
        record = told(house, "OnTimer")[0]
        assert (record["outcome"], record["reports"][0]["kind"]) == ("ok", "timer")
        assert not told(house, "OnPressure")
        house.apply(house.release(NAME, "pressure", instance=instance))
        house.until(lambda: house.entry(NAME)["restarts"] == 1, "it is set up without")
        before = len(reports(house, "OnTimer"))
        create(house)
        assert len(reports(house, "OnTimer")) == before


@pytest.mark.parametrize("instance", ["lasting", "per-event"])
def test_pressure_is_told_while_it_lasts_and_its_end_once_and_a_container_is_updated(
    tmp_path: Path, engine: str, system: Path, instance: str
) -> None:
    with House(tmp_path, engine=engine) as house:
        house.run(house.release(NAME, "pressure", instance=instance, **WATCH))
        victim = create(house, annotations={"edge.test/victim": "yes"}).container
        house.until(
            lambda: (
                house.runtime.containers[victim.id].linux.resources.memory.limit.value == 32 << 20
            ),
            "the less important container has less",
        )
        before = len(reports(house, "OnPressure"))
        house.until(lambda: len(reports(house, "OnPressure")) > before, "it lasts")
        relieve(system)
        house.until(lambda: reports(house, "OnPressure")[-1] == b"over", "it is over")
        count = len(reports(house, "OnPressure"))
        looks = []
        house.loader.run(lambda: looks.append(1))
        house.until(lambda: bool(looks), "another look")
        create(house)
        found = reports(house, "OnPressure")
        assert (len(found), set(found)) == (count, {b"memory 2500 above 2000; ", b"over"})


def test_without_pressure_it_is_not_called(tmp_path: Path, system: Path) -> None:
    relieve(system)
    with House(tmp_path) as house:
        house.run(house.release(NAME, "pressure", **WATCH, **TIMER))
        house.until(lambda: len(reports(house, "OnTimer")) >= 3, "looks")
        assert not told(house, "OnPressure")


@pytest.mark.parametrize(
    ("behaviour", "outcome"), [("trap", "trap"), ("loop", "timeout"), ("error", "error")]
)
def test_one_that_fails_is_told_and_made_anew_as_for_an_event(
    tmp_path: Path, engine: str, behaviour: str, outcome: str
) -> None:
    limits = Limits(deadline_ms=300 if behaviour == "loop" else 60_000)
    with House(tmp_path, engine=engine) as house:
        house.run(house.release(NAME, "pressure", behaviour, limits=limits, **TIMER))
        house.until(lambda: bool(told(house, "OnTimer")), "it is called")
        assert told(house, "OnTimer")[0]["outcome"] == outcome
        failures = house.entry(NAME)["failures"]
        assert failures == ({} if behaviour == "error" else {outcome: failures.get(outcome)})
        if behaviour != "error":
            house.until(lambda: house.entry(NAME)["restarts"] > 0, "it is made anew")


def test_an_update_that_it_may_not_ask_for_is_denied(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        house.run(house.release(NAME, "pressure", permissions=("env",), **WATCH))
        victim = create(house, annotations={"edge.test/victim": "yes"}).container
        house.until(lambda: "denied" in house.entry(NAME)["failures"], "it is denied")
        kept = house.runtime.containers[victim.id].linux.resources.memory
        assert not kept.HasField("limit")


def test_a_monitored_one_updates_nothing(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        house.run(house.release(NAME, "pressure", mode="monitor", **WATCH))
        victim = create(house, annotations={"edge.test/victim": "yes"}).container
        house.until(lambda: bool(house.entry(NAME).get("updates_withheld")), "it asks")
        create(house)
        kept = house.runtime.containers[victim.id].linux.resources.memory
        assert not kept.HasField("limit")
        assert any(each["outcome"] == "would_adjust" for each in told(house, "OnPressure"))


def test_nothing_is_called_while_a_runtime_waits_for_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: Path
) -> None:
    monkeypatch.setattr(board_watch, "WAIT_S", 0.05)
    with House(tmp_path) as house:
        house.run(house.release(NAME, "pressure", **WATCH))
        house.until(lambda: bool(reports(house, "OnPressure")), "it is called")
        asked = []

        def waits(_: Link) -> bool:
            asked.append(1)
            return True

        monkeypatch.setattr(Link, "waiting", property(waits))
        count = len(reports(house, "OnPressure"))
        house.until(lambda: len(asked) > 20, "it would be")
        relieve(system)
        seen = len(asked)
        house.until(lambda: len(asked) > seen + 20, "its end would be told")
        assert len(reports(house, "OnPressure")) == count
        monkeypatch.setattr(Link, "waiting", property(lambda _: False))
        house.until(lambda: reports(house, "OnPressure")[-1] == b"over", "the end is not lost")


def test_a_request_that_has_come_is_seen_before_it_is_read(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        house.run(house.release(NAME, "pressure"))
        pod = house.during(lambda: house.runtime.run_pod("web")).pod
        plugin = house.slot(NAME).plugin
        house.until(lambda: not plugin.waited_for, "all is answered")

        def ask() -> Outcome:
            return house.runtime.create_container(pod, "app")

        thread = threading.Thread(target=ask)
        thread.start()
        wait_until(lambda: plugin.waited_for, "the request has come")
        house.until(lambda: not thread.is_alive(), "it is answered")


def test_what_the_board_does_not_say_is_told_in_the_status(tmp_path: Path, system: Path) -> None:
    (system / "proc/pressure/memory").unlink()
    with House(tmp_path) as house:
        house.run(house.release(NAME, "pressure", **WATCH))
        house.until(lambda: "unread" in house.entry(NAME), "it is looked for")
        [why] = house.entry(NAME)["unread"]
        assert why.startswith("memory: this kernel tells no pressure")


# --- a real cgroup under memory pressure


@pytest.mark.system
def test_memory_pressure_of_a_real_cgroup_takes_from_the_less_important_container(
    runtime: NriRuntime, agent: Agent
) -> None:
    agent.put(
        NAME,
        guest("pressure"),
        settings={"pressure": {"memory": "some 0.5% over 10s", "every": "1s"}},
    )
    agent.wait_running(NAME)
    runtime.wait_for_plugins(NAME)
    assert runtime.run_pod("p1").error == ""
    made = runtime.create_container("c1", pod="p1", annotations={"edge.test/victim": "yes"})
    assert made.error == ""
    with memory_pressure(f"edge-agent-test-{os.getpid()}", 96 << 20, limit_bytes=40 << 20):
        wait_until(runtime.updates, "the plugin is told, and the runtime asked")
    assert "c1" in str(runtime.updates()[0])


def test_there_is_one_next_look_however_often_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    with Loop() as loop:
        timers: list[Timer] = []
        call_later = loop.call_later

        def noted(*given: Any) -> Timer:
            timers.append(call_later(*given))
            return timers[-1]

        monkeypatch.setattr(loop, "call_later", noted)
        watch = board_watch.BoardWatch(loop, lambda work: work(), list, lambda: False)
        for wanted in (True, False, True, True, False, True):
            watch.want(wanted)
        assert sum(each.pending for each in timers) == 1
        while len(timers) < 6:  # three looks
            loop.turn()
        assert sum(each.pending for each in timers) == 1
        watch.want(False)
        assert not any(each.pending for each in timers)
