"""Files and folders that others may change, and an agent that says so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.config import AgentConfig, Broker, MqttConfig, UpdatesConfig
from edge_agent.node.exposure import exposed, files_of
from tests.support.agent import Agent, guest

ROOT = Path(__file__).parents[2]
SOMEBODY = 4321

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "etc" / "plugins"
    made.mkdir(parents=True)
    (made / "10-a.wasm").touch(0o644)
    return made


def told(path: Path) -> dict[str, str]:
    return {str(each.path): each.reason for each in exposed([path])}


def test_what_only_the_agents_user_may_write_is_well(folder: Path) -> None:
    assert told(folder / "10-a.wasm") == {}
    folder.chmod(0o775)  # its own group, as with a umask of 002
    assert told(folder) == {}


def test_what_everybody_may_write_is_told_also_above(folder: Path) -> None:
    file = folder / "10-a.wasm"
    file.chmod(0o646)
    assert told(file) == {str(file): "may be written by everybody"}
    file.chmod(0o644)
    folder.chmod(0o777)
    folder.parent.chmod(0o777)
    both = dict.fromkeys(map(str, (folder, folder.parent)), "may be written by everybody")
    assert told(file) == both
    assert exposed([file, folder]) == exposed([folder, file])  # each once


def test_a_sticky_folder_above_is_well_and_a_sticky_one_of_plugins_is_not(folder: Path) -> None:
    folder.parent.chmod(0o1777)
    assert told(folder) == {}
    folder.chmod(0o1777)
    assert told(folder) == {str(folder): "may be written by everybody"}


@pytest.mark.system
@needs_root
def test_another_owner_and_another_group_are_told(folder: Path) -> None:
    os.chown(folder, SOMEBODY, -1)
    assert told(folder) == {str(folder): f"belongs to user {SOMEBODY}"}
    os.chown(folder, 0, SOMEBODY)
    folder.chmod(0o775)
    assert told(folder) == {str(folder): f"may be written by the group {SOMEBODY}"}
    folder.chmod(0o755)
    assert told(folder) == {}


def test_both_ends_of_a_link_count(folder: Path, tmp_path: Path) -> None:
    open_folder = tmp_path / "open"
    open_folder.mkdir()
    open_folder.chmod(0o777)
    (open_folder / "plugins").symlink_to(folder)
    assert set(told(open_folder / "plugins")) == {str(open_folder)}
    (tmp_path / "link").symlink_to(open_folder)
    assert set(told(tmp_path / "link")) == {str(open_folder)}


def test_what_is_not_there_is_not_told(tmp_path: Path) -> None:
    assert told(tmp_path / "none" / "at all") == {}


@pytest.mark.system
@needs_root
def test_a_volume_that_is_mounted_read_only_is_well_whatever_its_mode(tmp_path: Path) -> None:
    """As Kubernetes mounts a ConfigMap."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    folder = tmp_path / "volume"
    folder.mkdir()
    program = (
        "import sys; from pathlib import Path; from edge_agent.node.exposure import exposed;"
        "print(len(exposed([Path(sys.argv[1])])))"
    )
    script = (
        f'mount -t tmpfs -o mode=0777$1 none {folder} && exec {sys.executable} -c "$0" {folder}'
    )
    for options, count in (("", "1"), (",ro", "0")):
        command = ["unshare", "--mount", "sh", "-c", script, program, options]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == count


def test_every_file_that_decides_what_runs_is_looked_at(tmp_path: Path) -> None:
    for name in ("plugins/1.wasm", "plugins/1.conf", "plugins/1.toml", "plugins/x", "trust/a.pem"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    config = AgentConfig(
        node="n",
        plugin_dir=tmp_path / "plugins",
        state_dir=tmp_path / "state",
        mqtt=MqttConfig((Broker("b", 1, True),), "n", key_file=tmp_path / "key"),
        updates=UpdatesConfig(
            trust_dir=tmp_path / "trust", registry_auth_file=tmp_path / "registry"
        ),
    )
    found = [str(each.relative_to(tmp_path)) for each in files_of(config, tmp_path / "agent.toml")]
    assert sorted(found) == sorted(
        [
            *("agent.toml", "state", "registry", "key", "trust", "trust/a.pem"),
            *("plugins", "plugins/1.conf", "plugins/1.toml", "plugins/1.wasm"),
        ]
    )


def test_the_agent_tells_once_and_in_its_state_and_forgets_what_is_set_right(
    tmp_path: Path,
) -> None:
    plugins = {"10-bench": guest("bench")}
    with Agent(tmp_path / "a", sockets=[tmp_path / "nri.sock"], plugins=plugins) as agent:
        assert "writable_by_others" not in agent.wait_for(lambda status: status, "it answers")
        agent.plugin_dir.chmod(0o777)
        words = f"{agent.plugin_dir} may be written by everybody"
        for _ in range(2):
            agent.reload()
            status = agent.wait_for(lambda status: "writable_by_others" in status, "it is told")
        assert status["writable_by_others"] == [words]
        agent.wait_for_line(words)
        assert [each["level"] for each in agent.lines if words in each["message"]] == ["error"]
        agent.plugin_dir.chmod(0o755)
        agent.reload()
        agent.wait_for(lambda status: "writable_by_others" not in status, "it is set right")
