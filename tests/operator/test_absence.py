"""That the broker keeps nothing is proven, never concluded from silence."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.config import Broker, MqttConfig
from edge_agent.errors import LinkError
from edge_agent.operator.broker import (
    QUIET_S,
    BrokerClient,
    NotAllowedError,
    mark_topic,
)
from edge_agent.operator.broker_connection import IN_FLIGHT, VERSIONS
from edge_agent.operator.tool_client import client_id
from edge_agent.operator.view import listed, read_nodes
from edge_agent.sim.broker import Broker as EmbeddedBroker
from edge_agent.sim.mqttwire import (
    CONNECT,
    PUBACK,
    PUBLISH,
    SUBACK,
    SUBSCRIBE,
    Message,
    Packet,
    packet,
)
from tests.operator.conftest import Home
from tests.operator.gate import Gate
from tests.support.mosquitto import Mosquitto, access_list, needs_mosquitto, passwords
from tests.support.rawbroker import Peer, RawBroker
from tests.support.wait import TIMEOUT_S

DEPLOYMENT = "edge/v1/greenhouse/deployment"


def plain(port: int) -> MqttConfig:
    return MqttConfig((Broker("127.0.0.1", port, False),), client_id())


def give(peer: Peer, messages: list[Message]) -> None:
    for message in messages:
        peer.send(message)


def later(seconds: float) -> Callable[[Peer, list[Message]], None]:
    """In the order in which it was asked, each after a while, as on a machine that is loaded."""

    def deliver(peer: Peer, messages: list[Message]) -> None:
        time.sleep(seconds)
        give(peer, messages)

    return deliver


def test_what_a_slow_broker_keeps_is_not_absent() -> None:
    with RawBroker(later(3 * QUIET_S)) as broker:
        broker.echo = True
        broker.publish(DEPLOYMENT, b"generation 9")
        with BrokerClient(plain(broker.port)) as client:
            assert client.kept(DEPLOYMENT) == b"generation 9"
            assert client.kept("edge/v1/greenhouse/trust") is None
            assert client.retained(("a/1", DEPLOYMENT, "a/2")) == {DEPLOYMENT: b"generation 9"}


def test_a_broker_that_does_not_bring_the_mark_back_proves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edge_agent.operator.broker.MARK_TIMEOUT_S", 0.5)
    with RawBroker(give) as broker, BrokerClient(plain(broker.port)) as client:
        broker.publish(DEPLOYMENT, b"generation 9")
        with monkeypatch.context() as patch:  # what is there needs no proof, however late it comes
            patch.setattr("edge_agent.operator.broker.ASK_S", TIMEOUT_S)
            assert client.kept(DEPLOYMENT, TIMEOUT_S) == b"generation 9"
        with pytest.raises(LinkError, match="edge/v1/greenhouse/trust is not known"):
            client.kept("edge/v1/greenhouse/trust")


def test_the_embedded_broker_proves_absence() -> None:
    with EmbeddedBroker() as broker, BrokerClient(plain(broker.port)) as client:
        assert client.kept(DEPLOYMENT) is None
        client.publish(DEPLOYMENT, b"1", retain=True)
        assert client.kept(DEPLOYMENT) == b"1"


@pytest.mark.system
@needs_mosquitto
def test_mosquitto_proves_absence_through_a_slow_line(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Gate(broker.port) as gate:
        gate.pace_s = 0.6
        with BrokerClient(plain(gate.port)) as client:
            assert client.kept(DEPLOYMENT) is None
            client.publish(DEPLOYMENT, b"1", retain=True)
            assert client.kept(DEPLOYMENT) == b"1"


@pytest.mark.system
@needs_mosquitto
def test_a_first_deployment_is_said_and_refused_where_there_is_one(published: Home) -> None:
    rollout = ("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    published.first = ()
    code, _, errors = published.tried(*rollout)
    assert (code, "has no deployment: is it the right one" in errors) == (1, True)
    published.fleet(*rollout, "--first")
    code, _, errors = published.tried("deploy", "-y", "--first")
    assert (code, "this is not the first" in errors) == (1, True)
    with published.opened() as fleet:
        assert fleet.client.kept(fleet.topics.deployment)
        fleet.client.publish(fleet.topics.deployment, b"", retain=True)  # it lost its data
    code, _, errors = published.tried("deploy", "-y")
    assert (code, "this folder deployed generation 1" in errors) == (1, True)


class Strict(Peer):
    """Grants 10 and disconnects who sends more (MQTT 5.0, 3.2.2.3.3 and 4.9), as HiveMQ does."""

    GRANTED = 10
    # CONNACK with Receive Maximum (0x21) 10; DISCONNECT with 0x93, "Receive Maximum exceeded".
    CONNACK = b"\x20\x06\x00\x00\x03\x21\x00\x0a"
    DISCONNECT = b"\xe0\x02\x93\x00"

    def _handle(self, received: Packet) -> None:
        if received.kind != PUBLISH:
            super()._handle(received)
            return
        self.waiting: list[bytes] = getattr(self, "waiting", [])
        at = 2 + int.from_bytes(received.body[:2], "big")
        self.waiting.append(received.body[at : at + 2])
        if len(self.waiting) > self.GRANTED:
            self.broker.violations += 1
            self.write(self.DISCONNECT)
            self.hang_up()
        elif len(self.waiting) == 1:
            threading.Timer(0.3, self._acknowledge).start()

    def _acknowledge(self) -> None:
        try:
            while self.waiting:
                self.write(packet(PUBACK, self.waiting.pop(0)))
        except OSError:
            pass


def test_no_more_messages_wait_than_the_broker_grants() -> None:
    assert Strict.GRANTED < IN_FLIGHT
    with RawBroker(give, Strict) as broker, BrokerClient(plain(broker.port)) as client:
        for packet_id in [client.send(f"a/{each}", b"x", retain=True) for each in range(40)]:
            client.wait(packet_id)
        assert (broker.violations, client.connections) == (0, 1)


def test_a_topic_that_is_no_text_does_not_end_the_connection() -> None:
    rubbish = b"\x30\x05\x00\x02\xff\xfe\x00"
    with RawBroker(lambda peer, _: peer.write(rubbish)) as broker:
        broker.echo = True
        with BrokerClient(plain(broker.port)) as client:
            assert client.kept(DEPLOYMENT) is None
            client.publish("a", b"x", retain=False)
            assert client.connections == 1


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\x90\x02\x00\x01",  # SUBACK of no subscription, without reasons
        b"\x30\x01\x00",  # PUBLISH cut in its topic
        b"\x30\x08\x00\x01a\x04\xfe\xfe\xfe\xfe",  # unknown properties
        b"\xff" * 40,
    ],
)
def test_a_broker_that_sends_no_mqtt_ends_a_command_with_a_reason(
    rubbish: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.operator.broker_connection.ANSWER_TIMEOUT_S", 2.0)
    with (
        RawBroker(lambda peer, _: peer.write(rubbish)) as broker,
        BrokerClient(plain(broker.port)) as client,
        pytest.raises(LinkError, match="Protocol error"),
    ):
        client.kept(DEPLOYMENT)


class Silent(Peer):
    """Breaks the first connection with a SUBACK of nothing; on later ones it is silent."""

    def _handle(self, received: Packet) -> None:
        if received.kind == CONNECT:
            super()._handle(received)
        elif self.broker.connections == 1:
            self.write(b"\x90\x02\x00\x01")


def test_why_a_connection_broke_is_told_once_another_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edge_agent.operator.broker_connection.ANSWER_TIMEOUT_S", 4.0)
    with (
        RawBroker(give, Silent) as broker,
        BrokerClient(plain(broker.port)) as client,
        pytest.raises(LinkError, match="no connection to the broker \\(Protocol error\\)"),
    ):
        client.kept(DEPLOYMENT)


def test_a_mark_that_comes_while_connected_is_no_kept_message() -> None:
    with RawBroker(give) as broker, BrokerClient(plain(broker.port)) as client:
        broker.echo = True
        assert client.retained(("edge/v1/greenhouse/blobs/+/+",)) == {}


def test_a_board_that_talks_on_and_on_does_not_keep_a_listing_from_ending() -> None:
    nodes, enough, said = "edge/v1/greenhouse/nodes", 2000, list[int]()
    over = threading.Event()

    def talk(client: BrokerClient) -> None:
        while len(said) < enough and not over.wait(0.1):
            for leaf in ("status", "state"):
                client.publish(f"{nodes}/loud/{leaf}", b"%d" % len(said), retain=True)
            said.append(1)

    with EmbeddedBroker() as broker, BrokerClient(plain(broker.port)) as board:
        for name in ("calm", "loud"):
            for leaf in ("status", "state"):
                board.publish(f"{nodes}/{name}/{leaf}", b"0", retain=True)
        thread = threading.Thread(target=talk, args=(board,))
        thread.start()
        try:
            with BrokerClient(plain(broker.port)) as client:
                assert len(read_nodes(client, nodes)) == 4
                assert len(listed(client.config, f"{nodes}/+/status")) == 2
                assert len(said) < enough, "it ended only once the board was silent"
        finally:
            over.set()
            thread.join()


@pytest.mark.system
@needs_mosquitto
@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_who_may_only_read_can_look_and_prove_nothing(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.operator.broker.MARK_TIMEOUT_S", 0.5)
    if version == "3.1.1":
        monkeypatch.setattr("edge_agent.operator.broker_connection.VERSIONS", VERSIONS[1:])
    rules = ("user writer", "topic readwrite edge/#", "user reader", "topic read edge/#")
    settings = (
        "allow_anonymous false",
        f"password_file {passwords(tmp_path, writer='secret', reader='secret')}",
        f"acl_file {access_list(tmp_path, rules)}",
    )
    secret = tmp_path / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    nodes = "edge/v1/greenhouse/nodes"
    with Mosquitto(tmp_path, *settings) as broker:

        def user(name: str) -> BrokerClient:
            config = replace(plain(broker.port), username=name, password_file=secret)
            return BrokerClient(config)

        with user("writer") as writer:
            writer.publish(f"{nodes}/board-1/state", b"{}", retain=True)
        with user("reader") as reader:
            with pytest.raises(NotAllowedError):
                reader.kept(DEPLOYMENT)
            with pytest.raises(NotAllowedError):
                read_nodes(reader, nodes)
            assert read_nodes(reader, nodes, proven=False) == {f"{nodes}/board-1/state": b"{}"}
            assert reader.kept(DEPLOYMENT, proven=False) is None
            assert not reader.may_mark


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_who_may_only_read_can_look_where_the_broker_hangs_up_on_who_writes(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if version == "3.1.1":
        monkeypatch.setattr("edge_agent.operator.broker_connection.VERSIONS", VERSIONS[1:])
    nodes = "edge/v1/greenhouse/nodes"

    def deliver(peer: Peer, _messages: list[Message]) -> None:
        peer.send(Message(f"{nodes}/board-1/state", b"{}", True))

    with RawBroker(deliver) as broker:
        config = plain(broker.port)
        broker.forbidden.add(mark_topic(nodes, config.client_id))
        with BrokerClient(config) as reader:
            for _ in range(2):
                found = read_nodes(reader, nodes, proven=False)
                assert found == {f"{nodes}/board-1/state": b"{}"}
                assert not reader.may_mark
        with (
            BrokerClient(config) as reader,
            pytest.raises(NotAllowedError),
        ):
            reader.retained((f"{nodes}/+/status",))


def test_a_broker_that_takes_its_own_packet_ids_for_ours_is_asked_again() -> None:
    """As mochi does while it waits for an acknowledgement under the same number."""

    class Confused(Peer):
        def _answer(self, kind: int, packet_id: bytes, count: int) -> None:
            self.asked = getattr(self, "asked", 0) + (kind == SUBACK)
            if kind == SUBACK and self.asked < 4:
                self.write(packet(kind, packet_id + b"\0" + bytes([0x91]) * count))
            else:
                super()._answer(kind, packet_id, count)

    with RawBroker(give, Confused) as broker, BrokerClient(plain(broker.port)) as client:
        broker.publish(DEPLOYMENT, b"generation 9")
        assert client.kept(DEPLOYMENT) == b"generation 9"
        assert client.connections == 1


def test_a_mark_whose_answers_are_dropped_is_set_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As mosquitto 2.0 drops a SUBACK, a PUBACK and a message while 1,000 packets wait."""
    monkeypatch.setattr("edge_agent.operator.broker.MARK_AGAIN_S", 0.3)

    class Full(Peer):
        dropped = 0

        def write(self, data: bytes) -> None:
            kind = data[0] & 0xF0
            if self.dropped < 6 and (kind in (PUBACK, PUBLISH) or b"mark" in self.asked_last):
                self.dropped += kind in (SUBACK, PUBACK, PUBLISH)
                return
            super().write(data)

        asked_last = b""

        def _handle(self, received: Packet) -> None:
            if received.kind == SUBSCRIBE:
                self.asked_last = received.body
            super()._handle(received)

    with RawBroker(give, Full) as broker, BrokerClient(plain(broker.port)) as client:
        broker.echo = True
        assert client.kept(DEPLOYMENT) is None
        assert client.connections == 1
