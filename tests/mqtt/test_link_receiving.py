"""The link as a receiver, against a real mosquitto and the small broker."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge_agent.fleet_protocol.topics import fleet_topics, node_topics
from edge_agent.mqtt.inbound import InboundMessage
from edge_agent.sim.broker import Broker
from edge_agent.store.digest import Digest
from tests.mqtt.harness import (
    FLEET,
    NODE,
    config_for,
    running,
    wait_until_connected,
    wait_until_subscribed,
)
from tests.mqtt.observer import Observer
from tests.support.mosquitto import Mosquitto, needs_mosquitto
from tests.support.wait import TIMEOUT_S, wait_until

pytestmark = pytest.mark.system

FLEET_TOPICS, TOPICS = fleet_topics(FLEET), node_topics(FLEET, NODE)


@pytest.fixture(params=[pytest.param("mosquitto", marks=needs_mosquitto), "small broker"])
def port(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    """The port of a broker."""
    with Mosquitto(tmp_path) if request.param == "mosquitto" else Broker() as broker:
        yield broker.port


class Operator:
    """Publishes, and reads the answers on `answers/#`; a context manager."""

    def __init__(self, port: int) -> None:
        self.answers: list[tuple[str, bytes, bytes | None]] = []
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, "operator", protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.on_connect = lambda client, *_: client.subscribe("answers/#", qos=1)
        subscribed = threading.Event()
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.on_message = lambda _client, _userdata, message: self.answers.append(
            (
                message.topic,
                bytes(message.payload),
                getattr(message.properties, "CorrelationData", None),
            )
        )
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert subscribed.wait(TIMEOUT_S)  # or an answer might be there before

    def publish(
        self,
        topic: str,
        payload: bytes,
        retain: bool = False,
        response_topic: str | None = None,
        correlation: bytes | None = None,
    ) -> None:
        """Return once the broker has it."""
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if response_topic is not None:
            properties.ResponseTopic = response_topic
        if correlation is not None:
            properties.CorrelationData = correlation
        info = self._client.publish(topic, payload, 1, retain, properties)
        info.wait_for_publish(TIMEOUT_S)
        assert info.is_published()

    def __enter__(self) -> "Operator":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def test_retained_and_later_messages_arrive_once_subscribed(port: int) -> None:
    received: list[InboundMessage] = []
    with Operator(port) as operator, running(config_for(port), received=received.append) as link:
        operator.publish(FLEET_TOPICS.deployment, b"one", retain=True)
        link.subscribe([FLEET_TOPICS.deployment, TOPICS.request("sync")])
        wait_until(lambda: len(received) == 1, "the retained message arrives")
        operator.publish(TOPICS.request("sync"), b"{}")
        wait_until(lambda: len(received) == 2, "the request arrives")
        assert received == [
            InboundMessage(FLEET_TOPICS.deployment, b"one", True, None, None),
            InboundMessage(TOPICS.request("sync"), b"{}", False, None, None),
        ]


def test_a_topic_given_up_brings_nothing_more(port: int) -> None:
    received: list[InboundMessage] = []
    with Operator(port) as operator, running(config_for(port), received=received.append) as link:
        link.subscribe([FLEET_TOPICS.trust, FLEET_TOPICS.deployment])
        operator.publish(FLEET_TOPICS.trust, b"1", retain=True)
        wait_until(lambda: received, "the subscription is there")
        link.unsubscribe([FLEET_TOPICS.trust])
        operator.publish(FLEET_TOPICS.trust, b"2", retain=True)
        operator.publish(FLEET_TOPICS.deployment, b"3", retain=True)
        wait_until(lambda: received[-1].payload == b"3", "the later message arrives")
        assert link.status()["state"] == "connected"
        link.subscribe([FLEET_TOPICS.trust])
        wait_until(lambda: received[-1].payload == b"2", "it comes again once wanted again")


def test_a_largest_message_arrives_whole(port: int) -> None:
    received: list[InboundMessage] = []
    part = FLEET_TOPICS.blob_part(Digest.of_hex("0" * 64), 0)
    with Operator(port) as operator, running(config_for(port), received=received.append) as link:
        link.subscribe([part])
        operator.publish(part, bytes(range(256)) * 256, retain=True)
        wait_until(lambda: received, "the part arrives")
        assert received[0].payload == bytes(range(256)) * 256


def test_answers_go_out_while_results_wait(port: int) -> None:
    with Observer(port) as observer, running(config_for(port)) as link:
        assert link.publish(TOPICS.response("sync"), b'{"state":"accepted"}')
        assert link.publish(TOPICS.response("sync"), b'{"state":"succeeded"}', retain=True)
        wait_until(lambda: len(observer.messages("sync")) == 2, "both answers arrive")
        assert [document["state"] for document in observer.documents("sync")] == [
            "accepted",
            "succeeded",
        ]
    with pytest.raises(ValueError, match="nothing can be published"):
        link.publish("#", b"")


def test_nothing_is_subscribed_to_without_a_receiver(port: int) -> None:
    with running(config_for(port)) as link, pytest.raises(ValueError, match="nobody to receive"):
        link.subscribe([FLEET_TOPICS.trust])


@needs_mosquitto
def test_response_topic_and_correlation_go_there_and_back(tmp_path: Path) -> None:
    received: list[InboundMessage] = []
    request = TOPICS.request("diagnose")
    with (
        Mosquitto(tmp_path) as broker,
        Operator(broker.port) as operator,
        running(config_for(broker.port), received=received.append) as link,
    ):
        link.subscribe([request])
        wait_until_subscribed(link)
        operator.publish(request, b"{}", response_topic="answers/anna", correlation=b"\0\xff17")
        wait_until(lambda: received, "the request arrives")
        (incoming,) = received
        assert (incoming.response_topic, incoming.correlation) == ("answers/anna", b"\0\xff17")
        assert incoming.response_topic is not None
        link.publish(incoming.response_topic, b"done", correlation=incoming.correlation)
        wait_until(lambda: operator.answers, "the answer arrives")
        assert operator.answers == [("answers/anna", b"done", b"\0\xff17")]


@needs_mosquitto
@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_requests_sent_while_the_node_is_away_arrive(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _speak(version, monkeypatch)
    received: list[InboundMessage] = []
    request = TOPICS.request("restart")
    with Mosquitto(tmp_path) as broker, Operator(broker.port) as operator:
        with running(config_for(broker.port), received=received.append) as link:
            link.subscribe([request])
            wait_until_subscribed(link)
            assert link.status()["protocol"] == version
            operator.publish(request, b"1")
            wait_until(lambda: received, "the first request arrives")
        operator.publish(request, b"2")
        # Another life of this node: it subscribes before it starts.
        with running(config_for(broker.port), received=received.append, subscribed=[request]):
            wait_until(lambda: len(received) >= 2, "the second request arrives")
    assert [incoming.payload for incoming in received] == [b"1", b"2"]


@needs_mosquitto
@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_subscriptions_outlive_a_killed_broker(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _speak(version, monkeypatch)
    received: list[InboundMessage] = []
    with (
        Mosquitto(tmp_path, "persistence false") as broker,
        running(config_for(broker.port), received=received.append) as link,
    ):
        link.subscribe([FLEET_TOPICS.deployment])
        wait_until_connected(link)
        broker.kill()
        broker.start()
        with Operator(broker.port) as operator:
            operator.publish(FLEET_TOPICS.deployment, b"after", retain=True)
            wait_until(lambda: received, "it arrives at the new broker")
        assert received[-1].payload == b"after"


def _given_up(broker: Mosquitto, topic: str) -> bool:
    """Whether somebody unsubscribed from `topic`: a subscription is logged with its quality."""
    lines = broker.log_file.read_text("utf-8", "replace").splitlines()
    return any(line.endswith(f"\t{topic}") for line in lines)


@needs_mosquitto
@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_topics_of_an_earlier_life_are_given_up_and_harm_nobody(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _speak(version, monkeypatch)
    received: list[InboundMessage] = []
    parts = [FLEET_TOPICS.blob_part(Digest.of_hex("0" * 64), number) for number in range(30)]
    with Mosquitto(tmp_path) as broker, Operator(broker.port) as operator:
        with running(config_for(broker.port), received=received.append) as link:
            link.subscribe(parts)
            wait_until_connected(link)
            operator.publish(parts[0], b"now", retain=True)
            wait_until(lambda: received, "the subscription is there")
        for part in parts:
            operator.publish(part, b"queued for it", retain=True)
        wanted = [TOPICS.request("sync")]
        with running(config_for(broker.port), received=received.append, subscribed=wanted) as link:
            wait_until(lambda: link.status()["passed_over"] == 30, "they are passed over")
            # Each message has its topic given up, which the broker hears a step later.
            wait_until(lambda: _given_up(broker, parts[0]), "the broker knows")
            operator.publish(parts[0], b"no more", retain=True)
            operator.publish(wanted[0], b"{}")
            wait_until(lambda: len(received) == 2, "the request arrives")
            assert [incoming.topic for incoming in received] == [parts[0], wanted[0]]
            assert link.status()["passed_over"] == 30
            assert link.status()["last_error"] is None


@needs_mosquitto
@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_retained_rubbish_changes_nothing_and_the_rest_arrives(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _speak(version, monkeypatch)
    received: list[InboundMessage] = []
    topics = [
        FLEET_TOPICS.deployment,
        FLEET_TOPICS.trust,
        FLEET_TOPICS.blob_part(Digest.of_hex("0" * 64), 0),
    ]
    with Mosquitto(tmp_path) as broker, Operator(broker.port) as operator:
        for topic in topics:
            operator.publish(topic, b"\xff" * 3_000_000, retain=True)
        with running(config_for(broker.port), received=received.append, subscribed=topics) as link:
            wait_until_connected(link)
            link.report("kept going")
            wait_until(lambda: link.status()["sent"] == 1, "results go out")
            operator.publish(topics[0], b"well", retain=True)
            wait_until(lambda: received, "what is well arrives")
            assert received == [InboundMessage(topics[0], b"well", False, None, None)]
            assert link.status()["state"] == "connected"


@needs_mosquitto
def test_a_flood_of_requests_is_read_no_faster_than_allowed(tmp_path: Path) -> None:
    """The broker holds what is beyond the allowance; results go out between."""
    received: list[InboundMessage] = []
    request = TOPICS.request("sync")
    script = (
        "import sys\nfrom paho.mqtt import publish\n"
        "publish.multiple([(sys.argv[2], b'{}', 0, False)] * 2000, port=int(sys.argv[1]))"
    )
    with (
        Mosquitto(tmp_path, "max_queued_messages 0") as broker,
        running(config_for(broker.port), received=received.append, subscribed=[request]) as link,
    ):
        wait_until_subscribed(link)
        flood = subprocess.Popen([sys.executable, "-c", script, str(broker.port), request])
        wait_until(lambda: len(received) > 300, "the flood is there")
        link.report("in the middle of it")
        wait_until(lambda: link.status()["sent"] == 2, "the result goes out")
        assert link.status()["state"] == "connected"
        assert flood.wait(TIMEOUT_S) == 0


def _speak(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if version == "3.1.1":
        monkeypatch.setattr("edge_agent.mqtt.connection.VERSIONS", (MQTTProtocolVersion.MQTTv311,))
