"""Which runtimes are found by their files, and what these say about NRI."""

from pathlib import Path

import pytest

from edge_agent.cli.runtimes import NRI_SOCKET, Runtime, installed_runtimes

NRI = "[plugins.'io.containerd.nri.v1.nri']"


def write(root: Path, name: str, text: str = "") -> None:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def only(root: Path) -> Runtime:
    (runtime,) = installed_runtimes(root)
    return runtime


def test_an_empty_machine_has_none(tmp_path: Path) -> None:
    assert installed_runtimes(tmp_path) == []


@pytest.mark.parametrize(
    ("sign", "name"),
    [
        ("usr/bin/containerd", "containerd"),
        ("run/containerd/containerd.sock", "containerd"),
        ("usr/bin/crio", "CRI-O"),
        ("etc/crio/crio.conf", "CRI-O"),
        ("usr/bin/dockerd", "Docker Engine"),
        ("etc/docker/daemon.json", "Docker Engine"),
    ],
)
def test_any_sign_is_enough(tmp_path: Path, sign: str, name: str) -> None:
    write(tmp_path, sign)
    assert only(tmp_path).name == name


def test_without_a_file_containerd_and_crio_leave_it_to_their_version(tmp_path: Path) -> None:
    write(tmp_path, "usr/bin/containerd")
    write(tmp_path, "usr/bin/crio")
    for runtime in installed_runtimes(tmp_path):
        assert (runtime.switched_on, runtime.socket, runtime.serves) == (None, NRI_SOCKET, True)


@pytest.mark.parametrize(
    ("text", "switched_on", "socket", "serves"),
    [
        (f"{NRI}\ndisable = false", True, NRI_SOCKET, True),
        (f"{NRI}\ndisable = true", False, NRI_SOCKET, True),
        (f"{NRI}\ndisable_connections = true", None, None, True),
        (f"{NRI}\nsocket_path = '/run/other.sock'", None, Path("/run/other.sock"), True),
        ("disabled_plugins = ['io.containerd.nri.v1.nri']", False, NRI_SOCKET, True),
        ("disabled_plugins = ['cri']", None, NRI_SOCKET, False),
        ("plugins = 3\ndisabled_plugins = 4", None, NRI_SOCKET, True),
    ],
)
def test_containerd_is_read(
    tmp_path: Path, text: str, switched_on: bool | None, socket: Path | None, serves: bool
) -> None:
    write(tmp_path, "etc/containerd/config.toml", text)
    runtime = only(tmp_path)
    assert (runtime.switched_on, runtime.socket, runtime.serves) == (switched_on, socket, serves)


def test_a_later_crio_file_overrides_an_earlier_one(tmp_path: Path) -> None:
    write(tmp_path, "etc/crio/crio.conf", "[crio.nri]\nenable_nri = true\nnri_listen = '/a'")
    write(tmp_path, "etc/crio/crio.conf.d/20-off.conf", "[crio.nri]\nenable_nri = false")
    write(tmp_path, "etc/crio/crio.conf.d/10-on.conf", "[crio.nri]\nenable_nri = true")
    assert (only(tmp_path).switched_on, only(tmp_path).socket) == (False, Path("/a"))


def test_crio_may_refuse_connections(tmp_path: Path) -> None:
    write(tmp_path, "etc/crio/crio.conf", "[crio.nri]\nnri_disable_connections = true")
    assert only(tmp_path).socket is None


@pytest.mark.parametrize(
    ("text", "switched_on", "socket"),
    [
        ("", False, None),
        ("{}", False, None),
        ('{"nri-opts": {"enable": true}}', True, None),
        ('{"nri-opts": {"enable": true, "socket-path": "/s"}}', True, Path("/s")),
        ("[]", False, None),
    ],
)
def test_docker_is_off_without_its_options_and_closed_without_a_socket_path(
    tmp_path: Path, text: str, switched_on: bool, socket: Path | None
) -> None:
    write(tmp_path, "etc/docker/daemon.json", text)
    assert (only(tmp_path).switched_on, only(tmp_path).socket) == (switched_on, socket)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("etc/containerd/config.toml", "[broken"),
        ("etc/docker/daemon.json", "{"),
        ("etc/crio/crio.conf", "a = " + "[" * 100_000),
    ],
)
def test_a_file_that_cannot_be_understood_is_told(tmp_path: Path, file: str, text: str) -> None:
    write(tmp_path, file, text)
    assert only(tmp_path).problem
