"""Who talks on and on, a board or the broker, costs a tool neither its memory nor its end."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from edge_agent.errors import LinkError
from edge_agent.operator import broker_connection, tool_client
from edge_agent.operator.broker import BrokerClient
from edge_agent.operator.inbox import Inbox
from edge_agent.operator.tool_client import Quiet, Received, Subscription
from edge_agent.sim.mqttwire import Message, publish_packet
from tests.operator.conftest import Home
from tests.operator.peer import Peer
from tests.operator.test_absence import plain
from tests.support.mosquitto import needs_mosquitto
from tests.support.rawbroker import Peer as Served
from tests.support.rawbroker import RawBroker
from tests.support.wait import TIMEOUT_S

Peers = Callable[..., list[Peer]]
NODES = "edge/v1/greenhouse/nodes"


def said(topic: str, payload: bytes = b"x", retained: bool = False) -> Received:
    return Received(topic, payload, retained)


def test_of_what_is_said_on_one_topic_the_latest_counts() -> None:
    subscription = Subscription(("n/#",), latest=("state",))
    for number in range(3):
        subscription.put(said("n/a/state", b"%d" % number))
        subscription.put(said("n/a/results", b"%d" % number))
        subscription.put(said("n/b/state", b"%d" % number))
    found = []
    while (message := subscription.take(0)) is not None:
        found.append((message.topic, message.payload))
    assert found == [
        ("n/a/state", b"2"),
        ("n/a/results", b"0"),
        ("n/b/state", b"2"),
        ("n/a/results", b"1"),
        ("n/a/results", b"2"),
    ]
    subscription.put(said("n/a/state", b"3"))
    assert subscription.take(0) == said("n/a/state", b"3")


def test_what_is_said_faster_than_it_is_taken_is_passed_over_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tool_client, "MAX_WAITING_BYTES", 10_000)
    subscription = Subscription(("n/+",))
    for _ in range(100):
        subscription.put(said("n/a", bytes(1000)))
    taken = 0
    while subscription.take(0) is not None:
        taken += 1
    assert (taken, subscription.dropped) == (8, 92)
    subscription.put(said("n/a"))
    assert subscription.take(0) == said("n/a")
    for _ in range(100):  # of what is kept nothing may be missing
        subscription.put(said("n/a", bytes(1000), retained=True))
    with pytest.raises(LinkError, match="more of n/\\+ than can be taken"):
        subscription.take(0)


def test_a_listing_of_what_has_no_end_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    subscription = Subscription(("n/+",))
    for number in range(100):
        subscription.put(said(f"n/{number}", retained=True))
    monkeypatch.setattr(tool_client, "MAX_KEPT_BYTES", 5_000)
    quiet = Quiet(subscription, 1.0, flagged=True)
    with pytest.raises(LinkError, match="have no end: 25 topics"):
        list(iter(quiet.take, None))
    monkeypatch.setattr(tool_client, "LISTING_TIMEOUT_S", 0.0)
    quiet = Quiet(subscription, 1.0, flagged=True)
    time.sleep(0.01)
    with pytest.raises(LinkError, match="have no end: 1 topics"):
        quiet.take()


def test_a_topic_that_a_broker_sends_again_and_again_as_kept_prolongs_nothing() -> None:
    subscription = Subscription(("n/+",))
    quiet, over = Quiet(subscription, 0.3, flagged=True), threading.Event()

    def repeat() -> None:
        while not over.wait(0.01):
            subscription.put(said("n/a", retained=True))

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        while quiet.take() is not None:
            pass
    finally:
        over.set()
        thread.join()


@contextmanager
def serving(deliver: Callable[[Served, list[Message]], None]) -> Iterator[BrokerClient]:
    with RawBroker(deliver) as broker:
        broker.echo = True
        with BrokerClient(plain(broker.port)) as client:
            yield client


def rest(size: int) -> bytes:
    """A remaining length."""
    found = bytearray()
    while True:
        size, digit = divmod(size, 128)
        found.append(digit | (0x80 if size else 0))
        if not size:
            return bytes(found)


QOS_2 = b"\x34\x07\0\x01a\0\x07\0x"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x30" + rest(200_000_000), "announces a packet of 200000000 bytes"),
        (b"\x90" + rest(1_000_000), "announces a packet of 1000000 bytes"),
        (QOS_2, "quality of service that was not asked for"),
        (b"\x82\x06\0\x01\0\x01a\0", "a packet of type 8, which was not asked for"),
        (b"\x20\x03\0\0\0", "accepts the same connection twice"),
    ],
    ids=["endless message", "endless answer", "QoS 2", "SUBSCRIBE", "second CONNACK"],
)
def test_a_broker_that_breaks_the_rules_is_left_and_told(
    data: bytes, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_connection, "ANSWER_TIMEOUT_S", 3.0)
    with serving(lambda peer, _: peer.write(data)) as client, pytest.raises(LinkError, match=why):
        client.kept("edge/v1/greenhouse/deployment")


def test_a_message_that_is_too_large_is_skipped_where_the_broker_could_not_be_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One board must not end all tools at a broker without MQTT 5."""
    monkeypatch.setattr(broker_connection, "VERSIONS", (MQTTProtocolVersion.MQTTv311,))
    large = Message(f"{NODES}/a/state", bytes(2 << 20), True)
    small = Message(f"{NODES}/b/state", b"{}", True)

    def deliver(peer: Served, _messages: list[Message]) -> None:
        for message in (large, small):
            peer.write(publish_packet(message, 4, retained=True))

    with serving(deliver) as client:
        found = client.retained((f"{NODES}/+/state",))
        assert found == {small.topic: b"{}"}
        assert client.connections == 1


@pytest.mark.system
@needs_mosquitto
def test_a_board_that_reports_on_and_on_does_not_keep_results_from_ending(
    home: Home, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    (loud,) = peers("board-1")
    home.fleet("results")
    monkeypatch.setattr("edge_agent.operator.inbox.READING_S", 1.0)
    monkeypatch.setattr("edge_agent.operator.inbox.QUIET_S", TIMEOUT_S)  # a busy machine pauses
    over, sent = threading.Event(), 0

    def talk() -> None:
        nonlocal sent
        while not over.wait(0.05):
            sent += 1
            loud.report("s", {"seq": sent, "outcome": "ok"})

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        code, told, errors = home.tried("results", "--json")
        assert (code, "more results arrive: run the command again" in errors) == (0, True), errors
    finally:
        over.set()
        thread.join()
    monkeypatch.setattr("edge_agent.operator.inbox.READING_S", 60.0)
    monkeypatch.setattr("edge_agent.operator.inbox.QUIET_S", 3.0)
    told += home.fleet("results", "--json")  # nothing is lost, and nothing comes twice
    assert [json.loads(line)["seq"] for line in told.splitlines()] == [*range(1, sent + 1)]


@pytest.mark.system
@needs_mosquitto
def test_all_that_waited_is_read_however_little_may_be_unacknowledged(
    home: Home, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.operator.inbox.UNACKNOWLEDGED", 3)
    (board,) = peers("board-1")
    home.fleet("results")
    for number in range(1, 251):
        board.report("s", {"seq": number, "outcome": "ok"})
    with home.opened() as fleet, Inbox(fleet) as inbox:
        assert [item.first for item in inbox.items()] == [*range(1, 251)]
        assert not inbox.more
