"""The agent as a user of its own, as configs/own-user/README.md tells, at upstream's own runtime
side, which makes its socket anew at each start."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest

from tests.support.agent import guest
from tests.support.board import Board
from tests.support.gobuild import require_go
from tests.support.gopeers import NriRuntime
from tests.support.wait import wait_until

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "own-user"


@pytest.fixture(scope="module")
def installed(board: Board, package: Path) -> Board:
    require_go()
    board.put(package, "/edge-agent.deb")
    board.run("dpkg", "--install", "/edge-agent.deb")
    board.put(guest("bench"), "/etc/edge-agent/plugins/10-bench.wasm")
    place = board.path("/own-user")
    place.mkdir()
    for file in FOLDER.iterdir():
        board.put(file, f"/own-user/{file.name}")
    commands = re.findall(r"^    sudo (.*)$", (FOLDER / "README.md").read_text(), re.M)
    assert len(commands) == 11
    board.run("mkdir", "-p", "/etc/sysusers.d", "/etc/tmpfiles.d")
    for command in commands:
        board.run("sh", "-c", f"cd /own-user && {command}")
    return board


def serves(runtime: NriRuntime, container: str) -> bool:
    """Whether the plugin changed it. A placeholder, which comes first on a busy machine, refuses;
    nothing is made without either."""
    outcome = runtime.create_container(container)
    if outcome.error:
        assert "10-bench" in outcome.error
        return False
    assert outcome.annotations == {"edge.bench/plugin": "c"}
    return True


def test_it_serves_without_root_also_after_the_runtime_made_a_new_socket(installed: Board) -> None:
    socket = installed.run_folder / "nri" / "nri.sock"
    for name in ("c1", "c2"):  # the second runtime removes the socket that the first left
        with NriRuntime(socket) as runtime:
            runtime.wait_for_plugins("10-bench")
            wait_until(partial(serves, runtime, name), "the plugin serves")
            assert socket.stat().st_mode & 0o777 == 0o770
            assert socket.parent.stat().st_mode & 0o777 == 0o750
    status = installed.path(f"/proc/{installed.unit('MainPID')}/status").read_text()
    owner = installed.run("id", "-u", "edge-agent").strip()
    assert owner != "0"
    assert f"Uid:\t{owner}\t{owner}\t{owner}\t{owner}\n" in status
    assert re.search(r"^CapBnd:\t0+$", status, re.M)
    log = installed.journal()
    assert "it runs as the agent's user (CAP_SETUID, CAP_SETGID, CAP_KILL missing)" in log
    assert "not filtered" not in log


def test_a_socket_made_while_systemd_does_not_look_is_found(installed: Board) -> None:
    """A path unit watches nothing while its service runs (systemd/systemd issue 5770). A runtime
    removes the socket before it makes its own; here the service looks between the two."""
    hold = installed.path("/run/hold")
    slow = installed.path("/run/systemd/system/edge-agent-nri.service.d/slow.conf")
    slow.parent.mkdir(parents=True)
    slow.write_text("[Service]\nExecStartPost=sh -c 'while [ -e /run/hold ]; do sleep 0.1; done'\n")
    installed.run("systemctl", "daemon-reload")
    socket = installed.run_folder / "nri" / "nri.sock"
    try:
        with NriRuntime(socket) as runtime:
            runtime.wait_for_plugins("10-bench")
            wait_until(partial(service_is, installed, "dead"), "the service is at rest")
            runtime.kill()  # told to end, it may be quick enough to remove its socket itself
        hold.touch()
        socket.unlink()
        wait_until(partial(service_is, installed, "start-post"), "the service has looked")
        with NriRuntime(socket) as runtime:
            hold.unlink()
            runtime.wait_for_plugins("10-bench")
            wait_until(partial(serves, runtime, "c3"), "the plugin serves")
    finally:
        hold.unlink(missing_ok=True)
        slow.unlink()
        installed.run("systemctl", "daemon-reload")


def service_is(board: Board, state: str) -> bool:
    show = ("systemctl", "show", "--property=SubState", "--value", "edge-agent-nri.service")
    return board.run(*show).strip() == state


def test_doctor_as_root_takes_the_agents_user_for_what_it_is(installed: Board) -> None:
    said = installed.run("edge-agent", "doctor", fails=True)
    assert "running, version" in said
    assert "ok    permissions" in said


def test_upstream_itself_lets_nobody_but_root_in(tmp_path: Path) -> None:
    """What the page says of all runtimes; the day it is wrong, the page can be shorter."""
    require_go()
    socket = tmp_path / "nri" / "nri.sock"
    with NriRuntime(socket):
        assert socket.parent.stat().st_mode & 0o777 == 0o700
        assert socket.stat().st_mode & 0o022 == 0
