"""What configs/mosquitto lets a node and an operator do, asked of a real mosquitto."""

import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties

from tests.support.fleetbroker import (
    FLEET,
    PATIENCE_S,
    FleetBroker,
    Peer,
    certificate,
    handshake,
    tls,
)
from tests.support.mosquitto import needs_mosquitto, needs_openssl
from tests.support.wait import wait_until

pytestmark = [needs_mosquitto, needs_openssl]

ROOT = f"edge/v1/{FLEET}"
ALICE, BOB = f"{ROOT}/nodes/alice", f"{ROOT}/nodes/bob"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetBroker]:
    with FleetBroker(tmp_path_factory.mktemp("fleet"), "alice", "bob") as broker:
        yield broker


@pytest.fixture
def alice(broker: FleetBroker) -> Iterator[Peer]:
    peer = Peer(broker, "alice")
    yield peer
    peer.close()


@pytest.fixture
def operator(broker: FleetBroker) -> Iterator[Peer]:
    peer = Peer(broker, "operator")
    yield peer
    peer.close()


@pytest.mark.parametrize(
    "leaf", ["status", "state", "results", "logs", "metrics", "response/sync", "response/logs"]
)
def test_a_node_speaks_below_its_own_name(alice: Peer, leaf: str) -> None:
    assert alice.may_write(f"{ALICE}/{leaf}")


@pytest.mark.parametrize(
    "topic",
    [
        *(f"{BOB}/{leaf}" for leaf in ("status", "state", "results", "logs", "response/sync")),
        f"{ROOT}/deployment",
        f"{ROOT}/trust",
        f"{ROOT}/blobs/{'0' * 64}/0",
        f"{ALICE}/request/sync",  # not even to itself
        f"{BOB}/request/restart",
        f"{ALICE}/anything",
        f"{ALICE}/response/a/b",
        "edge/v1/other/nodes/alice/state",  # another fleet
        "edge/v1/other/deployment",
        "anything",
    ],
)
def test_a_node_writes_nowhere_else(alice: Peer, topic: str) -> None:
    assert not alice.may_write(topic)


def test_a_node_reads_what_is_for_it_and_for_all(alice: Peer, operator: Peer) -> None:
    wanted = [f"{ROOT}/deployment", f"{ROOT}/trust", f"{ROOT}/blobs/{'a' * 64}/0"]
    wanted.append(f"{ALICE}/request/sync")
    for topic in wanted:
        alice.subscribe(topic)
        operator.publish(topic)
    wait_until(lambda: {topic for topic, _ in alice.messages} == set(wanted), "all arrive")


def test_a_node_does_not_read_other_nodes(broker: FleetBroker, alice: Peer, operator: Peer) -> None:
    bob = Peer(broker, "bob")
    for topic in (f"{BOB}/#", f"{ROOT}/nodes/+/state", f"{ROOT}/nodes/bob/request/sync", "#"):
        alice.subscribe(topic)
    alice.subscribe(f"{ALICE}/request/logs")
    bob.publish(f"{BOB}/state")
    operator.publish(f"{BOB}/request/sync")
    operator.publish(f"{ALICE}/request/logs")  # sent last, so what comes first has come
    wait_until(lambda: alice.messages, "its own request arrives")
    assert {topic for topic, _ in alice.messages} == {f"{ALICE}/request/logs"}
    bob.close()


def test_the_operator_deploys_asks_and_reads(alice: Peer, operator: Peer) -> None:
    for topic in (f"{ROOT}/deployment", f"{ROOT}/trust", f"{ROOT}/blobs/{'b' * 64}/7"):
        assert operator.may_write(topic)
    assert operator.may_write(f"{ALICE}/request/diagnose")
    operator.subscribe(f"{ROOT}/nodes/#")
    alice.publish(f"{ALICE}/response/diagnose")
    wait_until(lambda: (f"{ALICE}/response/diagnose", b"x") in operator.messages, "it arrives")


def test_the_operator_does_not_speak_for_a_node(operator: Peer) -> None:
    assert not operator.may_write(f"{ALICE}/state")
    assert not operator.may_write(f"{ALICE}/response/sync")
    assert not operator.may_write(f"{ROOT}/nodes/operator/anything")


def test_nobody_comes_in_without_a_certificate(broker: FleetBroker) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(broker.port, tls(broker.credentials("alice")[0]))


