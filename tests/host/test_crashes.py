"""Plugins that take the whole agent with them: told from the others, and stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent.errors import ControlError
from edge_agent.host.crash_marker import LOADER, LOOP, oom_kills
from edge_agent.sim.runtime import SimRuntime
from tests.support.agent import Agent, guest
from tests.support.wait import TIMEOUT_S, wait_until
from tests.support.wat import constant

pytestmark = pytest.mark.system
LONG = {"deadline": "60s", "start": "300s"}


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[SimRuntime]:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    with SimRuntime(tmp_path / "nri.sock", request_timeout_s=120.0) as runtime:
        yield runtime


def agent_of(runtime: SimRuntime, folder: Path, *, alone: bool = False) -> Agent:
    agent = Agent(folder, sockets=[Path(runtime.path)], limits=LONG)
    if not alone:
        agent.put("20-edge", guest("edge"))
    return agent


def at_work(agent: Agent, slot: int) -> str:
    """Whose guest runs on that thread; "" if none does."""
    content = agent.control_socket.with_name(f"{agent.control_socket.name}.running").read_bytes()
    entry = content[content[slot] * 128 :][:128]
    return entry[33 : 33 + entry[32]].decode() if content[slot] else ""


def kill_at_work(agent: Agent, identity: str, slot: int, number: int) -> None:
    """Wait until this guest is at work on that thread, and end the process there.

    Other plugins run or are not there: one that is just being started may be the cause too.
    """
    wait_until(lambda: at_work(agent, slot) == identity, f"{identity} is at work")
    process, fault = agent.process, agent.control_socket.with_name("control.fault")

    def dies() -> bool:
        os.kill(process.pid, number)
        # The first SIGBUS is spent on the engine's handler. A second signal while the first is
        # being written down, which takes a busy machine seconds, would be a fault of its own.
        try:
            process.wait(5.0 if number == signal.SIGBUS else TIMEOUT_S)
        except subprocess.TimeoutExpired:
            if not fault.stat().st_size:
                return False
            process.wait(TIMEOUT_S)
        return True

    wait_until(dies, "it dies")
    # What writes the fault down reads the frames of threads that run, and may meet a fault itself.
    assert process.returncode == -number or (
        process.returncode == -signal.SIGSEGV and number != signal.SIGKILL
    )
    agent.kill()  # so that it can be started again


def kill_until_quarantined(agent: Agent, identity: str, slot: int) -> None:
    """End the process at work of this guest, which is alone, until that was counted twice.

    What is at work is read from outside, so the signal may come when it no longer is: such an end
    counts for nothing, and rightly.
    """

    def quarantined() -> bool:
        try:
            return any(each["status"] == "quarantined" for each in agent.entries(identity))
        except ControlError:  # the guest keeps the loop's thread
            return False

    for killed in range(8):
        agent.start()
        wait_until(
            lambda: at_work(agent, slot) == identity or quarantined(), f"{identity} is at work"
        )
        if at_work(agent, slot) != identity and quarantined():
            assert killed >= 2
            agent.stop()
            return
        kill_at_work(agent, identity, slot, signal.SIGABRT)
    raise AssertionError(f"killed 8 times, and {identity} is not quarantined")


def dies(process: subprocess.Popen[bytes], why: str) -> None:
    wait_until(lambda: process.poll() is not None, why)


def create(runtime: SimRuntime, name: str) -> threading.Thread:
    """A container, made in the background."""
    pod = runtime.run_pod(f"pod-{name}").pod
    thread = threading.Thread(target=runtime.create_container, args=(pod, name))
    thread.start()
    return thread


# SIGBUS: Wasmer takes a SIGSEGV that is sent during a guest's call for the guest's own trap.
@pytest.mark.parametrize("number", [signal.SIGBUS, signal.SIGABRT], ids=lambda each: each.name)
def test_a_guest_in_whose_call_the_agent_dies_twice_is_quarantined(
    tmp_path: Path, runtime: SimRuntime, number: signal.Signals
) -> None:
    agent = agent_of(runtime, tmp_path / "agent")
    agent.put("10-hostile", guest("hostile"), config="create_container:loop\n")
    for attempt in range(2):
        agent.start()
        agent.wait_running("10-hostile", "20-edge")
        creation = create(runtime, f"c{attempt}")
        kill_at_work(agent, "10-hostile", LOOP, number)
        creation.join()
    with agent:
        agent.wait_running("20-edge")
        entry = agent.entry("10-hostile")
        assert entry["status"] == "quarantined"
        assert "the agent died while it ran, 2 times" in entry["error"]
        assert agent.entry("20-edge")["status"] == "running"
        agent.wait_for_line("its last words: Fatal Python error: ")
        agent.wait_for(lambda _: "refusing" in agent.entry("10-hostile"), "it is not missed")
        pod = runtime.run_pod("p").pod
        refused = runtime.create_container(pod, "c").error
        assert "plugin 10-hostile does not run" in refused
        assert "the agent died while it ran, 2 times" in refused
    with agent:  # an orderly end counts for nothing, and forgets nothing
        agent.wait_running("20-edge")
        assert agent.entry("10-hostile")["status"] == "quarantined"
        # Another module under the same name may try.
        agent.put("10-hostile", guest("bench"))
        agent.wait_running("10-hostile")


def test_a_guest_that_takes_the_agent_with_it_while_it_starts_is_quarantined(
    tmp_path: Path, runtime: SimRuntime
) -> None:
    agent = agent_of(runtime, tmp_path / "agent", alone=True)
    endless = '(func (export "_initialize") (loop (br 0)))'
    agent.put("10-endless", constant({"plugin_create_container": b""}, "", endless))
    kill_until_quarantined(agent, "10-endless", LOADER)
    agent.put("20-edge", guest("edge"))
    with agent:
        agent.wait_running("20-edge")
        assert agent.entry("10-endless")["status"] == "quarantined"


def test_an_agent_that_ends_while_a_guest_is_made_ends_in_order(
    tmp_path: Path, runtime: SimRuntime
) -> None:
    # Out of its loop the guest calls the host, whose interpreter is gone by then.
    agent = agent_of(runtime, tmp_path / "agent")
    host = '(import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))'
    calling = """(func (export "_initialize") (local i32)
        (loop
          (local.set 0 (i32.const 20000))
          (loop (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
          (drop (call $yield))
          (br 0)))"""
    agent.put("10-endless", constant({"plugin_create_container": b""}, host, calling))
    for _ in range(3):
        agent.start()
        wait_until(lambda: at_work(agent, LOADER) == "10-endless", "it is made")
        agent.stop()  # which wants 0 of it


def test_one_that_takes_the_agent_with_it_in_its_synchronisation_is_quarantined(
    tmp_path: Path, runtime: SimRuntime
) -> None:
    agent = agent_of(runtime, tmp_path / "agent", alone=True)
    agent.put("10-hostile", guest("hostile"), config="synchronize:loop\n")
    kill_until_quarantined(agent, "10-hostile", LOOP)
    agent.put("20-edge", guest("edge"))
    with agent:
        agent.wait_running("20-edge")
        assert agent.entry("10-hostile")["status"] == "quarantined"
        agent.put("10-hostile", config="* : ok\n")  # the module is what is judged
        agent.put("30-edge", guest("edge"))
        agent.wait_running("30-edge")
        assert agent.entry("10-hostile")["status"] == "quarantined"


@pytest.mark.usefixtures("nobody_is_killed_for_memory")
def test_a_kill_from_outside_is_held_against_nobody(tmp_path: Path, runtime: SimRuntime) -> None:
    if oom_kills() is None:
        pytest.skip("needs Linux 4.13: cannot tell the out-of-memory killer from others")
    agent = agent_of(runtime, tmp_path / "agent")
    agent.put("10-hostile", guest("hostile"), config="create_container:loop\n")
    for attempt in range(3):
        agent.start()
        agent.wait_running("10-hostile", "20-edge")
        creation = create(runtime, f"c{attempt}")
        kill_at_work(agent, "10-hostile", LOOP, signal.SIGKILL)
        creation.join()
    with agent:
        agent.wait_running("10-hostile", "20-edge")
        agent.wait_for_line("does not count: it was killed from outside")
    assert not (tmp_path / "agent" / "state" / "crashes").exists()


GROUPS = Path("/sys/fs/cgroup/memory")


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group whose processes may have little memory together."""
    group = GROUPS / f"edge-agent-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(120 << 20))
    except OSError as error:
        pytest.skip(f"needs root and control groups of version 1 for memory: {error}")
    yield group
    group.rmdir()


def test_a_guest_for_which_the_agent_is_killed_for_its_memory_is_quarantined(
    tmp_path: Path, runtime: SimRuntime, small_group: Path
) -> None:
    agent = agent_of(runtime, tmp_path / "agent")
    agent.put(
        "10-hostile",
        guest("hostile"),
        config="create_container:bomb-touch\n",
        settings={"limits": {"memory": "1GiB"}},
    )
    for attempt in range(2):
        agent.start()
        agent.wait_running("10-hostile", "20-edge")
        process = agent.process
        (small_group / "cgroup.procs").write_text(str(process.pid))
        creation = create(runtime, f"c{attempt}")
        dies(process, "it is killed")
        assert process.returncode == -signal.SIGKILL
        agent.kill()
        creation.join()
    with agent:
        agent.wait_running("20-edge")
        assert agent.entry("10-hostile")["status"] == "quarantined"


def truncated(file: Path) -> None:
    os.truncate(file, 0)


def overwritten(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.write(b"\xff" * file.stat().st_size)  # no instruction anywhere


@pytest.mark.parametrize("damage", [truncated, overwritten])
def test_damaged_code_is_held_against_nobody_and_compiled_again(
    tmp_path: Path, runtime: SimRuntime, damage: Callable[[Path], None]
) -> None:
    agent = Agent(tmp_path / "agent", sockets=[Path(runtime.path)], limits=LONG, engine="wasmtime")
    agent.put("20-edge", guest("edge"))
    for attempt in range(3):
        agent.start()
        agent.wait_running("20-edge")
        process = agent.process
        [artifact] = (tmp_path / "agent" / "state" / "artifacts").glob("*.artifact")
        damage(artifact)
        create(runtime, f"c{attempt}").join()
        dies(process, "it finds the damage")
        assert process.returncode in (-signal.SIGBUS, -signal.SIGILL, -signal.SIGSEGV)
        agent.kill()
    with agent:
        agent.wait_running("20-edge")
        agent.wait_for_line(f"{artifact} was damaged")
        pod = runtime.run_pod("p").pod
        assert runtime.create_container(pod, "c").ok
    assert not (tmp_path / "agent" / "state" / "crashes").exists()


def test_sigterm_while_a_guest_starts_is_no_crash(tmp_path: Path, runtime: SimRuntime) -> None:
    agent = agent_of(runtime, tmp_path / "agent")
    endless = '(func (export "_initialize") (loop (br 0)))'
    agent.put("30-endless", constant({"plugin_create_container": b""}, "", endless))
    for _ in range(3):
        with agent:
            wait_until(lambda: at_work(agent, LOADER) == "30-endless", "it is at work")
    with agent:
        agent.wait_running("20-edge")
        assert agent.entry("30-endless")["status"] == "starting"
    assert not (tmp_path / "agent" / "state" / "crashes").exists()


def test_the_command_lifts_a_quarantine(
    tmp_path: Path, runtime: SimRuntime, capsys: pytest.CaptureFixture[str]
) -> None:
    from edge_agent.__main__ import main

    agent = agent_of(runtime, tmp_path / "agent")
    agent.put("10-hostile", guest("hostile"), config="create_container:loop\n")
    for attempt in range(2):
        agent.start()
        agent.wait_running("10-hostile", "20-edge")
        creation = create(runtime, f"c{attempt}")
        kill_at_work(agent, "10-hostile", LOOP, signal.SIGABRT)
        creation.join()
    with agent:
        release = ["plugin", "release", "10-hostile", "-c", str(agent.config_path)]
        assert main(release) == 0
        assert "runs again" in capsys.readouterr().out
        agent.wait_running("10-hostile")
        assert main(release) == 1
    with agent:
        agent.wait_running("10-hostile")
