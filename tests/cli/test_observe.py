"""What doctor sees of sockets, folders and brokers."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_agent.cli.observe import SocketFacts, look_at_folder, look_at_socket, try_broker
from edge_agent.cli.runtimefiles import listening_paths
from edge_agent.config import Broker, MqttConfig


@contextmanager
def listener(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen(1)
        yield server


def test_a_socket_with_a_listener_is_seen_without_connecting(tmp_path: Path) -> None:
    path = tmp_path / "nri.sock"
    with listener(path) as server:
        seen = look_at_socket(path)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert seen == SocketFacts(path, True, is_socket=True, listening=True, permitted=True)


def test_a_socket_is_seen_through_a_link_in_its_path(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "var").symlink_to(tmp_path / "run")
    with listener(tmp_path / "run" / "nri.sock"):
        assert look_at_socket(tmp_path / "var" / "nri.sock").listening


def test_a_socket_that_was_left_has_no_listener(tmp_path: Path) -> None:
    path = tmp_path / "nri.sock"
    with listener(path):
        pass
    seen = look_at_socket(path)
    assert (seen.is_socket, seen.listening) == (True, False)


def test_absent_and_ordinary_files_are_no_sockets(tmp_path: Path) -> None:
    file = tmp_path / "file"
    assert look_at_socket(file) == SocketFacts(file, exists=False)
    file.write_text("")
    assert not look_at_socket(file).is_socket
    assert look_at_socket(file / "below") == SocketFacts(file / "below", exists=False)


def test_a_kernel_that_tells_no_files_leaves_the_name(tmp_path: Path) -> None:
    path = tmp_path / "nri.sock"
    with listener(path):
        seen = look_at_socket(path, files=lambda: None)
        assert (seen.listening, seen.by_name, seen.elsewhere) == (True, True, False)
        assert not look_at_socket(path, tmp_path / "no list", lambda: None).listening


@pytest.mark.system
def test_the_same_name_in_another_mount_namespace_is_another_socket(tmp_path: Path) -> None:
    """A runtime in a container with the host's network, and a socket that was left here."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("a mount namespace needs root and unshare")
    path = tmp_path / "nri.sock"
    with listener(path):
        pass
    program = (
        "import socket, sys; server = socket.socket(socket.AF_UNIX); server.bind(sys.argv[1]);"
        "server.listen(1); print('listening', flush=True); sys.stdin.read()"
    )
    command = f'mount -t tmpfs none {tmp_path} && exec {sys.executable} -c "$0" {path}'
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", command, program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "listening\n"
        seen = look_at_socket(path)
        assert path in listening_paths()  # which is all that doctor went by
        other.communicate("")
    assert (seen.listening, seen.elsewhere, seen.by_name) == (False, True, False)


def test_a_folder_is_there_or_can_be_made(tmp_path: Path) -> None:
    there = look_at_folder(tmp_path)
    assert (there.exists, there.readable, there.writable) == (True, True, True)
    absent = look_at_folder(tmp_path / "a" / "b")
    assert (absent.exists, absent.readable, absent.writable) == (False, False, True)
    assert absent.free_bytes > 0


def test_a_file_in_a_folders_place_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    seen = look_at_folder(tmp_path / "file")
    assert (seen.exists, seen.writable) == (False, False)


def broker_at(server: socket.socket, *, tls: bool) -> tuple[MqttConfig, Broker]:
    broker = Broker("127.0.0.1", server.getsockname()[1], tls)
    return MqttConfig(brokers=(broker,), client_id="node"), broker


@contextmanager
def tcp_server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_broker_that_takes_connections_is_well() -> None:
    with tcp_server() as server:
        assert try_broker(*broker_at(server, tls=False)) is None


def test_a_broker_that_is_not_there_says_so() -> None:
    with tcp_server() as server:
        config, broker = broker_at(server, tls=False)
    assert "refused" in str(try_broker(config, broker))


def test_a_broker_that_speaks_no_tls_says_so() -> None:
    with tcp_server() as server:

        def answer() -> None:
            connection, _ = server.accept()
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        assert "TLS" in str(try_broker(*broker_at(server, tls=True)))
        thread.join()


def test_a_missing_authority_is_named(tmp_path: Path) -> None:
    with tcp_server() as server:
        _, broker = broker_at(server, tls=True)
        config = MqttConfig((broker,), "node", ca_file=tmp_path / "ca.pem")
        assert str(tmp_path / "ca.pem") in str(try_broker(config, broker))
