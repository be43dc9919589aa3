"""The operator's connection, at a real mosquitto."""

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.config import Broker, MqttConfig
from edge_agent.errors import LinkError
from edge_agent.operator.broker import BrokerClient
from edge_agent.operator.tool_client import client_id
from tests.operator.gate import Gate
from tests.support.fleetbroker import FleetBroker
from tests.support.mosquitto import Mosquitto, needs_mosquitto, needs_openssl
from tests.support.wait import wait_until

pytestmark = [pytest.mark.system, needs_mosquitto]
BLOBS = "edge/v1/default/blobs"


def plain(*ports: int) -> MqttConfig:
    return MqttConfig(tuple(Broker("127.0.0.1", port, False) for port in ports), client_id())


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path) as broker:
        yield broker


def test_what_is_published_retained_is_read_again(mosquitto: Mosquitto) -> None:
    with BrokerClient(plain(mosquitto.port)) as client:
        client.publish("a/b", b"one", retain=True)
        client.publish("a/c", b"two", retain=True)
        client.publish("a/d", b"not kept", retain=False)
        assert client.retained(("a/+",)) == {"a/b": b"one", "a/c": b"two"}
        assert client.kept("a/b") == b"one"
        assert client.kept("a/none") is None
        assert client.protocol == "5"


def test_live_messages_come_in_order_after_the_retained(mosquitto: Mosquitto) -> None:
    with (
        BrokerClient(plain(mosquitto.port)) as speaker,
        BrokerClient(plain(mosquitto.port)) as client,
    ):
        speaker.publish("x", b"kept", retain=True)
        with client.subscribed(("x", "y")) as subscription:
            for number in range(3):
                speaker.publish("y", b"%d" % number, retain=False)
            found = [subscription.take(30) for _ in range(4)]
    assert [(each.payload, each.retained) for each in found if each] == [
        (b"kept", True),
        (b"0", False),
        (b"1", False),
        (b"2", False),
    ]


@needs_openssl
def test_all_that_a_fleets_broker_keeps_is_read_beyond_its_queue_for_a_client(
    tmp_path: Path,
) -> None:
    """Its queue is 1,000 messages (configs/mosquitto)."""
    with FleetBroker(tmp_path) as broker:
        config = replace(broker.config("operator"), client_id=client_id())
        parts = {f"{BLOBS}/{'a' * 64}/{number}": os.urandom(60_000) for number in range(40)}
        small = {f"{BLOBS}/{number:064x}/0": b"x" * 50 for number in range(1500)}
        with BrokerClient(config) as client:
            for packet_id in [
                client.send(topic, payload, retain=True)
                for topic, payload in (parts | small).items()
            ]:
                client.wait(packet_id)
            assert client.retained((f"{BLOBS}/{'a' * 64}/+",)) == parts
            assert client.retained((f"{BLOBS}/+/0",)).keys() >= small.keys()


@needs_openssl
def test_what_the_access_list_forbids_is_told(tmp_path: Path) -> None:
    with FleetBroker(tmp_path, "board-1") as broker:
        config = replace(broker.config("operator"), client_id=client_id())
        with (
            BrokerClient(config) as client,
            pytest.raises(LinkError, match=r"refuses it: Not authorized: .*access list"),
        ):
            client.publish("edge/v1/default/nodes/board-1/state", b"{}", retain=True)


def test_a_broker_without_mqtt_5_is_spoken_to_in_3_1_1(mosquitto: Mosquitto) -> None:
    with (
        Gate(mosquitto.port, refuse_5=True) as gate,
        BrokerClient(plain(gate.port)) as client,
    ):
        assert client.protocol == "3.1.1"
        client.publish("a", b"1", retain=True)
        assert client.kept("a") == b"1"


def test_brokers_are_tried_in_turn_and_all_failures_told(mosquitto: Mosquitto) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with BrokerClient(plain(port, mosquitto.port)) as client:
            assert client.url == f"mqtt://127.0.0.1:{mosquitto.port}"
        with (
            pytest.raises(LinkError, match=f":{port}: connection refused") as error,
            BrokerClient(plain(port, port)),
        ):
            pass
        assert len(str(error.value).splitlines()) == 2


def test_a_subscription_survives_a_broker_that_is_killed(mosquitto: Mosquitto) -> None:
    with (
        BrokerClient(plain(mosquitto.port)) as client,
        client.subscribed(("a",)) as subscription,
    ):
        mosquitto.kill()
        wait_until(lambda: client.trouble, "the loss is noticed")
        packet_id = client.send("a", b"sent while it was away", retain=False)
        mosquitto.start()
        client.wait(packet_id)
        message = subscription.take(60)
        assert message is not None
        assert message.payload == b"sent while it was away"
        assert client.connections == 2


def test_a_listing_that_a_lost_connection_cut_is_made_again(mosquitto: Mosquitto) -> None:
    topics = {f"a/{number}": b"x" * 1000 for number in range(300)}
    with (
        Gate(mosquitto.port) as gate,
        BrokerClient(plain(gate.port)) as client,
    ):
        for topic, payload in topics.items():
            client.publish(topic, payload, retain=True)
        gate.cut_after = gate.passed + 200  # the subscription, and some acknowledgements
        assert client.retained(("a/+",), quiet_s=3) == topics
        assert client.connections == 2


def test_a_wrong_port_is_explained() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = plain(silent.getsockname()[1])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("edge_agent.operator.broker_connection.CONNECT_TIMEOUT_S", 0.3)
            with pytest.raises(LinkError, match="does not answer"), BrokerClient(config):
                pass