def test_nobody_comes_in_with_a_certificate_of_another_authority(
    broker: FleetBroker, tmp_path: Path
) -> None:
    certificate(tmp_path, "ca")
    certificate(tmp_path, "node", "alice")
    context = tls(broker.credentials("alice")[0], tmp_path / "alice.pem", tmp_path / "alice.key")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(broker.port, context)


def test_the_largest_message_of_the_protocol_passes_and_a_larger_one_does_not(
    broker: FleetBroker, operator: Peer
) -> None:
    topic = f"{ROOT}/blobs/{'f' * 64}/1234567"
    operator.subscribe(f"{ROOT}/blobs/+/+")
    assert operator.publish(topic, bytes(65536)) == "Success"
    careless = Peer(broker, "operator")
    careless.client.disable_logger()
    left = threading.Event()
    careless.client.on_disconnect = lambda *_: left.set()
    careless.client.publish(topic, bytes(66560), qos=1)
    assert left.wait(PATIENCE_S)
    careless.client.loop_stop()
    assert operator.publish(topic, b"after") == "Success"
    wait_until(lambda: (topic, b"after") in operator.messages, "the next one arrives")
    assert [len(payload) for _, payload in operator.messages] == [65536, len(b"after")]


def test_what_is_retained_survives_a_restart_of_the_broker(tmp_path: Path) -> None:
    topic = f"{ROOT}/deployment"
    with FleetBroker(tmp_path, "alice") as broker:
        operator = Peer(broker, "operator")
        operator.publish(topic, b"kept", retain=True)
        operator.close()
        broker.stop()
        broker.start()
        alice = Peer(broker, "alice")
        alice.subscribe(topic)
        wait_until(lambda: alice.messages == [(topic, b"kept")], "it is still there")
        alice.close()


def test_a_request_waits_for_a_node_that_is_away(broker: FleetBroker, operator: Peer) -> None:
    topic = f"{ALICE}/request/sync"
    properties = Properties(1)  # type: ignore[no-untyped-call]  # CONNECT
    properties.SessionExpiryInterval = 3600
    client = paho.Client(
        CallbackAPIVersion.VERSION2, client_id="alice", protocol=MQTTProtocolVersion.MQTTv5
    )
    client.tls_set_context(tls(*broker.credentials("alice")))
    came: list[bytes] = []
    subscribed = threading.Event()
    client.on_message = lambda _c, _u, message: came.append(bytes(message.payload))
    client.on_subscribe = lambda *_: subscribed.set()
    client.connect("localhost", broker.port, clean_start=True, properties=properties)
    client.subscribe(topic, qos=1)
    client.loop_start()
    assert subscribed.wait(PATIENCE_S)
    client.disconnect()
    client.loop_stop()
    assert operator.publish(topic, b"while away") == "Success"
    client.connect("localhost", broker.port, clean_start=False, properties=properties)
    client.loop_start()
    wait_until(lambda: came == [b"while away"], "the request arrives")
    client.disconnect()
    client.loop_stop()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("node", "operator"), "cannot be called operator"),
        (("node", "ca"), "cannot be called ca"),
        (("node", "Upper"), "a node's name has"),
        (("node", "a/b"), "a node's name has"),
        (("node", "+"), "a node's name has"),
        (("node", ""), "a node's name has"),
        (("node", "a" * 64), "at most 63"),
        (("node", "alice"), "run"),  # there is no authority yet
        (("node",), "certificate ca"),
        ((), "certificate ca"),
        (("nonsense",), "certificate ca"),
    ],
)
def test_the_certificate_script_says_what_is_wrong(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refusal:
        certificate(tmp_path, *words)
    assert said in refusal.value.stderr
    assert not list(tmp_path.glob("*.pem"))


def test_the_certificate_script_replaces_nothing_and_keeps_keys_private(tmp_path: Path) -> None:
    certificate(tmp_path, "ca")
    certificate(tmp_path, "node", "alice")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for words in (("ca",), ("node", "alice")):
        with pytest.raises(subprocess.CalledProcessError) as refusal:
            certificate(tmp_path, *words)
        assert "is there already" in refusal.value.stderr
    assert all(path.read_bytes() == content for path, content in before.items())
    for key in tmp_path.glob("*.key"):
        assert key.stat().st_mode & 0o077 == 0
