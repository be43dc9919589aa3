"""A session's socket against peers that close, stall, dribble, flood or are not there."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent.loop import Loop
from edge_agent.nri import events, link
from edge_agent.nri.link import Link
from edge_agent.nri.session import Call, Incoming, Session, State
from edge_agent.pb import nri_pb2, ttrpc_pb2
from edge_agent.sim import upstream
from tests.support.pieces import memory_taken
from tests.support.runtimeside import EVERYTHING
from tests.support.turning import turn_until

MIB = 1 << 20


def request(stream: int, method: str, payload: bytes = b"") -> bytes:
    body = ttrpc_pb2.Request(service=events.PLUGIN_SERVICE, method=method, payload=payload)
    return upstream.write(upstream.PLUGIN, stream, upstream.REQUEST, body.SerializeToString())


class Line:
    """A link and, at the other end of a real socket, a runtime in the test's hands."""

    def __init__(self, loop: Loop, path: Path) -> None:
        self.loop = loop
        self.session = Session("10", "one", EVERYTHING, "")
        self.calls: list[Call] = []
        self.closed: list[str] = []
        self.reply: Callable[[Call], bytes] = lambda _: b""
        self.reader = upstream.Reader()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with listener:
            listener.bind(str(path))
            listener.listen()
            self.link = Link(loop, path, self.session, self._received, self.closed.append)
            self.runtime, _ = listener.accept()
        self.runtime.setblocking(False)

    def _received(self, incoming: Incoming) -> None:
        assert isinstance(incoming, Call)
        self.calls.append(incoming)
        self.session.answer(incoming, self.reply(incoming))
        self.link.flush()

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        turn_until(self.loop, lambda: condition() or bool(self.closed), what)
        assert condition(), f"the link ended: {self.closed}"

    def start(self) -> None:
        """Configure and synchronise; the answers are read."""
        self.runtime.sendall(request(1, "Configure"))
        self.read(2)  # with the registration
        self.runtime.sendall(request(3, "Synchronize"))
        self.read(1)
        self.calls.clear()

    def wait_closed(self) -> str:
        self.wait(lambda: bool(self.closed), "the end of the link")
        [reason] = self.closed
        assert not self.link.open
        return reason

    def read(self, count: int, size: int = 1 << 16) -> list[upstream.Message]:
        """The next messages for the runtime."""
        found: list[upstream.Message] = []

        def enough() -> bool:
            try:
                data = self.runtime.recv(size)
            except BlockingIOError:
                return False
            assert data, "the agent closed the connection"
            found.extend(message for _, message in self.reader.feed(data))
            return len(found) >= count

        while not enough():
            self.loop.call_later(0.001, lambda: None)  # or nothing wakes the loop
            self.loop.turn()
        assert len(found) == count
        return found


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop


@pytest.fixture
def line(loop: Loop, tmp_path: Path) -> Iterator[Line]:
    line = Line(loop, tmp_path / "nri.sock")
    yield line
    line.runtime.close()
    line.link.close("the test is over")


# --- nobody there


def nothing(_: Path) -> None:
    pass


def plain_file(path: Path) -> None:
    path.write_text("not a socket")


def folder(path: Path) -> None:
    path.mkdir()


def left_behind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def datagram(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(path))


@pytest.mark.parametrize(
    ("there", "error"),
    [
        (nothing, FileNotFoundError),
        (plain_file, ConnectionRefusedError),
        (folder, ConnectionRefusedError),
        (left_behind, ConnectionRefusedError),
        (datagram, ConnectionRefusedError),
    ],
)
def test_where_nobody_listens_the_link_is_an_os_error(
    loop: Loop, tmp_path: Path, there: Callable[[Path], None], error: type[OSError]
) -> None:
    path = tmp_path / "nri.sock"
    there(path)
    closed: list[str] = []
    session = Session("10", "one", EVERYTHING, "")
    with pytest.raises(error):
        Link(loop, path, session, lambda _: None, closed.append)
    assert closed == []
    assert session.state is State.NEW


def test_a_path_that_no_socket_can_have_is_an_os_error(loop: Loop, tmp_path: Path) -> None:
    session = Session("10", "one", EVERYTHING, "")
    with pytest.raises(OSError, match="too long"):
        Link(loop, tmp_path / ("x" * 200), session, lambda _: None, lambda _: None)


