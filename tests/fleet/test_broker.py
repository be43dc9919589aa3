"""A node's fleet part on its thread, with the real link: at mosquitto, and at brokers that fail."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_agent.config import MqttConfig, UpdatesConfig
from edge_agent.fleet.plan import Node, Plan
from edge_agent.fleet.transfer import parts
from edge_agent.fleet.updater import Updater
from edge_agent.fleet_protocol import keys
from edge_agent.fleet_protocol.topics import DocumentOf, PartOf
from edge_agent.mqtt.client import MAX_PUBLISH_BYTES
from edge_agent.mqtt.inbound import InboundMessage
from edge_agent.mqtt.link import Link
from edge_agent.node.updates import Worker
from edge_agent.sim.mqttwire import Message
from edge_agent.store.layout import Layout
from edge_agent.store.release import PluginId
from tests.fleet.operator import Publisher
from tests.mqtt.harness import config_for, describe
from tests.support.blobs import cut, module
from tests.support.fleetnode import FLEET, KEYS, NOW, ROUTER, TOPICS, Operator, plugin, release
from tests.support.mosquitto import Certificates, Mosquitto, needs_mosquitto
from tests.support.rawbroker import Peer, RawBroker
from tests.support.wait import wait_until
from tests.support.webserver import WebServer

pytestmark = pytest.mark.system

IT = cut(module(60_000), 2048)


class Running:
    """What the test sees of a node."""

    def __init__(self, worker: Worker, link: Link, plans: list[Plan]) -> None:
        self.worker = worker
        self.link = link
        self.plans = plans

    def wait_for(self, **versions: str) -> None:
        """Until the host is told to run exactly these."""
        wait_until(lambda: self.versions() == versions, f"{versions} run: {self.worker.status()}")

    def versions(self) -> dict[str, str]:
        releases = self.plans[-1].releases if self.plans else ()
        return {each.name: each.version for each in releases}


@contextmanager
def node(folder: Path, config: MqttConfig, **updates: Any) -> Iterator[Running]:
    """Start one; its disk stays for the next."""
    trust = folder / "trust"
    trust.mkdir(parents=True, exist_ok=True)
    (trust / "0.pem").write_text(keys.public_pem(KEYS[0].public))
    plans: list[Plan] = []
    link: Link

    def make(wake: Callable[[], None]) -> Updater:
        return Updater(
            node=Node("board-7", FLEET, {}),
            config=UpdatesConfig(trust_dir=trust, **updates),
            layout=Layout(folder / "store"),
            catalogue_path=folder / "store" / "catalogue.json",
            topics=TOPICS,
            broker=link,
            activate=plans.append,
            changed=lambda: None,
            wake=wake,
            clock=lambda: NOW,
            monotonic=time.monotonic,
        )

    def received(message: InboundMessage) -> None:
        what = ROUTER.route(message.topic)
        assert isinstance(what, DocumentOf | PartOf)
        worker.received(what, message.payload)

    worker = Worker(make)
    link = Link(
        config,
        "board-7",
        FLEET,
        describe,
        dict,
        dict,
        received=received,
    )
    worker.start()
    link.start()
    try:
        yield Running(worker, link, plans)
    finally:
        worker.stop()
        link.stop(0.2)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask again soon."""
    monkeypatch.setattr(parts, "IDLE_S", 1.0)
    monkeypatch.setattr(parts, "PAUSES_S", (0.1,) * 200)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    (tmp_path / "broker").mkdir()
    with Mosquitto(tmp_path / "broker") as broker:
        yield broker


@needs_mosquitto
def test_deployment_reaches_a_node_through_mosquitto(tmp_path: Path, broker: Mosquitto) -> None:
    with Publisher(broker.port) as publisher, node(tmp_path, config_for(broker.port)) as running:
        operator = Operator(publisher)
        operator.upload(IT)
        operator.deploy(plugin("guard", release("1", IT)))
        running.wait_for(guard="1")
        assert running.plans[-1].releases[0].path.read_bytes() == IT.data
        running.worker.call(lambda it: it.verdict(PluginId("10-guard"), IT.blob.digest, True, ""))
        wait_until(lambda: not running.plans[-1].releases[0].on_probation, "it is kept")


@needs_mosquitto
def test_parts_that_are_published_after_the_deployment_come_too(
    tmp_path: Path, broker: Mosquitto
) -> None:
    with Publisher(broker.port) as publisher, node(tmp_path, config_for(broker.port)) as running:
        operator = Operator(publisher)
        operator.deploy(plugin("guard", release("1", IT)))
        wait_until(lambda: running.worker.status().get("pending") == 1, "it is accepted")
        operator.upload(IT)
        running.wait_for(guard="1")


@needs_mosquitto
def test_broker_killed_again_and_again_during_a_transfer(tmp_path: Path, broker: Mosquitto) -> None:
    large = cut(module(400_000), 2048)
    with Publisher(broker.port) as publisher:
        operator = Operator(publisher)
        operator.upload(large)
        operator.deploy(plugin("guard", release("1", large)))
    incoming = tmp_path / "store" / "incoming" / large.blob.digest.hex
    with node(tmp_path, config_for(broker.port)) as running:
        for share in (0.1, 0.4, 0.7):
            wait_until(
                lambda share=share: (  # type: ignore[misc]
                    len(list(incoming.glob("*-*"))) >= share * large.blob.parts
                    or running.versions()
                ),
                "a part of the transfer",
            )
            broker.kill()
            broker.start()
        running.wait_for(guard="1")


