"""Brokers that answer late, never, wrongly or too much: real sockets, scripted bytes."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from edge_agent.fleet_protocol.topics import plain_client_id
from edge_agent.sim import mqttwire
from edge_agent.sim.mqttwire import read_connect
from tests.mqtt import harness
from tests.mqtt.harness import config_for, wait_for_error, wait_until_connected
from tests.support.wait import TIMEOUT_S, wait_until

CONNACK_5 = b"\x20\x03\x00\x00\x00"
CONNACK_3 = b"\x20\x02\x00\x00"
REFUSED_VERSION_3 = b"\x20\x02\x00\x01"
PUBLISH_UNASKED = b"\x30\x05\x00\x01a\x00x"
PING_UNASKED = b"\xc0\x00"
PONG_UNASKED = b"\xd0\x00"
QOS_2_UNASKED = b"\x34\x07\x00\x01a\x00\x01\x00x"

# These brokers acknowledge no goodbye: nothing is gained by waiting for one.
running = partial(harness.running, stop_s=0.2)

Script = Callable[[socket.socket, bytes], None]


class Peer:
    """A listening socket; each connection is read once (CONNECT) and handed to the script."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            connect = connection.recv(4096)
            if connect:
                self._script(connection, connect)
        except OSError:
            pass  # the agent left, as it should

    def close(self) -> None:
        """End everything."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            connection.close()


@contextmanager
def peer(script: Script) -> Iterator[Peer]:
    """A broker that does what the script says."""
    running_peer = Peer(script)
    try:
        yield running_peer
    finally:
        running_peer.close()


def version(connect: bytes) -> int:
    """The protocol version in a CONNECT."""
    return connect[connect.index(b"MQTT") + 4]


def accept(connection: socket.socket, connect: bytes) -> None:
    """CONNACK in the client's own version."""
    connection.sendall(CONNACK_5 if version(connect) == 5 else CONNACK_3)


def say_nothing(_connection: socket.socket, _connect: bytes) -> None:
    """Keep the connection open, for ever silent."""


def say(answer: bytes, times: int = 1) -> Script:
    """Answer CONNECT with these bytes."""

    def script(connection: socket.socket, _connect: bytes) -> None:
        for _ in range(times):
            connection.sendall(answer)

    return script


def accept_then(more: bytes, times: int = 1) -> Script:
    """CONNACK, and then more than was asked for."""

    def script(connection: socket.socket, connect: bytes) -> None:
        accept(connection, connect)
        for _ in range(times):
            connection.sendall(more)

    return script


