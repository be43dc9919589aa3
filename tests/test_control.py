"""The control socket: what it answers, and that hostile clients end only themselves."""

import json
import os
import queue
import select
import socket
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent import control
from edge_agent.control import MAX_CLIENTS, MAX_REQUEST_BYTES, ControlServer, Deferred, ask
from edge_agent.errors import ControlError, NotRunningError
from edge_agent.loop import Loop
from tests.support.wait import TIMEOUT_S

BIG = "x" * (2 << 20)  # far more than a socket's buffer takes


class Agent:
    """A loop on a thread with a control server on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._loop = Loop()
        self.server = ControlServer(
            self._loop,
            path,
            {
                "status": lambda arguments: {"state": "well", **arguments},
                "big": lambda _arguments: {"big": BIG},
                "fail": lambda _arguments: {"never": 1 // 0},
                "odd": lambda _arguments: {"path": Path("/not/json")},
                "later": self._later,
            },
        )
        self.deferred: queue.SimpleQueue[Deferred] = queue.SimpleQueue()
        self.server.open()
        self._thread = threading.Thread(target=self._loop.run)
        self._thread.start()

    def _later(self, arguments: dict[str, object]) -> Deferred:
        deferred = Deferred(self._loop)
        if arguments.get("known"):
            deferred.give({"state": "known"})
        self.deferred.put(deferred)
        return deferred

    def on_loop(self, work: Callable[[], None]) -> None:
        """Run `work` on the loop's thread and wait for it."""
        done = threading.Event()

        def run() -> None:
            work()
            done.set()

        self._loop.call_soon(run)
        assert done.wait(TIMEOUT_S)

    def stop(self) -> None:
        self.on_loop(self.server.close)
        self._loop.call_soon(self._loop.stop)
        self._thread.join(TIMEOUT_S)
        self._loop.close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path / "run" / "control.sock")
    yield agent
    agent.stop()


def connect(agent: Agent) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(TIMEOUT_S)
    connection.connect(str(agent.path))
    return connection


def send(agent: Agent, data: bytes) -> dict[str, object]:
    """The whole answer to `data`, up to the server's close."""
    with connect(agent) as connection:
        connection.sendall(data)
        with connection.makefile("rb") as file:
            answer = json.loads(file.readline())
    assert isinstance(answer, dict)
    return answer


def test_a_verb_is_answered(agent: Agent) -> None:
    assert ask(agent.path, "status") == {"state": "well"}
    assert ask(agent.path, "status", plugin="10-a") == {"state": "well", "plugin": "10-a"}


def test_an_answer_that_another_thread_finds_is_waited_for(agent: Agent) -> None:
    assert ask(agent.path, "later", known=True) == {"state": "known"}
    agent.deferred.get()
    answers: list[dict[str, object]] = []
    asking = threading.Thread(target=lambda: answers.append(ask(agent.path, "later")))
    asking.start()
    deferred = agent.deferred.get(timeout=TIMEOUT_S)
    assert ask(agent.path, "status") == {"state": "well"}  # nobody else waits for it
    deferred.give({"state": "found"})
    asking.join(TIMEOUT_S)
    assert answers == [{"state": "found"}]


def test_a_client_that_left_before_its_answer_was_found_costs_nothing(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "CLIENT_SECONDS", 0.05)
    with connect(agent) as connection:
        connection.sendall(b'{"verb": "later"}\n')
        deferred = agent.deferred.get(timeout=TIMEOUT_S)
        assert connection.recv(1) == b""  # its time is over
    deferred.give({"state": "found"})
    agent.on_loop(lambda: None)
    assert not agent.server.clients
    monkeypatch.undo()
    assert ask(agent.path, "status") == {"state": "well"}


def test_only_the_agents_user_may_connect(agent: Agent) -> None:
    assert stat.S_IMODE(agent.path.stat().st_mode) == 0o600


def test_an_answer_larger_than_the_socket_takes_arrives_whole(agent: Agent) -> None:
    assert ask(agent.path, "big") == {"big": BIG}


