"""`edge-agent service` of an installation by pip, under a real systemd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.sim.runtime import SimRuntime
from tests.support.agent import guest
from tests.support.board import UNIT, Board
from tests.support.served import wait_until_it_changes
from tests.support.wait import TIMEOUT_S, wait_until

ENVIRONMENT = "/root/environment of pipx"  # where ProtectHome hides it, with a name to be quoted
UNIT_PATH = f"/etc/systemd/system/{UNIT}"


@pytest.fixture(scope="module")
def prepared(board: Board, package: Path) -> Board:
    """A virtual environment with the agent, as pip would leave it; the package is not installed."""
    board.put(package, "/edge-agent.deb")
    board.run("dpkg-deb", "--extract", "/edge-agent.deb", "/opt/unpacked")
    board.run("python3", "-m", "venv", "--without-pip", ENVIRONMENT)
    (site,) = board.path(ENVIRONMENT).glob("lib/python3*/site-packages")
    (site / "edge-agent.pth").write_text("/opt/unpacked/usr/lib/edge-agent\n")
    return board


@pytest.fixture
def pip_board(prepared: Board) -> Iterator[Board]:
    """Without the service at first, and afterwards."""
    yield prepared
    prepared.run("systemctl", "disable", "--now", UNIT, fails=True)
    prepared.run("rm", "-rf", UNIT_PATH, "/etc/edge-agent", "/var/lib/edge-agent")
    prepared.run("systemctl", "daemon-reload")


def service(board: Board, *words: str, fails: bool = False) -> str:
    program = (f"{ENVIRONMENT}/bin/python", "-m", "edge_agent", "service")
    return board.run(*program, *words, fails=fails)


def test_it_is_installed_serves_and_is_removed(pip_board: Board) -> None:
    said = service(pip_board, "install")
    for step in ("wrote /etc/edge-agent/agent.toml", f"wrote {UNIT_PATH}", f"restart {UNIT}"):
        assert step in said
    assert pip_board.unit("ActiveState") == "active"
    assert pip_board.unit("UnitFileState") == "enabled"
    assert "ProtectHome=read-only" in pip_board.path(UNIT_PATH).read_text()
    (pip_board.run_folder / "nri").mkdir(mode=0o700, exist_ok=True)
    socket = pip_board.run_folder / "nri" / "nri.sock"
    with SimRuntime(socket, request_timeout_s=TIMEOUT_S) as runtime:
        pip_board.put(guest("bench"), "/etc/edge-agent/plugins/10-bench.wasm")
        wait_until_it_changes(runtime)

    pid = pip_board.unit("MainPID")
    service(pip_board, "install")  # again, as after `pipx upgrade`
    assert pip_board.unit("MainPID") != pid

    said = service(pip_board, "remove")
    assert f"removed {UNIT_PATH}" in said
    assert pip_board.unit("LoadState") == "not-found"
    assert pip_board.path("/etc/edge-agent/plugins/10-bench.wasm").exists()
    assert pip_board.path("/var/lib/edge-agent/artifacts.secret").exists()
    assert "nothing to remove" in service(pip_board, "remove")


def test_folders_that_are_configured_can_be_written(pip_board: Board) -> None:
    pip_board.path("/etc/edge-agent").mkdir()
    config = pip_board.path("/etc/edge-agent/agent.toml")
    config.write_text('state_dir = "/srv/100% state"\ncontrol_socket = "/run/ea/control"\n')
    pip_board.run("mkdir", "-p", "/run/ea")
    service(pip_board, "install")
    pip_board.put(guest("bench"), "/etc/edge-agent/plugins/10-bench.wasm")
    assert (pip_board.run_folder / "ea" / "control").exists()
    (pip_board.run_folder / "nri").mkdir(mode=0o700, exist_ok=True)
    socket = pip_board.run_folder / "nri" / "nri.sock"
    with SimRuntime(socket, request_timeout_s=TIMEOUT_S) as runtime:
        runtime.wait_for_plugins(1)  # perhaps a placeholder's, while it is compiled
        artifacts = pip_board.path("/srv/100% state/artifacts")
        wait_until(lambda: any(artifacts.glob("*.artifact")), "the plugin is compiled")


def test_a_dry_run_prints_the_unit_and_does_nothing(pip_board: Board) -> None:
    said = service(pip_board, "install", "--dry-run")
    assert f'ExecStart="{ENVIRONMENT}/bin/python" -I -m edge_agent run -c ' in said
    assert not pip_board.path("/etc/edge-agent").exists()
    assert not pip_board.path(UNIT_PATH).exists()


def test_a_wrong_configuration_installs_nothing(pip_board: Board) -> None:
    pip_board.path("/etc/edge-agent").mkdir()
    pip_board.path("/etc/edge-agent/agent.toml").write_text('engin = "auto"\n')
    assert "did you mean engine?" in service(pip_board, "install", fails=True)
    assert not pip_board.path(UNIT_PATH).exists()


def test_what_the_service_could_not_see_is_refused(pip_board: Board) -> None:
    pip_board.path("/etc/edge-agent").mkdir()
    pip_board.path("/etc/edge-agent/agent.toml").write_text('plugin_dir = "/tmp/plugins"\n')
    said = service(pip_board, "install", fails=True)
    assert "/tmp/plugins: the service has a temporary folder of its own" in said
    assert not pip_board.path(UNIT_PATH).exists()


def test_somebody_elses_unit_is_left_alone(pip_board: Board) -> None:
    pip_board.path(UNIT_PATH).write_text("[Service]\nExecStart=/bin/true\n")
    for action in ("install", "remove"):
        said = service(pip_board, action, fails=True)
        assert f"{UNIT_PATH} was written by somebody else" in said
    assert "/bin/true" in pip_board.path(UNIT_PATH).read_text()


def test_only_root_may(pip_board: Board) -> None:
    pip_board.run("chmod", "o+x", "/root")
    program = f"{ENVIRONMENT}/bin/python"
    as_nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    said = pip_board.run(*as_nobody, program, "-m", "edge_agent", "service", "install", fails=True)
    assert said == "only root may do this: try again with sudo\n"


def test_without_systemd_it_says_what_to_do_instead(pip_board: Board) -> None:
    sign = pip_board.run_folder / "systemd" / "system"
    away = sign.rename(sign.with_name("away"))
    try:
        said = service(pip_board, "install", fails=True)
    finally:
        away.rename(sign)
    assert said.startswith("systemd does not run here; let whatever starts services")


def test_beside_the_package_it_is_refused(pip_board: Board) -> None:
    pip_board.run("dpkg", "--install", "/edge-agent.deb")
    try:
        said = service(pip_board, "install", fails=True)
        assert "the Debian package brought" in said
        assert "systemctl enable --now" in said
    finally:
        pip_board.run("dpkg", "--purge", "edge-agent")
        wait_until(lambda: pip_board.unit("LoadState") == "not-found", "the package is gone")
