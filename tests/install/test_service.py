"""The installed package under a real systemd: the unit, its limits, and how it is kept alive."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.sim.runtime import SimRuntime
from tests.support.agent import guest
from tests.support.board import UNIT, Board
from tests.support.served import wait_until_it_changes
from tests.support.wait import TIMEOUT_S, wait_until

PLUGIN = "/etc/edge-agent/plugins/10-bench.wasm"


@pytest.fixture(scope="module")
def installed(board: Board, package: Path) -> Board:
    board.put(package, "/edge-agent.deb")
    board.run("dpkg", "--install", "/edge-agent.deb")
    board.put(guest("bench"), PLUGIN)
    return board


@pytest.fixture
def runtime(installed: Board) -> Iterator[SimRuntime]:
    """A container runtime where containerd's socket is."""
    folder = installed.run_folder / "nri"
    folder.mkdir(mode=0o700, exist_ok=True)
    with SimRuntime(folder / "nri.sock", request_timeout_s=TIMEOUT_S) as runtime:
        wait_until_it_changes(runtime)
        yield runtime


def changes(runtime: SimRuntime) -> bool:
    """Whether the plugin changes a new container."""
    outcome = runtime.create_container(runtime.run_pod("web").pod, "app")
    return "EDGE_BENCH=c" in outcome.container.env


def send(board: Board, signal: str, pid: str) -> None:
    board.run("sh", "-c", f"kill -{signal} {pid}")


def test_it_runs_once_installed_and_will_at_boot(installed: Board) -> None:
    assert installed.unit("ActiveState") == "active"
    assert installed.unit("UnitFileState") == "enabled"
    wait_until(lambda: "plugins running" in installed.unit("StatusText"), "it says how it goes")


def test_hardened_it_still_compiles_and_serves_a_plugin(runtime: SimRuntime) -> None:
    assert changes(runtime)


def test_no_slower_part_in_python_is_used(installed: Board) -> None:
    program = """if True:
        import sys
        sys.path.insert(0, "/usr/lib/edge-agent")
        import msgpack
        from google.protobuf.internal import api_implementation
        print(msgpack.Packer.__module__, api_implementation.Type())
    """
    said = installed.run("python3", "-IS", "-c", program)
    assert said == "msgpack._cmsgpack upb\n"


def test_what_it_writes_lies_where_it_should_and_is_private(
    installed: Board, runtime: SimRuntime
) -> None:
    assert changes(runtime)
    state = installed.path("/var/lib/edge-agent")
    assert state.stat().st_mode & 0o777 == 0o700
    assert list(state.glob("artifacts/*.artifact"))
    assert installed.control_socket.stat().st_mode & 0o777 == 0o600


def test_the_unit_is_understood(installed: Board) -> None:
    path = installed.unit("FragmentPath")
    said = installed.run("systemd-analyze", "verify", path, fails=True)
    # These two are of systemd 254, and written so that an older one does without.
    new = r".*Unknown key.* 'Restart(Steps|MaxDelaySec)' in section \[?'?Service.*ignoring\."
    assert not [line for line in said.splitlines() if line and not re.fullmatch(new, line)]


def test_the_unit_is_well_confined(installed: Board) -> None:
    said = installed.run("systemd-analyze", "security", UNIT, "--no-pager")
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert level is not None, said
    # Of 10; 9.6 is a service without any confinement. 0.5 are the compiler's: docs/adr/0038.
    assert float(level[1]) <= 2.2


def test_the_journal_knows_the_level_of_each_line(installed: Board) -> None:
    config = installed.path("/etc/edge-agent/agent.toml")
    before = config.read_text()
    config.write_text("wrong")
    installed.run("systemctl", "reload", UNIT)
    words = "the configuration stays as it was"
    wait_until(lambda: words in installed.journal("--priority=err"), "the error")
    config.write_text(before)
    assert "waiting for the runtime" not in installed.journal("--priority=err")
    assert '\n{"time": ' in installed.journal()  # without the prefix that told the level