def test_the_request_may_come_in_pieces(agent: Agent) -> None:
    with connect(agent) as connection:
        for byte in b'{"verb":"status"}\n':
            connection.sendall(bytes([byte]))
        assert json.loads(connection.recv(4096)) == {"answer": {"state": "well"}}
        assert connection.recv(1) == b""


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (b"\n", "not a JSON object"),
        (b"\xff\xfe\n", "not a JSON object"),
        (b"[" * 50_000 + b"\n", "not a JSON object"),
        (b"[]\n", "unknown verb; known are big, fail, later, odd, status"),
        (b'{"verb": ["status"]}\n', "unknown verb"),
        (b'{"verb": "stats"}\n', "unknown verb"),
        (b'{"verb": "status", "arguments": []}\n', "arguments must be a JSON object"),
        (b'{"verb": "fail"}\n', "fail failed: integer division"),
        (b'{"verb": "odd"}\n', "odd failed: Object of type"),
        (b"x" * (MAX_REQUEST_BYTES + 1), f"at most {MAX_REQUEST_BYTES} bytes"),
    ],
)
def test_a_bad_request_gets_an_error_and_the_next_client_an_answer(
    agent: Agent, request_: bytes, said: str
) -> None:
    assert said in str(send(agent, request_)["error"])
    assert ask(agent.path, "status") == {"state": "well"}


def test_a_client_that_leaves_in_the_middle_harms_nobody(agent: Agent) -> None:
    for data in (b"", b'{"verb', b'{"verb": "big"}\n'):
        with connect(agent) as connection:
            connection.sendall(data)
    assert ask(agent.path, "status") == {"state": "well"}


def test_a_client_that_never_reads_does_not_stop_the_others(agent: Agent) -> None:
    with connect(agent) as connection:
        connection.sendall(b'{"verb": "big"}\n')
        assert ask(agent.path, "status") == {"state": "well"}


def test_half_a_line_is_ended_after_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "CLIENT_SECONDS", 0.05)
    agent = Agent(tmp_path / "control.sock")
    try:
        with connect(agent) as connection:
            connection.sendall(b'{"verb"')
            assert connection.recv(1) == b""  # closed by the server
    finally:
        agent.stop()


def test_an_answer_that_nobody_takes_is_ended_after_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "CLIENT_SECONDS", 0.05)
    agent = Agent(tmp_path / "control.sock")
    try:
        with connect(agent) as connection:
            connection.sendall(b'{"verb": "big"}\n')
            closed = select.poll()
            closed.register(connection, 0)
            assert closed.poll(1000 * TIMEOUT_S) == [(connection.fileno(), select.POLLHUP)]
            with connection.makefile("rb") as file:
                assert len(file.read()) < len(BIG)
    finally:
        agent.stop()


def test_one_client_too_many_is_told_so_and_a_place_becomes_free(agent: Agent) -> None:
    held = [connect(agent) for _ in range(MAX_CLIENTS)]
    with pytest.raises(ControlError, match="busy with 4 other clients"):
        ask(agent.path, "status")
    for connection in held:
        connection.sendall(b"\n")
        assert b"not a JSON object" in connection.recv(4096)
        assert connection.recv(1) == b""
        connection.close()
    assert ask(agent.path, "status") == {"state": "well"}


def test_nobody_listening_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotRunningError, match=r"no agent listens on .*edge-agent run"):
        ask(tmp_path / "control.sock", "status")


def test_a_socket_that_a_dead_agent_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    with pytest.raises(NotRunningError):
        ask(path, "status")
    agent = Agent(path)
    assert ask(path, "status") == {"state": "well"}
    agent.stop()
    assert not path.exists()


def test_a_live_agents_socket_is_left_alone(agent: Agent) -> None:
    with Loop() as loop:
        second = ControlServer(loop, agent.path, {})
        with pytest.raises(ControlError, match="another agent listens on"):
            second.open()
        second.close()
    assert ask(agent.path, "status") == {"state": "well"}


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("precious")
    with Loop() as loop, pytest.raises(ControlError, match="is no socket; remove it"):
        ControlServer(loop, path, {}).open()
    assert path.read_text() == "precious"


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with Loop() as loop, pytest.raises(ControlError, match=r"cannot listen on .*: "):
        ControlServer(loop, tmp_path / "file" / "control.sock", {}).open()


def test_closing_leaves_a_successors_socket(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    first = Agent(path)
    path.unlink()
    second = Agent(path)
    first.stop()
    assert ask(path, "status") == {"state": "well"}
    second.stop()


@pytest.mark.system
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_another_user_is_told_about_permission() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        agent = Agent(Path(folder) / "control.sock")
        os.seteuid(65534)
        try:
            with pytest.raises(ControlError, match="try with sudo"):
                ask(agent.path, "status")
        finally:
            os.seteuid(0)
            agent.stop()