@pytest.mark.parametrize(
    ("script", "words"),
    [
        pytest.param(
            say(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            ["does not answer CONNECT"],
            id="another protocol",
        ),
        pytest.param(say(b"\x20\xff\xff\xff\xff\xff"), ["not MQTT"], id="endless length"),
        pytest.param(say(b"\x20\x00"), ["not MQTT"], id="empty CONNACK"),
        pytest.param(say(b"\x20\x03\x00\x87\x00"), ["Not authorized"], id="refused"),
        pytest.param(say(b"\x20\x05\x00\x00\x02\xff\xff"), ["not MQTT"], id="no property"),
        pytest.param(
            accept_then(b"\x40\xff\xff\xff\x7f" + b"x" * 100_000),
            ["announces a packet of 268435455 bytes"],
            id="huge packet",
        ),
        pytest.param(accept_then(PUBLISH_UNASKED), ["message on 'a'"], id="message not asked for"),
        pytest.param(
            say(PUBLISH_UNASKED),
            ["message on 'a' before its CONNACK (MQTT 5, 3.2.0-1)"],
            id="message before CONNACK",
        ),
        pytest.param(accept_then(QOS_2_UNASKED), ["quality of service"], id="QoS 2 not asked for"),
        pytest.param(accept_then(PING_UNASKED), ["type 12"], id="ping not asked for"),
        pytest.param(accept_then(PONG_UNASKED, 10_000), ["floods"], id="flood"),
        pytest.param(accept_then(b"\x40\x01\x00"), ["not MQTT"], id="short PUBACK"),
        pytest.param(accept_then(b"\x20\x03\x00\x00\x00", 100), ["floods"], id="CONNACK again"),
        pytest.param(
            say(b"\x20\x08\x00\x00\x05\x27\x00\x00\x00\x80"),
            ["takes 128 bytes at once"],
            id="takes almost nothing",
        ),
    ],
)
def test_a_broker_that_breaks_the_rules_is_left_and_told(
    script: Script, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.mqtt.link.ACCEPT_TIMEOUT_S", 0.2)
    with peer(script) as broker, running(config_for(broker.port)) as link:
        link.report("kept")
        wait_for_error(link, *words)
        wait_until(lambda: broker.connections > 2, "it is tried again")
        assert link.status()["queued"] == 1
        assert link.status()["sent"] == 0


@pytest.mark.parametrize("script", [say_nothing, accept], ids=["silent", "acknowledges nothing"])
def test_reports_go_on_while_a_broker_hangs(script: Script) -> None:
    with peer(script) as broker, running(config_for(broker.port, queue_records=100)) as link:
        wait_until(lambda: broker.connections, "the link connects")
        for item in range(10_000):
            link.report(item, size=100)
        status = link.status()
        assert status["queued"] + status["dropped"] == 10_000
        # Those in flight (four batches of 100) stand beside the queue and the ingress queue.
        assert status["queued"] <= 600


def test_what_is_reported_is_kept_while_a_tls_handshake_hangs(tmp_path: Path) -> None:
    connected = threading.Event()

    def script(_connection: socket.socket, _hello: bytes) -> None:
        connected.set()

    with peer(script) as broker:
        config = config_for(broker.port, tls=True)
        with running(config, state_dir=tmp_path) as link:
            assert connected.wait(TIMEOUT_S)
            link.report("meanwhile")
            wait_until(lambda: not link.outbound.results.outbox.unkept, "it is on disk")
            assert link.status()["state"] == "connecting"
            link.report("at the end")
            link.stop(0.5)
            wait_until(lambda: link.status()["state"] == "stopped", "it ends, busy machine or not")
        with running(config, state_dir=tmp_path) as link:
            wait_until(lambda: link.status()["queued"] == 2, "both are found again")


@pytest.mark.parametrize(
    ("asked", "ours"), [(0, 1), (65_535, 1), (1, 600)], ids=["none", "seldom", "often"]
)
def test_pings_come_as_often_as_either_side_wants(asked: int, ours: int) -> None:
    """What forgets silent connections between here and there does not ask the broker."""
    pinged = threading.Event()

    def script(connection: socket.socket, _connect: bytes) -> None:
        connection.sendall(b"\x20\x06\x00\x00\x03\x13" + asked.to_bytes(2, "big"))
        while not pinged.is_set():
            received = connection.recv(65536)
            if not received:
                return
            if b"\xc0\x00" in received:
                pinged.set()

    with peer(script) as broker, running(config_for(broker.port, keepalive_s=ours)) as link:
        wait_until_connected(link)
        assert pinged.wait(TIMEOUT_S)


def test_a_broker_that_reads_nothing_fills_no_memory() -> None:
    with peer(accept) as broker, running(config_for(broker.port)) as link:
        wait_until_connected(link)
        for item in range(2_000):
            link.report(str(item) * 1000)
        wait_until(lambda: link.outbound.publisher.in_flight > 3, "the window is full")
        assert link.outbound.publisher.in_flight <= 8


@pytest.mark.parametrize(
    "refusal", [REFUSED_VERSION_3, b"\x20\x03\x00\x84\x00", b""], ids=["3.1.1", "5", "closes"]
)
def test_a_broker_without_mqtt_5_is_spoken_to_in_3_1_1(refusal: bytes) -> None:
    def script(connection: socket.socket, connect: bytes) -> None:
        if version(connect) == 5:
            connection.sendall(refusal)
            connection.shutdown(socket.SHUT_RDWR)
        else:
            connection.sendall(CONNACK_3)

    with peer(script) as broker, running(config_for(broker.port)) as link:
        wait_until_connected(link)
        assert link.status()["protocol"] == "3.1.1"


@contextmanager
def refusing(taken: Callable[[int, str], bytes]) -> Iterator[tuple[Peer, list[tuple[int, str]]]]:
    """Answers CONNECT by version and client id, and hangs up; whom it saw."""
    seen: list[tuple[int, str]] = []

    def script(connection: socket.socket, connect: bytes) -> None:
        found = read_connect(next(iter(mqttwire.split(bytearray(connect)))))
        seen.append((version(connect), found.client_id))
        connection.sendall(taken(*seen[-1]))
        connection.shutdown(socket.SHUT_RDWR)

    with peer(script) as broker:
        yield broker, seen


def test_what_a_broker_accepted_is_tried_first_from_then_on() -> None:
    """Without MQTT 5 and without names that are more than letters and digits, as NATS."""

    def taken(version: int, client_id: str) -> bytes:
        if version == 5:
            return REFUSED_VERSION_3
        return CONNACK_3 if client_id.isalnum() else b"\x20\x02\x00\x02"

    plain = plain_client_id(harness.FLEET, harness.NODE)
    with refusing(taken) as (broker, seen), running(config_for(broker.port)):
        wait_until(lambda: len(seen) >= 6, "it comes back")
        assert seen[:3] == [(5, harness.NODE), (4, harness.NODE), (4, plain)]
        assert set(seen[3:]) == {(4, plain)}


def test_a_connection_that_was_closed_once_does_not_end_mqtt_5_for_good() -> None:
    """As a proxy does whose broker is just starting."""
    met = list[int]()

    def taken(version: int, _client_id: str) -> bytes:
        met.append(version)
        if len(met) == 1:
            return b""
        return CONNACK_5 if version == 5 else CONNACK_3

    with refusing(taken) as (broker, seen), running(config_for(broker.port)):
        wait_until(lambda: len(seen) >= 4, "it comes back")
        assert [version for version, _ in seen[:4]] == [5, 4, 5, 5]


def test_a_broker_that_is_another_by_now_is_asked_from_the_beginning() -> None:
    now = 4

    def taken(version: int, _client_id: str) -> bytes:
        answer = CONNACK_5 if version == 5 else CONNACK_3
        return answer if version == now else b""

    with refusing(taken) as (broker, seen), running(config_for(broker.port)):
        wait_until(lambda: len(seen) >= 4, "it comes back")
        now = 5
        wait_until(lambda: [version for version, _ in seen[-2:]] == [5, 5], "it asks for 5 again")


def test_a_client_id_that_somebody_chose_is_not_replaced() -> None:
    with (
        refusing(lambda *_: b"\x20\x03\x00\x85\x00") as (broker, seen),
        running(config_for(broker.port, client_id="chosen")) as link,
    ):
        wait_for_error(link, "Client identifier not valid", "1 to 23 letters and digits")
        assert set(seen) == {(5, "chosen")}


def test_a_silent_broker_is_left_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.mqtt.link.ACCEPT_TIMEOUT_S", 0.1)
    with (
        peer(say_nothing) as silent,
        peer(accept) as good,
        running(config_for(silent.port, good.port)) as link,
    ):
        wait_until_connected(link)
        assert link.status()["broker"] == f"mqtt://127.0.0.1:{good.port}"


def test_answers_in_single_bytes_are_understood() -> None:
    def script(connection: socket.socket, _connect: bytes) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for place in range(len(CONNACK_5)):
            connection.sendall(CONNACK_5[place : place + 1])

    with peer(script) as broker, running(config_for(broker.port)) as link:
        wait_until_connected(link)


def test_a_broker_that_reads_slowly_loses_nothing() -> None:
    topics: list[bytes] = []

    def script(connection: socket.socket, connect: bytes) -> None:
        accept(connection, connect)
        received = b""
        while len(topics) < 3:
            received += connection.recv(7)
            while len(received) > 2 and len(received) >= 2 + received[1] and received[1] < 0x80:
                packet, received = received[: 2 + received[1]], received[2 + received[1] :]
                length = int.from_bytes(packet[2:4], "big")
                topics.append(packet[4 : 4 + length].rpartition(b"/")[2])
                connection.sendall(b"\x40\x02" + packet[4 + length : 6 + length])

    with peer(script) as broker, running(config_for(broker.port)) as link:
        wait_until(lambda: len(topics) == 3, f"birth, state and metrics arrive: {topics}")
        assert topics == [b"status", b"state", b"metrics"]
        wait_until(lambda: not link.outbound.publisher.in_flight, "all is acknowledged")