def test_a_reload_is_awaited_and_applied(installed: Board) -> None:
    config = installed.path("/etc/edge-agent/agent.toml")
    before = config.read_text()
    config.write_text(before.replace('#level = "info"', 'level = "debug"'))
    pid = installed.unit("MainPID")
    installed.run("systemctl", "reload", UNIT)
    wait_until(lambda: installed.unit("ActiveState") == "active", "the reload is over")
    wait_until(lambda: "reading the configuration again" in installed.journal(), "its log")
    assert installed.unit("MainPID") == pid
    config.write_text(before)


def test_an_agent_that_hangs_is_ended_and_started_again(
    installed: Board, runtime: SimRuntime
) -> None:
    pid, restarts = installed.unit("MainPID"), installed.unit("NRestarts")
    send(installed, "STOP", pid)
    wait_until(lambda: installed.unit("NRestarts") != restarts, "the watchdog bites")
    assert "Watchdog timeout" in installed.journal()
    wait_until(lambda: installed.unit("ActiveState") == "active", "it is back")
    assert installed.unit("MainPID") != pid
    wait_until(lambda: changes(runtime), "the plugin serves again")


def test_a_killed_agent_comes_back(installed: Board, runtime: SimRuntime) -> None:
    pid = installed.unit("MainPID")
    send(installed, "KILL", pid)
    wait_until(
        lambda: installed.unit("MainPID") not in (pid, "0") and installed.status(),
        "it answers again",
    )
    wait_until(lambda: changes(runtime), "the plugin serves again")


def test_a_wrong_configuration_is_told_and_cured_without_a_command(installed: Board) -> None:
    config = installed.path("/etc/edge-agent/agent.toml")
    before = config.read_text()
    config.write_text('engin = "auto"\n')
    installed.run("systemctl", "restart", UNIT, fails=True)
    wait_until(lambda: "did you mean engine?" in installed.journal(), "it says what is wrong")
    config.write_text(before)
    wait_until(lambda: installed.status() is not None, "a later attempt succeeds")


def test_the_agent_cannot_give_orders_to_a_runtime_or_to_systemd(installed: Board) -> None:
    """Also not to a runtime that made its socket anew, while the agent runs."""
    before = installed.unit("MainPID")
    for path in ("/run/containerd", "/run/crio", "/run/nri"):
        installed.run("mkdir", "-p", path)
    installed.run("touch", "/run/docker.sock")
    installed.run("systemctl", "restart", UNIT)
    wait_until(lambda: installed.unit("MainPID") not in (before, "0"), "it is another")
    inside = Path("/proc", installed.unit("MainPID"), "root")
    with SimRuntime(installed.run_folder / "containerd" / "containerd.sock"):
        # As root with all capabilities, who sees an empty folder; the agent may not even look.
        seen = installed.run("ls", str(inside / "run" / "containerd"))
        assert seen == ""
        mode = installed.run("stat", "-c", "%F %a", str(inside / "run" / "containerd"))
        assert mode.strip() == "directory 0"
    assert installed.run("stat", "-c", "%a", str(inside / "run" / "docker.sock")).strip() == "0"
    private = str(inside / "run" / "systemd" / "private")
    assert installed.run("stat", "-c", "%a", private).strip() == "0"
    assert installed.run("ls", str(inside / "run" / "nri")) == ""
    assert "notify" in installed.run("ls", str(inside / "run" / "systemd"))


def test_the_compiler_becomes_another_user_whose_system_calls_are_filtered(
    installed: Board, runtime: SimRuntime
) -> None:
    assert changes(runtime)  # so something was compiled
    assert "less confined than it could be" not in installed.journal()


def test_limits_are_set(installed: Board) -> None:
    assert installed.unit("MemoryMax") == str(640 << 20)
    assert installed.unit("TasksMax") == "128"
    assert installed.unit("OOMPolicy") == "continue"
    pid = int(installed.unit("MainPID"))
    status = installed.path(f"/proc/{pid}/status").read_text()
    # CAP_KILL, CAP_SETGID, CAP_SETUID: by which its compiler becomes another user.
    assert re.search(r"^CapEff:\t0+e0$", status, re.M)
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    # Whether the kernel then lets systemd lower the score depends on the machine under test.
    assert installed.unit("OOMScoreAdjust") == "-500"