def test_a_full_backlog_is_an_os_error_and_nobody_waits(loop: Loop, tmp_path: Path) -> None:
    path = tmp_path / "nri.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        links: list[Link] = []

        def connect() -> None:
            session = Session("10", "one", EVERYTHING, "")
            links.append(Link(loop, path, session, lambda _: None, lambda _: None))

        connect()
        with pytest.raises(BlockingIOError):
            connect()
        links[0].close("the test is over")


# --- a whole life


def test_it_registers_first_and_answers_what_is_asked(line: Line) -> None:
    [registration] = line.read(1)
    body = ttrpc_pb2.Request.FromString(registration.body)
    assert (registration.type, body.method) == (upstream.REQUEST, "RegisterPlugin")
    for number, method in enumerate(["Configure", "Synchronize", "CreateContainer"]):
        line.reply = lambda call: b"made" if call.event == "CreateContainer" else b""
        line.runtime.sendall(request(2 * number + 1, method))
        [answer] = line.read(1)
        assert answer.stream == 2 * number + 1
        assert line.calls[-1].event == method
    assert ttrpc_pb2.Response.FromString(answer.body).payload == b"made"


def test_a_peer_that_dribbles_is_served_all_the_same(line: Line) -> None:
    line.start()
    stream = request(5, "CreateContainer", b"x" * 5000)
    at = 0

    def drip() -> None:
        nonlocal at
        line.runtime.send(stream[at : at + 1])
        at += 1
        if at < len(stream):
            line.loop.call_soon(drip)

    drip()
    line.wait(lambda: bool(line.calls), "the call")
    assert line.calls[0].payload == b"x" * 5000
    assert at == len(stream)
    assert line.closed == []


def test_a_large_answer_reaches_a_peer_that_reads_slowly(line: Line) -> None:
    large = bytes(range(256)) * (3 * MIB // 256)
    line.reply = lambda call: large if call.event == "CreateContainer" else b""
    line.start()
    line.runtime.sendall(request(5, "CreateContainer"))
    [answer] = line.read(1, size=3000)
    assert ttrpc_pb2.Response.FromString(answer.body).payload == large
    line.reply = lambda _: b""
    line.runtime.sendall(request(7, "StopContainer"))  # it goes on as before
    assert [message.stream for message in line.read(1)] == [7]


def test_a_large_synchronisation_arrives_whole(line: Line) -> None:
    pods = [nri_pb2.PodSandbox(id=str(i), annotations={"k": "v" * 1000}) for i in range(3000)]
    sync = nri_pb2.SynchronizeRequest(pods=pods).SerializeToString()
    line.start()
    stream = request(5, "Synchronize", sync)
    line.runtime.setblocking(True)
    sending = threading.Thread(target=line.runtime.sendall, args=(stream,), daemon=True)
    sending.start()
    line.wait(lambda: bool(line.calls), "the synchronisation")
    sending.join()
    assert line.calls[0].payload == sync


# --- its end


def test_a_peer_that_closes_ends_the_link_once(line: Line) -> None:
    line.runtime.close()
    assert line.closed == []  # never from the constructor
    assert line.wait_closed() in (
        "the runtime closed the connection",
        "the runtime went away: Broken pipe",
        "the runtime went away: Connection reset by peer",
    )
    line.link.close("again")
    line.link.flush()
    assert len(line.closed) == 1


def test_a_peer_that_closes_in_the_middle_of_a_message_ends_the_link(line: Line) -> None:
    line.read(1)
    line.runtime.sendall(request(1, "Configure")[:-1])
    line.runtime.close()
    assert line.wait_closed() == "the runtime closed the connection"
    assert line.calls == []


def test_a_peer_that_closes_with_much_unsent_ends_the_link_once(line: Line) -> None:
    line.reply = lambda call: bytes(MIB) if call.event == "CreateContainer" else b""
    line.start()
    line.runtime.sendall(request(5, "CreateContainer"))
    line.wait(lambda: bool(line.calls), "the call")
    line.runtime.close()
    assert line.wait_closed()


def test_a_peer_that_shuts_its_reading_side_ends_the_link(line: Line) -> None:
    line.read(1)
    line.runtime.shutdown(socket.SHUT_RD)
    line.runtime.sendall(request(1, "Configure"))
    assert line.wait_closed() == "the runtime went away: Broken pipe"


def test_a_closed_session_takes_no_more_calls(line: Line) -> None:
    def leave(_: Call) -> bytes:
        line.link.close("it had enough")
        return b""

    line.start()
    line.reply = leave
    line.runtime.sendall(b"".join(request(5 + 2 * i, "StopContainer") for i in range(3)))
    assert line.wait_closed() == "it had enough"
    assert len(line.calls) == 1


@pytest.mark.parametrize(
    ("garbage", "says"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "mux: frame for connection 1195725856"),
        (b"\xff" * 64, "mux: frame for connection 4294967295"),
        (upstream.frame(1, b"\xff" * 10), "message of 4294967295 bytes"),
        (upstream.frame(2, upstream.header(0, 7, 2)), "answers stream 7, never asked"),
        (upstream.frame(1, upstream.header(0, 1, 3)), "message type 3, expected 1"),
        (request(2, "Configure"), "stream id 2"),
        (request(1, "Synchronize"), "synchronises a plugin that is not configured"),
    ],
)
def test_garbage_ends_the_link_with_what_is_wrong(line: Line, garbage: bytes, says: str) -> None:
    line.runtime.sendall(garbage)
    reason = line.wait_closed()
    assert reason.startswith("the runtime broke the protocol: ")
    assert says in reason