@needs_mosquitto
def test_node_killed_in_the_middle_asks_for_the_rest_only(
    tmp_path: Path, broker: Mosquitto
) -> None:
    with Publisher(broker.port) as publisher:
        operator = Operator(publisher)
        operator.upload(IT._replace(parts=IT.parts[:-1]))
        operator.deploy(plugin("guard", release("1", IT)))
        incoming = tmp_path / "store" / "incoming" / IT.blob.digest.hex
        with node(tmp_path, config_for(broker.port)):
            wait_until(
                lambda: len(list(incoming.glob("zlib-*"))) == IT.blob.parts - 1, "all but one"
            )
        operator.upload(IT)
        before = len(broker.log_file.read_text())
        with node(tmp_path, config_for(broker.port)) as running:
            running.wait_for(guard="1")
        # mosquitto's log has a line for each topic of a SUBSCRIBE.
        log = broker.log_file.read_text()[before:]
        assert re.findall(rf"{IT.blob.digest.hex}/([0-9]+) \(QoS", log) == [f"{IT.blob.parts - 1}"]


# --- brokers that fail


def properly(peer: Peer, messages: list[Message]) -> None:
    for message in messages:
        peer.send(message)


def hanging_up_after_each(peer: Peer, messages: list[Message]) -> None:
    for message in messages:
        peer.send(message)
        if message.topic.startswith(TOPICS.blobs):
            peer.hang_up()
            return


def in_another_order_and_twice(peer: Peer, messages: list[Message]) -> None:
    for message in [*reversed(messages), *messages]:
        peer.send(message)


def slowly(peer: Peer, messages: list[Message]) -> None:
    for message in messages:
        peer.drip(message, 0.002)


class Never:
    """Sends no part at first."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self, peer: Peer, messages: list[Message]) -> None:
        parts = [each for each in messages if each.topic.startswith(TOPICS.blobs)]
        properly(peer, [each for each in messages if each not in parts])
        if parts and self.left:
            self.left -= 1
        else:
            properly(peer, parts)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "deliver", [properly, hanging_up_after_each, in_another_order_and_twice, slowly, Never(3)]
)
def test_deployment_reaches_a_node_through_a_broker_that_delivers(
    tmp_path: Path, deliver: Callable[[Peer, list[Message]], None]
) -> None:
    with RawBroker(deliver) as broker:
        operator = Operator(broker)
        operator.upload(IT)
        operator.deploy(plugin("guard", release("1", IT)))
        with node(tmp_path, config_for(broker.port, reconnect_max_s=0.1)) as running:
            running.wait_for(guard="1")


@pytest.mark.usefixtures("impatient")
def test_broker_that_refuses_at_first_is_asked_again(tmp_path: Path) -> None:
    with RawBroker(properly) as broker:
        broker.refusals = 5
        operator = Operator(broker)
        operator.upload(IT)
        operator.deploy(plugin("guard", release("1", IT)))
        with node(tmp_path, config_for(broker.port, reconnect_max_s=0.1)) as running:
            running.wait_for(guard="1")
        assert broker.connections > 5


@pytest.mark.parametrize("size", [0, 1, 2047, 2049, 65_536, 69_000, 70_000])
def test_part_of_a_wrong_size_is_told_and_the_node_runs_on(tmp_path: Path, size: int) -> None:
    other = cut(module(60_000, seed=1), 2048)
    with RawBroker(properly) as broker:
        operator = Operator(broker)
        operator.upload(IT)
        operator.deploy(plugin("guard", release("1", IT)))
        with node(tmp_path, config_for(broker.port)) as running:
            running.wait_for(guard="1")
        operator.upload(other)
        operator.deploy(plugin("guard", release("2", other)))
        broker.retained[TOPICS.blob_part(other.blob.digest, 3)] = bytes(size)
        with node(tmp_path, config_for(broker.port, reconnect_max_s=0.1)) as running:
            running.wait_for(guard="1")

            def told() -> bool:
                if size > MAX_PUBLISH_BYTES:  # the link does not even read it
                    return "announces a packet of 7" in str(running.link.status()["last_error"])
                fetching = running.worker.status().get("fetching")  # None: it has not begun
                return f"part 3 of {other.blob.parts} has {size} bytes" in str(fetching)

            wait_until(told, "the trouble is told")
            assert running.versions() == {"guard": "1"}


def test_wrong_blob_from_the_broker_is_fetched_from_another_source(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    other = cut(module(60_000, seed=1), 2048)
    with WebServer(certificates) as server, RawBroker(properly) as broker:
        server.files["/guard.wasm"] = IT.data
        operator = Operator(broker)
        operator.upload(IT)
        for number in range(IT.blob.parts):
            broker.retained[TOPICS.blob_part(IT.blob.digest, number)] = other.parts[number]
        operator.deploy(plugin("guard", release("1", IT, "mqtt", f"{server.url}/guard.wasm")))
        with node(tmp_path, config_for(broker.port)) as running:
            running.wait_for(guard="1")
        assert len(server.requests) == 1
