"""`instance = "per-event"`: nothing of one container is seen while another is handled."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from edge_agent.config import Limits
from edge_agent.errors import EngineError
from edge_agent.fleet_protocol.event_result import describe
from edge_agent.pb import edge_pb2, nri_pb2
from edge_agent.sim.plugin_connection import Outcome
from edge_agent.store.release import Release
from edge_agent.wasm.abi import AbiInstance
from edge_agent.wasm.engine import Instance
from edge_agent.wasm.engine_selection import engine_names, select_engine
from tests.host.house import House
from tests.support.wat import MEMORY, PLUGIN, module

ONE_SHOT = "10-plugin"
CREATE = "CreateContainer"


@pytest.fixture(params=engine_names())
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    try:
        select_engine(name)
    except EngineError as error:
        pytest.skip(f"needs {name}: {error}")
    return name


def one_shot(house: House, name: str | Path, config: str = "", **settings: Any) -> Release:
    return house.release(ONE_SHOT, name, config, instance="per-event", **settings)


def create(house: House, **more: Any) -> Outcome:
    pod = house.during(lambda: house.runtime.run_pod("web")).pod
    return house.during(lambda: house.runtime.create_container(pod, "app", **more))


def text(data: bytes) -> str:
    return "".join(f"\\{byte:02x}" for byte in data)


def memory_of_calls() -> bytes:
    """Adjusts with the variable SEEN=ABC: calls before this one as a global and as a byte of the
    memory have counted them, and whether this instance was configured, each a digit."""
    reply = nri_pb2.CreateContainerResponse()
    reply.adjust.env.add(key="SEEN", value="000")
    raw = reply.SerializeToString()
    at = 1024 + raw.index(b"000")
    configured = nri_pb2.ConfigureResponse(events=0x7FF).SerializeToString()
    digit = "(i32.store8 (i32.const {}) (i32.add (i32.const 48) {}))"
    return module(
        f"""{PLUGIN}{MEMORY}
        (data (i32.const 1024) "{text(raw)}") (data (i32.const 2048) "{text(configured)}")
        (global $calls (mut i32) (i32.const 0)) (global $configured (mut i32) (i32.const 0))
        (func (export "plugin_configure") (param i32 i32) (result i64)
          (global.set $configured (i32.add (global.get $configured) (i32.const 1)))
          (i64.const {2048 << 32 | len(configured)}))
        (func $call
          (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
          (i32.store8 (i32.const 20000)
            (i32.add (i32.load8_u (i32.const 20000)) (i32.const 1))))
        (func (export "plugin_synchronize") (param i32 i32) (result i64)
          (call $call) (i64.const 0))
        (func (export "plugin_start_container") (param i32 i32) (result i64)
          (call $call) (i64.const 0))
        (func (export "plugin_create_container") (param i32 i32) (result i64)
          {digit.format(at, "(global.get $calls)")}
          {digit.format(at + 1, "(i32.load8_u (i32.const 20000))")}
          {digit.format(at + 2, "(global.get $configured)")}
          (call $call)
          (i64.const {1024 << 32 | len(raw)}))"""
    )


def fails_once_there_is_state() -> bytes:
    """Configure traps as soon as the plugin's state has a key, which CreateContainer puts there."""
    get = edge_pb2.StateGetRequest(key="k").SerializeToString()
    put = edge_pb2.StatePutRequest(key="k", value=b"v").SerializeToString()
    configured = nri_pb2.ConfigureResponse(events=0x7FF).SerializeToString()
    edge = '(import "edge" "{0}" (func ${0} (param i32 i32) (result i64)))'
    return module(
        f"""{PLUGIN}{MEMORY}
        (data (i32.const 1024) "{text(get)}") (data (i32.const 1536) "{text(put)}")
        (data (i32.const 2048) "{text(configured)}")
        (func (export "plugin_configure") (param i32 i32) (result i64)
          (if (i64.ne (call $state_get (i32.const 1024) (i32.const {len(get)})) (i64.const 0))
            (then unreachable))
          (i64.const {2048 << 32 | len(configured)}))
        (func (export "plugin_create_container") (param i32 i32) (result i64)
          (drop (call $state_put (i32.const 1536) (i32.const {len(put)}))) (i64.const 0))""",
        edge.format("state_get") + edge.format("state_put"),
    )


def seen(outcome: Outcome) -> str:
    [value] = [each for each in outcome.container.env if each.startswith("SEEN=")]
    return value.removeprefix("SEEN=")


def written(tmp_path: Path, wasm: bytes) -> Path:
    path = tmp_path / "plugin.wasm"
    path.write_bytes(wasm)
    return path


@contextmanager
def loader_held(house: House) -> Iterator[None]:
    """The loader's thread waits, as for a slow disk."""
    go, held = threading.Event(), threading.Event()

    def wait() -> None:
        held.set()
        go.wait()

    house.loader.run(wait)
    held.wait()
    try:
        yield
    finally:
        go.set()


def held_memory() -> int:
    """Bytes of all instances that this process has."""
    found = [each for each in gc.get_objects() if isinstance(each, AbiInstance)]
    return sum(cast(Instance, each).memory_bytes for each in found)


def idle(house: House) -> None:
    """What the loader had to do is done."""
    done = threading.Event()
    house.loader.run(done.set)
    house.until(done.is_set, "the loader is idle")


def test_each_event_has_an_instance_that_has_seen_nothing_but_its_configuration(
    tmp_path: Path, engine: str
) -> None:
    with House(tmp_path, engine=engine) as house:
        house.run(one_shot(house, written(tmp_path, memory_of_calls())))
        found = []
        for _ in range(4):
            found.append(seen(create(house)))
            idle(house)  # made ahead
        with loader_held(house):  # made when the event has come
            found += [seen(create(house)) for _ in range(4)]
        assert found == ["001"] * 8
        entry = house.entry(ONE_SHOT)
        assert (entry["instance"], entry["restarts"], entry["failures"]) == ("per-event", 0, {})


def test_a_lasting_one_has_seen_them_all(tmp_path: Path, engine: str) -> None:
    """The test above sees what it looks for."""
    with House(tmp_path, engine=engine) as house:
        house.run(house.release(ONE_SHOT, written(tmp_path, memory_of_calls())))
        # Synchronize, then a creation and a start each.
        assert [seen(create(house)) for _ in range(3)] == ["111", "331", "551"]
        assert "instance" not in house.entry(ONE_SHOT)


def test_the_plugins_state_is_there_for_the_next_instance(tmp_path: Path, engine: str) -> None:
    with House(tmp_path, engine=engine) as house:
        house.run(one_shot(house, "edge"))
        counts = [create(house).container.annotations["edge.test/count"] for _ in range(4)]
        assert counts == ["1", "2", "3", "4"]


def test_updates_and_reports_are_those_of_their_event(tmp_path: Path, engine: str) -> None:
    with House(tmp_path, engine=engine) as house:
        house.run(one_shot(house, "edge"))
        first = create(house).container
        create(house, annotations={"edge.test/update": f"{first.id} 33554432"})
        house.until(
            lambda: (
                house.runtime.containers[first.id].linux.resources.memory.limit.value == 33554432
            ),
            "the other container is updated",
        )
        create(house)
        records = [describe(each) for each in house.results if each.event == CREATE]
        assert [[one["kind"] for one in each["reports"]] for each in records if each] == [
            ["count"]
        ] * 3


@pytest.mark.parametrize("behaviour", ["trap", "loop", "error"])
@pytest.mark.parametrize("policy", ["Fail", "Ignore"])
def test_a_failure_is_answered_by_policy_as_that_of_a_lasting_one(
    tmp_path: Path, engine: str, behaviour: str, policy: str
) -> None:
    limits = Limits(deadline_ms=300 if behaviour == "loop" else 60_000)
    config = f"create_container:{behaviour}\n"
    with House(tmp_path, engine=engine) as house:
        house.run(one_shot(house, "hostile", config, failure_policy=policy, limits=limits))
        created = create(house)
        assert bool(created.error) == (policy == "Fail" or behaviour == "error")


@pytest.mark.parametrize("policy", ["Fail", "Ignore"])
def test_no_container_passes_unseen_where_no_instance_can_be_made(
    tmp_path: Path, engine: str, policy: str
) -> None:
    with House(tmp_path, engine=engine) as house:
        path = written(tmp_path, fails_once_there_is_state())
        house.run(one_shot(house, path, failure_policy=policy))
        idle(house)
        assert create(house).ok, "the instances that were made before"
        outcomes = [create(house) for _ in range(2)]
        failed = [describe(each) for each in house.results if each.kind == "trap"]
        assert failed
        assert all("its next instance was not made" in each["error"] for each in failed if each)
        if policy == "Fail":
            assert ONE_SHOT in outcomes[-1].error
        else:
            assert outcomes[-1].ok
        assert house.entry(ONE_SHOT)["failures"].get("trap")


def test_what_it_says_when_it_is_configured_again_is_not_heard_again(
    tmp_path: Path, engine: str
) -> None:
    with House(tmp_path, engine=engine) as house:
        house.run(one_shot(house, "hostile", "configure:log-lines 1\n"))
        idle(house)
        said = len(house.lines)
        for _ in range(3):
            create(house)
        idle(house)
        assert said
        assert len(house.lines) == said


def test_a_plugin_that_is_replaced_or_removed_leaves_no_instance(
    tmp_path: Path, engine: str
) -> None:
    with House(tmp_path, engine=engine) as house:
        for _ in range(5):
            house.run(one_shot(house, "edge"))
            with loader_held(house):
                create(house)
                house.apply()  # while a place waits to be made anew
            idle(house)
            house.until(lambda: not held_memory(), "its instances are closed")
            create(house)