def test_a_refused_registration_ends_the_link_in_the_runtimes_words(line: Line) -> None:
    line.read(1)
    status = ttrpc_pb2.Response(status=ttrpc_pb2.Status(code=2, message="not today"))
    body = status.SerializeToString()
    line.runtime.sendall(upstream.write(upstream.RUNTIME, 1, upstream.RESPONSE, body))
    assert line.wait_closed() == "the runtime refuses 10-one: not today"


def flood(line: Line, frames: bytes, stop: threading.Event) -> None:
    """Ask for ever, read nothing."""
    line.runtime.setblocking(True)
    try:
        while not stop.is_set():
            line.runtime.sendall(frames)
    except OSError:
        pass


@pytest.mark.parametrize("reply", [b"", b"x" * 4000])
def test_a_peer_that_asks_and_never_reads_is_cut_off_within_bounds(
    line: Line, reply: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = 512 << 10
    monkeypatch.setattr(link, "MAX_UNSENT_BYTES", bound)  # or it takes half a million requests
    line.reply = lambda call: reply if call.event == "StopContainer" else b""
    line.start()
    stream = 5

    def more() -> None:
        nonlocal stream
        frames = b"".join(request(stream + 2 * i, "StopContainer") for i in range(100))
        try:
            line.runtime.sendall(frames)
            stream += 200
        except BlockingIOError:
            pytest.fail("the agent does not read")

    def ask_for_ever() -> None:
        while line.link.open:
            more()
            line.wait(lambda: len(line.calls) == 100 or bool(line.closed), "the answers")
            line.calls.clear()

    taken = memory_taken(ask_for_ever)
    assert line.wait_closed() == "the runtime does not read what it asked for"
    assert taken < 4 * bound


def test_one_link_that_is_flooded_leaves_turns_to_the_others(loop: Loop, tmp_path: Path) -> None:
    busy, quiet = Line(loop, tmp_path / "busy.sock"), Line(loop, tmp_path / "quiet.sock")
    stop = threading.Event()
    frames = upstream.frame(upstream.PLUGIN, b"") * 8192  # no message, no answer, no end
    flooding = threading.Thread(target=flood, args=(busy, frames, stop), daemon=True)
    flooding.start()
    quiet.start()
    quiet.runtime.sendall(request(5, "CreateContainer"))
    quiet.wait(lambda: bool(quiet.calls), "the quiet link's call")
    assert busy.link.open
    stop.set()
    for line in (busy, quiet):
        line.link.close("the test is over")
    flooding.join()
    busy.runtime.close()
    quiet.runtime.close()
