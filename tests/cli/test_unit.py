"""The unit's text for different installations and configurations."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edge_agent.cli.service import Needs, needs, quoted, render
from edge_agent.config import AgentConfig, Broker, MqttConfig, NriConfig, UpdatesConfig

COMMAND = ["/usr/bin/edge-agent", "run"]
PLAIN = AgentConfig(node="board")
BROKER = (Broker("broker.example", 8883, True),)


def lines(command: list[str] = COMMAND, needed: Needs | None = None) -> list[str]:
    return render(command, needed or Needs()).splitlines()


def test_no_placeholder_stays() -> None:
    assert not re.search("@[A-Z]+@", render(COMMAND))
    assert "ExecStart=/usr/bin/edge-agent run" in lines()
    assert "ProtectHome=yes" in lines()
    assert not [line for line in lines() if line.startswith("ReadWritePaths")]


def test_the_defaults_need_nothing() -> None:
    assert needs(PLAIN, [Path("/usr/bin/python3")]) == Needs()


def test_folders_elsewhere_are_made_writable() -> None:
    config = AgentConfig(
        node="board", state_dir=Path("/srv/a b"), control_socket=Path("/run/other/control")
    )
    found = needs(config, [])
    assert found == Needs(writable=(Path("/srv/a b"), Path("/run/other")))
    text = render(COMMAND, found)
    assert 'ReadWritePaths="/srv/a b"\nReadWritePaths=/run/other\n' in text


def test_where_runtimes_take_orders_is_hidden_but_no_socket_of_nri() -> None:
    hidden = [line.partition("=-")[2] for line in lines() if line.startswith("InaccessiblePaths")]
    for path in ("/run/containerd", "/run/docker.sock", "/run/crio", "/run/dbus"):
        assert path in hidden
    for socket in (*NriConfig.sockets, Path("/run/systemd/notify"), Path("/run/edge-agent/x")):
        real = str(socket).removeprefix("/var")
        assert not [path for path in hidden if Path(real).is_relative_to(path)]


def test_a_folder_with_a_socket_of_nri_in_it_is_not_hidden() -> None:
    sockets = (Path("/var/run/containerd/nri.sock"), Path("/run/crio/nri/nri.sock"))
    found = needs(AgentConfig(node="board", nri=NriConfig(sockets=sockets)), [])
    text = render(COMMAND, found)
    assert "InaccessiblePaths=-/run/containerd\n" not in text
    assert "InaccessiblePaths=-/run/crio\n" not in text
    assert "InaccessiblePaths=-/run/docker.sock\n" in text


@pytest.mark.parametrize("path", ["/root/.local/bin/python", "/home/pi/v", "/run/user/0/x"])
def test_a_program_in_a_home_can_be_read(path: str) -> None:
    found = needs(PLAIN, [Path(path)])
    assert found.home
    assert "ProtectHome=read-only" in lines(needed=found)


def test_the_operators_keys_in_a_home_can_be_read() -> None:
    config = AgentConfig(node="board", updates=UpdatesConfig(trust_dir=Path("/root/trust")))
    assert needs(config, []).home


@pytest.mark.parametrize("key", ["password_file", "ca_file", "cert_file", "key_file"])
def test_a_file_of_mqtt_in_a_home_can_be_read(key: str) -> None:
    mqtt = MqttConfig(BROKER, "board", **{key: Path("/home/pi/file")})  # type: ignore[arg-type]
    assert needs(AgentConfig(node="board", mqtt=mqtt), []).home


def test_what_a_private_tmp_hides_is_named() -> None:
    config = AgentConfig(node="board", nri=NriConfig(sockets=(Path("/tmp/nri.sock"),)))
    found = needs(config, [Path("/var/tmp/python"), Path("/tmpfs/python")])
    assert found.hidden == (Path("/var/tmp/python"), Path("/tmp/nri.sock"))


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("plain", "plain"),
        ("", '""'),
        ("two words", '"two words"'),
        ("100%", "100%%"),
        ('a"b\\c', '"a\\"b\\\\c"'),
        (";", '";"'),
    ],
)
def test_words_are_written_as_systemd_reads_them(word: str, written: str) -> None:
    assert quoted(word) == written


def test_variables_are_escaped_in_arguments_only() -> None:
    assert "ExecStart=/opt/$x -c $$HOME" in lines(["/opt/$x", "-c", "$HOME"])
