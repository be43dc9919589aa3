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


def test_an_import_of_containerd_overrides_single_keys(tmp_path: Path) -> None:
    main = f"version = 3\nimports = ['/etc/containerd/conf.d/*.toml']\n{NRI}\ndisable = false"
    write(tmp_path, "etc/containerd/config.toml", main)
    write(tmp_path, "etc/containerd/conf.d/20-b.toml", f"{NRI}\nsocket_path = '/run/b.sock'")
    write(tmp_path, "etc/containerd/conf.d/10-a.toml", f"{NRI}\nsocket_path = '/run/a.sock'")
    write(tmp_path, "etc/containerd/conf.d/30-c.conf", f"{NRI}\ndisable = true")
    runtime = only(tmp_path)
    assert (runtime.switched_on, runtime.socket) == (True, Path("/run/b.sock"))
    assert runtime.source.startswith("/etc/containerd/conf.d/20-b.toml, which")


def test_an_import_of_an_import_is_read_once_and_lists_are_joined(tmp_path: Path) -> None:
    write(tmp_path, "etc/containerd/config.toml", "version = 2\nimports = ['more/a.toml']")
    text = "imports = ['../config.toml', 'b.toml']\ndisabled_plugins = ['io.containerd.x.v1.y']"
    write(tmp_path, "etc/containerd/more/a.toml", text)
    write(tmp_path, "etc/containerd/more/b.toml", "disabled_plugins = ['cri']")
    assert not only(tmp_path).serves


def test_without_a_main_file_no_drop_in_is_read(tmp_path: Path) -> None:
    """As containerd 2.3 does, whose default configuration names the folder all the same."""
    write(tmp_path, "usr/bin/containerd")
    write(tmp_path, "etc/containerd/conf.d/10-a.toml", f"{NRI}\ndisable = true")
    assert only(tmp_path).switched_on is None


def test_an_import_that_is_not_there_keeps_containerd_from_starting(tmp_path: Path) -> None:
    write(tmp_path, "etc/containerd/config.toml", "imports = ['gone.toml', 'none/*.toml']")
    assert "/etc/containerd/gone.toml is named and is not there" in str(only(tmp_path).problem)


def test_what_containerd_1_and_2_read_differently_is_told(tmp_path: Path) -> None:
    main = f"version = 2\nimports = ['a.toml']\n{NRI}\ndisable = false"
    write(tmp_path, "etc/containerd/config.toml", main)
    write(tmp_path, "etc/containerd/a.toml", f"{NRI}\nsocket_path = '/run/a.sock'")
    assert "containerd 1.7 takes that one alone" in str(only(tmp_path).problem)


def daemon(root: Path, pid: int, *words: str, nested: str = "") -> None:
    """A process as /proc has it."""
    write(root, "proc/1/comm", "systemd\n")
    write(root, f"proc/{pid}/comm", words[0].rsplit("/", 1)[-1] + "\n")
    write(root, f"proc/{pid}/cmdline", "".join(f"{word}\0" for word in words))
    write(root, f"proc/{pid}/status", f"Name:\tx\nNSpid:\t{pid}{nested}\n")


@pytest.mark.parametrize(
    ("words", "switched_on", "socket"),
    [
        (("--nri-opts=enable=true,socket-path=/s",), True, Path("/s")),
        (("-H", "fd://", "--nri-opts", "enable,socket-path=/s"), True, Path("/s")),
        (("--nri-opts", "enable=false"), False, Path("/file")),
        (("--nri-opts=enable=true", "--nri-opts", "socket-path=/s"), True, Path("/s")),
        (("-H", "fd://"), True, Path("/file")),
    ],
)
def test_the_words_that_dockerd_was_started_with_count(
    tmp_path: Path, words: tuple[str, ...], switched_on: bool, socket: Path
) -> None:
    text = '{"nri-opts": {"enable": true, "socket-path": "/file"}}'
    write(tmp_path, "etc/docker/daemon.json", text)
    daemon(tmp_path, 700, "/usr/bin/dockerd", *words)
    runtime = only(tmp_path)
    assert (runtime.switched_on, runtime.socket) == (switched_on, socket)
    assert not runtime.unseen


def test_another_file_that_a_daemon_was_started_with_is_read(tmp_path: Path) -> None:
    write(tmp_path, "etc/containerd/config.toml", f"{NRI}\ndisable = true")
    write(tmp_path, "var/k3s/config.toml", f"version = 3\n{NRI}\nsocket_path = '/run/k3s.sock'")
    daemon(tmp_path, 700, "containerd", "-c", "/var/k3s/config.toml", "-a", "/run/k3s/c.sock")
    write(tmp_path, "x/docker.json", '{"nri-opts": {"enable": true, "socket-path": "/d"}}')
    daemon(tmp_path, 701, "dockerd", "--config-file=/x/docker.json")
    containerd, docker = installed_runtimes(tmp_path)
    assert (containerd.switched_on, containerd.socket) == (None, Path("/run/k3s.sock"))
    assert docker.socket == Path("/d")


def test_a_file_that_a_daemon_was_started_with_must_be_there(tmp_path: Path) -> None:
    daemon(tmp_path, 700, "containerd", "--config", "/gone.toml")
    assert "/gone.toml is named and is not there" in str(only(tmp_path).problem)


def test_crios_words_count_more_than_its_files(tmp_path: Path) -> None:
    write(tmp_path, "etc/crio/crio.conf", "[crio.nri]\nenable_nri = true")
    daemon(tmp_path, 700, "crio", "--enable-nri=false", "--nri-listen", "/s")
    assert (only(tmp_path).switched_on, only(tmp_path).socket) == (False, Path("/s"))


def test_a_runtime_inside_of_a_container_is_none_of_this_machine(tmp_path: Path) -> None:
    daemon(tmp_path, 700, "dockerd", "--nri-opts", "enable", nested="\t1")
    daemon(tmp_path, 701, "containerd", "--config", "/var/run/docker/containerd/containerd.toml")
    assert installed_runtimes(tmp_path) == []


def test_hidden_processes_are_told(tmp_path: Path) -> None:
    write(tmp_path, "usr/bin/dockerd")
    assert only(tmp_path).unseen
