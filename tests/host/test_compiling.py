"""A compiler that fails, on each engine: it is told, and the other plugins answer all the while."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.errors import EngineError
from edge_agent.host import loader
from edge_agent.wasm.compiler import TIMEOUT_S
from edge_agent.wasm.engine_selection import engine_names, select_engine
from tests.host.house import House
from tests.support.assembler import ADD, get, i32
from tests.support.compilers import compilers
from tests.support.smalldisk import small_disk
from tests.wasm.plugins import ECHO, plugin

# Of a few instructions each: seconds of work for any compiler, and tens of megabytes.
ROUNDS = 600_000
# An interpreter translates such a function in a quarter of a second: it gets more of them.
METHODS = ("create_container",)
MORE_METHODS = (
    *METHODS,
    *("run_pod_sandbox", "stop_pod_sandbox", "remove_pod_sandbox", "update_pod_sandbox"),
    *("stop_container", "remove_container", "update_container"),
)


@pytest.fixture(params=engine_names())
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    try:
        select_engine(name)
    except EngineError as error:
        pytest.skip(f"needs {name}: {error}")
    return name


@pytest.fixture
def costly(tmp_path: Path, engine: str) -> Path:
    """A plugin by its exports."""
    path = tmp_path / "costly.wasm"
    work = (get(0) + i32(7) + ADD + b"\x21\x00") * ROUNDS
    methods = MORE_METHODS if engine == "wasmi" else METHODS
    path.write_bytes(plugin(dict.fromkeys(methods, work + ECHO)))
    return path


@pytest.fixture(autouse=True)
def _no_compiler_stays() -> Iterator[None]:
    yield
    for pid in compilers(os.getpid()):
        os.kill(pid, signal.SIGKILL)


def count(house: House) -> str:
    """What the other plugin, which counts, makes of a new container."""
    pod = house.during(lambda: house.runtime.run_pod("web")).pod
    outcome = house.during(lambda: house.runtime.create_container(pod, "app"))
    assert not outcome.error
    return str(outcome.container.annotations["edge.test/count"])


def error(house: House, identity: str) -> str:
    return str(house.entry(identity).get("error", ""))


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"timeout_s": 0.3}, "the compiler was stopped after 0.3 s: the module is too costly"),
        ({"memory_bytes": 24 << 20}, "the compiler needed more than 24MiB of memory"),
    ],
    ids=["hangs", "needs too much memory"],
)
def test_a_compiler_beyond_its_limits_is_told_and_the_others_go_on(
    tmp_path: Path, engine: str, costly: Path, limits: dict[str, float], said: str
) -> None:
    with House(tmp_path, engine=engine) as house:
        house.run(house.release("10-edge", "edge"))
    with House(tmp_path, engine=engine, compiler=limits) as house:
        edge = house.release("10-edge", "edge")
        bad = house.release("20-costly", costly, failure_policy="Ignore")
        house.run(edge)  # as it was compiled before
        house.apply(edge, bad)
        assert count(house) == "1"
        house.until(lambda: said in error(house, "20-costly"), "the compiler fails")
        assert house.status("20-costly") == "backoff"
        assert count(house) == "2"
        assert house.entry("10-edge")["failures"] == {}
        assert compilers(os.getpid()) == []


def test_a_killed_compiler_is_told_tried_again_and_the_others_go_on(
    tmp_path: Path, engine: str, costly: Path
) -> None:
    with House(tmp_path, engine=engine) as house:
        edge = house.release("10-edge", "edge")
        slow = house.release("20-slow", costly, failure_policy="Ignore")
        house.run(edge)
        house.apply(edge, slow)
        house.until(lambda: bool(compilers(os.getpid())), "it is compiled")
        assert count(house) == "1"
        os.kill(compilers(os.getpid())[0], signal.SIGKILL)
        house.until(lambda: "was killed from outside" in error(house, "20-slow"), "it is told")
        assert count(house) == "2"
        house.until(lambda: bool(compilers(os.getpid())), "it is compiled again")


@pytest.mark.system
def test_a_full_disk_is_told_and_the_plugin_runs_once_there_is_room(
    tmp_path: Path, engine: str
) -> None:
    with small_disk(tmp_path / "disk", 24 << 10) as disk, House(disk, engine=engine) as house:
        edge = house.release("10-edge", "edge")
        late = house.release("20-bench", "bench", failure_policy="Ignore")
        house.run(edge)
        filler = disk / "filler"
        filler.write_bytes(bytes(17 << 20))
        house.apply(edge, late)
        house.until(lambda: "the disk is full" in error(house, "20-bench"), "it is told")
        assert "free some space on this disk" in error(house, "20-bench")
        assert count(house) == "1"
        filler.unlink()
        house.until(lambda: house.status("20-bench") == "running", "it runs")
        assert count(house) == "2"


def test_a_damaged_artifact_is_made_anew_beside_what_runs(tmp_path: Path, engine: str) -> None:
    with House(tmp_path, engine=engine) as house:
        house.run(house.release("10-edge", "edge"), house.release("20-bench", "bench"))
    artifacts = sorted((tmp_path / "state" / "artifacts").glob("*.artifact"))
    assert len(artifacts) == 2
    for path in artifacts:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0x10
        path.write_bytes(data)
    with House(tmp_path, engine=engine) as house:
        house.run(house.release("10-edge", "edge"), house.release("20-bench", "bench"))
        assert count(house) == "1"
        assert house.entry("20-bench")["failures"] == {}


def test_what_could_not_be_compiled_rests_before_it_is_tried_again(
    tmp_path: Path, engine: str, costly: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "REST_FACTOR", 10_000)  # longer than this test
    with House(tmp_path, engine=engine, compiler={"timeout_s": 0.3}) as house:
        bad = house.release("20-costly", costly)
        house.apply(bad)
        said = "was stopped after 0.3 s"
        house.until(lambda: said in error(house, "20-costly"), "the compiler fails")
        house.may_compile.clear()  # who compiles now, waits
        house.apply()
        house.apply(bad)
        house.until(lambda: said in error(house, "20-costly"), "it is told again")
        assert compilers(os.getpid()) == []
        other = house.release("20-costly", "bench")  # another module is another matter
        house.apply(other)
        house.artifacts.timeout_s = TIMEOUT_S  # or a busy machine stops the other's, too
        house.may_compile.set()
        house.run(other)
