"""`edge-agent run` as a process, as the other commands see it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.__main__ import main
from edge_agent.wasm.engine_selection import engine_names
from tests.support import engines
from tests.support.agent import ROOT, Agent, guest


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    with Agent(tmp_path, sockets=[tmp_path / "nri.sock"]) as agent:
        agent.put("10-bench", guest("bench"))
        agent.wait_for(lambda _: agent.entries("10-bench"), "the plugin is found")
        yield agent


def test_status_shows_the_running_agent(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "-c", str(agent.config_path)]) == 0
    shown = capsys.readouterr().out
    assert "on node-under-test, up " in shown
    assert "10-bench" in shown
    assert "waiting (no socket there)" in shown


def test_doctor_sees_the_running_agent(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "-c", str(agent.config_path)]) == 1  # no runtime is there
    shown = capsys.readouterr().out
    assert "running, version 0." in shown
    assert "ok    plugin         10-bench" in shown
    assert "no runtime offers NRI" in shown


def test_a_second_agent_with_the_same_socket_is_refused(agent: Agent) -> None:
    command = [sys.executable, "-m", "edge_agent", "run", "-c", str(agent.config_path)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1
    assert "another agent listens on" in done.stderr
    assert agent.status()["node"] == "node-under-test"


def test_a_wrong_configuration_starts_nothing(tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text('state_dir = "state"\nengin = "auto"\n')
    command = [sys.executable, "-m", "edge_agent", "run", "-c", str(config)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{config}:2: engin: unknown key; did you mean engine?\n"
    assert sorted(tmp_path.iterdir()) == [config]


@pytest.mark.parametrize("engine", engine_names())
def test_an_engine_that_is_configured_and_not_installed_is_told_before_anything_starts(
    tmp_path: Path, engine: str
) -> None:
    packages = dict.fromkeys(engines.PACKAGES[engine])
    config = tmp_path / "agent.toml"
    config.write_text(
        f'state_dir = "state"\nengine = "{engine}"\ncontrol_socket = "{tmp_path}/control"\n'
    )
    hidden = (
        f"import sys; sys.modules.update({packages!r}); from edge_agent.__main__ import main; "
        f"sys.exit(main(['run', '-c', {str(config)!r}]))"
    )
    command = [sys.executable, "-c", hidden]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1
    assert "is not installed" in done.stderr
    assert "install " in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.iterdir()) == [config]
