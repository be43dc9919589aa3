"""The package's life on a board: installed, stopped, upgraded, removed, purged."""

from __future__ import annotations

from pathlib import Path

from edge_agent.sim.runtime import SimRuntime
from tests.install.conftest import Build
from tests.support.agent import guest
from tests.support.board import UNIT, Board
from tests.support.served import wait_until_it_changes
from tests.support.wait import TIMEOUT_S, wait_until

CONFIG = "/etc/edge-agent/agent.toml"
PLUGIN = "/etc/edge-agent/plugins/10-bench.wasm"
STATE = "/var/lib/edge-agent"


def install(board: Board, package: Path) -> str:
    board.put(package, "/edge-agent.deb")
    return board.run("dpkg", "--install", "--force-confold", "/edge-agent.deb")


def version(board: Board) -> str:
    return board.run("dpkg-query", "--show", "--showformat=${Version}", "edge-agent")


def test_from_installation_to_purge(board: Board, package: Path, build: Build) -> None:
    said = install(board, package)
    assert "does not start" not in said
    assert board.unit("ActiveState") == "active"
    assert board.status() is not None
    compiled = board.path("/usr/lib/edge-agent/edge_agent/__pycache__")
    assert list(compiled.glob("agent.*.pyc"))
    assert board.run("edge-agent", "--version").startswith("edge-agent ")

    # It works, and keeps something.
    (board.run_folder / "nri").mkdir(mode=0o700)
    socket = board.run_folder / "nri" / "nri.sock"
    with SimRuntime(socket, request_timeout_s=TIMEOUT_S) as runtime:
        board.put(guest("bench"), PLUGIN)
        wait_until_it_changes(runtime)
        kept = board.path(STATE) / "artifacts.secret"
        secret = kept.read_bytes()

        board.run("systemctl", "stop", UNIT)
        assert board.unit("Result") == "success"
        assert not board.control_socket.exists()
        board.run("systemctl", "start", UNIT)

        # An upgrade brings the new version up, with the old configuration and state.
        config = board.path(CONFIG)
        config.write_text('node = "changed-by-hand"\n')
        pid = board.unit("MainPID")
        assert "does not start" not in install(board, build(version="1.1"))
        assert version(board) == "1.1"
        assert board.unit("ActiveState") == "active"
        assert board.unit("MainPID") != pid
        assert config.read_text() == 'node = "changed-by-hand"\n'
        assert kept.read_bytes() == secret
        wait_until(lambda: (board.status() or {}).get("node") == "changed-by-hand", "it answers")
        wait_until_it_changes(runtime)

    # Removed it is gone, but for what people and it wrote.
    board.run("dpkg", "--remove", "edge-agent")
    assert board.unit("ActiveState") == "inactive"
    assert not board.path("/usr/bin/edge-agent").exists()
    assert not board.path("/usr/lib/edge-agent").exists()
    assert kept.read_bytes() == secret
    assert config.exists()

    # Installed again it goes on where it was.
    install(board, package)
    assert board.unit("ActiveState") == "active"
    assert board.unit("UnitFileState") == "enabled"
    assert kept.read_bytes() == secret

    board.run("dpkg", "--purge", "edge-agent")
    assert not board.path(STATE).exists()
    assert not config.exists()
    assert board.path(PLUGIN).exists()  # people's own
    assert board.unit("LoadState") == "not-found"
    left = board.run("find", "/usr", "/var/lib/systemd", "-name", "*edge-agent*")
    assert left == ""


def test_a_service_that_was_switched_off_stays_off_after_an_upgrade(
    board: Board, package: Path, build: Build
) -> None:
    install(board, package)
    board.run("systemctl", "disable", "--now", UNIT)
    install(board, build(version="1.1"))
    assert board.unit("UnitFileState") == "disabled"
    board.run("dpkg", "--purge", "edge-agent")


def test_the_operators_package_adds_its_commands_and_takes_them_away(
    board: Board, package: Path, build: Build
) -> None:
    install(board, package)
    assert "not installed: demo, fleet" in board.run("edge-agent", "--help")
    board.put(build("all"), "/edge-agent-fleet.deb")
    board.run("dpkg", "--install", "/edge-agent-fleet.deb")
    assert "not installed" not in board.run("edge-agent", "--help")
    compiled = board.path("/usr/lib/edge-agent/edge_agent/operator/__pycache__")
    assert list(compiled.glob("deploy.*.pyc"))
    board.run("edge-agent", "fleet", "keygen", "me", "--keys", "/keys")
    assert board.path("/keys").is_dir()

    board.run("dpkg", "--purge", "edge-agent-fleet")
    assert not board.path("/usr/lib/edge-agent/edge_agent/operator").exists()
    assert "not installed: demo, fleet" in board.run("edge-agent", "--help")
    board.run("dpkg", "--purge", "edge-agent")
    assert not board.path("/usr/lib/edge-agent").exists()
