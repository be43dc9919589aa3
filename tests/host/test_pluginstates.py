"""What a plugin keeps survives its replacement, a crash and a reboot, and the disk's troubles."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from edge_agent.host import pluginstates
from edge_agent.host.pluginstates import MAX_FILES, PluginStates, decode, encode
from edge_agent.loop import Loop
from edge_agent.sim.runtime import SimRuntime
from edge_agent.store.release import PluginId
from edge_agent.wasm.imports import PluginState
from tests.host.house import House
from tests.support.agent import Agent, guest
from tests.support.smalldisk import small_disk
from tests.support.turning import turn_until
from tests.support.wait import TIMEOUT_S, wait_until


class Worker:
    """The loader's thread, as far as it is needed: jobs in order, when they are let through."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], None]] = []

    def later(self, job: Callable[[], None]) -> None:
        self.jobs.append(job)

    def work(self) -> int:
        jobs, self.jobs = self.jobs, []
        for job in jobs:
            job()
        return len(jobs)


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "plugin-state"


def begun(loop: Loop, worker: Worker, folder: Path) -> PluginStates:
    states = PluginStates(loop, folder, worker.later)
    states.begin()
    worker.work()
    return states


def until_asked(loop: Loop, worker: Worker) -> None:
    """Until the next look finds something to write."""
    turn_until(loop, lambda: bool(worker.jobs), "something to write")


def values_in(folder: Path, identity: str = "10-a") -> dict[str, bytes]:
    return decode(PluginId(identity), (folder / f"{identity}.state").read_bytes())


def test_a_change_is_written_in_a_batch(loop: Loop, worker: Worker, folder: Path) -> None:
    states = begun(loop, worker, folder)
    state = states.of(PluginId("10-a"))
    worker.work()
    for number in range(100):
        state.put("count", b"%d" % number)
    states.of(PluginId("20-b")).put("key", b"value")
    assert worker.work() == 1  # reading 20-b's
    until_asked(loop, worker)
    assert worker.work() == 1
    assert values_in(folder) == {"count": b"99"}
    assert values_in(folder, "20-b") == {"key": b"value"}
    assert (folder / "10-a.state").stat().st_mode & 0o777 == 0o600


def test_what_does_not_change_is_not_written(loop: Loop, worker: Worker, folder: Path) -> None:
    states = begun(loop, worker, folder)
    state = states.of(PluginId("10-a"))
    state.put("key", b"value")
    states.close()
    before = (folder / "10-a.state").stat().st_ino
    state.put("key", b"value")
    state.put("nothing", b"")
    states.close()
    assert (folder / "10-a.state").stat().st_ino == before


def test_one_round_is_on_its_way_at_a_time(
    loop: Loop, worker: Worker, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pluginstates, "WRITE_S", 0.01)
    states = begun(loop, worker, folder)
    states.of(PluginId("10-a")).put("key", b"1")
    worker.work()
    until_asked(loop, worker)
    states.of(PluginId("10-a")).put("key", b"2")
    late: list[bool] = []
    loop.call_later(0.2, lambda: late.append(True))
    turn_until(loop, lambda: bool(late), "some looks")
    assert len(worker.jobs) == 1
    worker.work()
    assert values_in(folder) == {"key": b"2"}


def test_the_state_is_read_before_whatever_comes_after(
    loop: Loop, worker: Worker, folder: Path
) -> None:
    folder.mkdir(parents=True)
    (folder / PluginId("10-a.state")).write_bytes(encode(PluginId("10-a"), {"key": b"value"}))
    states = begun(loop, worker, folder)
    seen: list[bytes | None] = []
    state = states.of(PluginId("10-a"))
    worker.later(lambda: seen.append(state.get("key")))  # as a guest is made
    worker.work()
    assert seen == [b"value"]
    assert states.of(PluginId("10-a")) is state


def test_what_was_read_is_bounded_with_what_is_put(
    loop: Loop, worker: Worker, folder: Path
) -> None:
    folder.mkdir(parents=True)
    full = {"a": b"v" * (PluginState.MAX_BYTES - 1)}
    (folder / PluginId("10-a.state")).write_bytes(encode(PluginId("10-a"), full))
    state = begun(loop, worker, folder).of(PluginId("10-a"))
    worker.work()
    assert not state.put("b", b"x")
    assert state.put("a", b"")
    assert state.put("b", b"x")


def test_removed_before_it_was_read_it_stays_removed(
    loop: Loop, worker: Worker, folder: Path
) -> None:
    folder.mkdir(parents=True)
    (folder / PluginId("10-a.state")).write_bytes(encode(PluginId("10-a"), {"key": b"value"}))
    states = begun(loop, worker, folder)
    state = states.of(PluginId("10-a"))
    states.forget(PluginId("10-a"))
    states.drop(())
    again = states.of(PluginId("10-a"))
    assert again is not state
    worker.work()
    assert again.get("key") is None
    assert not (folder / "10-a.state").exists()


def test_an_empty_state_has_no_file(loop: Loop, worker: Worker, folder: Path) -> None:
    states = begun(loop, worker, folder)
    states.of(PluginId("10-a")).put("key", b"value")
    states.close()
    assert (folder / "10-a.state").exists()
    states.of(PluginId("10-a")).put("key", b"")
    states.close()
    assert not (folder / "10-a.state").exists()


@pytest.mark.parametrize("content", [b"", b"rubbish", encode(PluginId("10-b"), {"key": b"value"})])
def test_a_damaged_file_is_told_and_replaced(
    loop: Loop, worker: Worker, folder: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    folder.mkdir(parents=True)
    (folder / "10-a.state").write_bytes(content)
    states = begun(loop, worker, folder)
    state = states.of(PluginId("10-a"))
    worker.work()
    assert "10-a: begins without its state: its file is" in caplog.text
    state.put("key", b"new")
    states.close()
    assert values_in(folder) == {"key": b"new"}


def test_a_huge_file_is_not_taken_into_memory(
    loop: Loop, worker: Worker, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir(parents=True)
    with (folder / "10-a.state").open("wb") as file:
        file.truncate(1 << 40)
    begun(loop, worker, folder).of(PluginId("10-a"))
    worker.work()
    assert "are taken" in caplog.text


def test_files_of_plugins_that_are_not_there_are_kept_up_to_a_bound(
    loop: Loop, worker: Worker, folder: Path
) -> None:
    folder.mkdir(parents=True)
    for number in range(MAX_FILES + 3):
        path = folder / f"10-n{number}.state"
        path.write_bytes(b"")
        os.utime(path, (number, number))
    (folder / ".new-0123-10-a.state").write_bytes(b"half")
    begun(loop, worker, folder)
    left = {path.name for path in folder.iterdir()}
    assert left == {f"10-n{number}.state" for number in range(3, MAX_FILES + 3)}


@pytest.mark.system
@pytest.mark.parametrize("options", ["rw", "ro"])
def test_a_disk_that_takes_nothing_is_told_once_and_tried_again(
    loop: Loop,
    worker: Worker,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    options: str,
) -> None:
    monkeypatch.setattr(pluginstates, "WRITE_S", 0.01)
    monkeypatch.setattr(pluginstates, "RETRY_S", 0.02)
    with small_disk(tmp_path / "disk", 8, options) as disk:
        states = begun(loop, worker, disk)
        state = states.of(PluginId("10-a"))
        state.put("key", b"v" * 60_000)
        worker.work()
        for _ in range(3):
            until_asked(loop, worker)
            worker.work()
        assert state.get("key") == b"v" * 60_000
        told = [line for line in caplog.messages if "in memory only" in line]
        assert len(told) == 1
        assert not list(disk.iterdir())
        if options == "rw":
            caplog.set_level("INFO")
            state.put("key", b"small")
            until_asked(loop, worker)
            worker.work()
            assert "on the disk again" in caplog.text
            assert values_in(disk) == {"key": b"small"}


def test_a_disk_that_hangs_does_not_hold_up_the_end(
    loop: Loop, worker: Worker, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pluginstates, "CLOSE_S", 0.1)
    released = threading.Event()
    monkeypatch.setattr("edge_agent.store.files.write", lambda *_: released.wait())
    states = begun(loop, worker, folder)
    states.of(PluginId("10-a")).put("key", b"value")
    states.close()
    released.set()


# --- at work


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[SimRuntime]:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    with SimRuntime(tmp_path / "nri.sock", request_timeout_s=TIMEOUT_S) as runtime:
        yield runtime


def count(runtime: SimRuntime) -> int:
    """What the plugin `edge` counts in its state: containers."""
    pod = runtime.run_pod("p").pod
    made = runtime.create_container(pod, "c")
    return int(made.container.annotations["edge.test/count"])


def test_it_survives_an_orderly_end_and_a_crash(tmp_path: Path, runtime: SimRuntime) -> None:
    agent = Agent(tmp_path / "agent", sockets=[Path(runtime.path)])
    agent.put("10-edge", guest("edge"))
    file = agent.folder / "state" / "plugin-state" / "10-edge.state"
    with agent:
        agent.wait_running("10-edge")
        assert [count(runtime) for _ in range(3)] == [1, 2, 3]
    with agent:
        agent.wait_running("10-edge")
        assert count(runtime) == 4
        before = file.read_bytes()
        assert count(runtime) == 5
        wait_until(lambda: file.read_bytes() != before, "it is written")
        wait_until(
            lambda: decode(PluginId("10-edge"), file.read_bytes()) == {"count": b"5"},
            "all of it is written",
        )
        agent.kill()
        agent.start()
        agent.wait_running("10-edge")
        assert count(runtime) == 6
        agent.remove("10-edge")
        agent.wait_for(lambda status: not status["plugins"], "it is removed")
        wait_until(lambda: not file.exists(), "its state goes with it")
        agent.put("10-edge", guest("edge"))
        agent.wait_running("10-edge")
        assert count(runtime) == 1


def test_a_supervisor_that_begins_again_finds_it(tmp_path: Path) -> None:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    for expected in range(1, 4):
        with House(tmp_path, SimRuntime(tmp_path / f"nri{expected}.sock")) as house:
            house.run(house.release("10-edge", "edge"))
            assert house.during(partial(count, house.runtime)) == expected
