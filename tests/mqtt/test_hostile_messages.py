"""Brokers that send messages wrongly, too many, or ones that nobody wants: scripted bytes."""

import os
import socket
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edge_agent.fleet_protocol.topics import node_topics
from edge_agent.mqtt.client import MAX_PUBLISH_BYTES, MESSAGE_BURST, OWED_PACKETS
from edge_agent.mqtt.inbound import InboundMessage
from tests.mqtt import harness
from tests.mqtt.harness import FLEET, NODE, config_for, wait_for_error, wait_until_connected
from tests.mqtt.test_hostile_broker import CONNACK_3, CONNACK_5, Script, peer, version
from tests.support.wait import TIMEOUT_S, wait_until

TOPICS = node_topics(FLEET, NODE)
SYNC, LOGS = TOPICS.request("sync"), TOPICS.request("logs")

running = partial(harness.running, stop_s=0.2)


def length(size: int) -> bytes:
    """MQTT's remaining length."""
    encoded = b""
    while True:
        size, digit = divmod(size, 128)
        encoded += bytes([digit | (0x80 if size else 0)])
        if not size:
            return encoded


def publish(topic: bytes, payload: bytes, qos: int = 0, protocol: int = 5, flags: int = 0) -> bytes:
    """A PUBLISH packet; its packet id is 7."""
    body = len(topic).to_bytes(2, "big") + topic
    body += b"\0\x07" if qos else b""
    body += b"\0" if protocol == 5 else b""
    body += payload
    return bytes([0x30 | qos << 1 | flags]) + length(len(body)) + body


def kept(connect: bytes) -> bytes:
    """A CONNACK that says the session is still there."""
    return b"\x20\x03\x01\x00\x00" if version(connect) == 5 else b"\x20\x02\x01\x00"


def after_subscribe(
    *packets: bytes, refusals: bytes = b"\x01", connack: bytes = CONNACK_5
) -> Script:
    """CONNACK; once SUBSCRIBE has come its SUBACK and then `packets`."""

    def script(connection: socket.socket, _connect: bytes) -> None:
        connection.sendall(connack)
        _answer_subscribe(connection, refusals)
        for packet in packets:
            connection.sendall(packet)
        _read_for_ever(connection)

    return script


def _answer_subscribe(connection: socket.socket, refusals: bytes) -> None:
    received = b""
    while b"\x82" not in received:
        received += connection.recv(65536)
    at = received.index(b"\x82")
    packet_id = received[at + 2 : at + 4]
    connection.sendall(b"\x90" + bytes([3 + len(refusals)]) + packet_id + b"\0" + refusals)


def _read_for_ever(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


WELL = publish(SYNC.encode(), b"well")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        pytest.param(
            after_subscribe(publish(SYNC.encode(), b"", qos=2)),
            ["quality of service"],
            id="QoS 2",
        ),
        pytest.param(
            after_subscribe(publish(SYNC.encode(), b"", qos=3)),
            ["quality of service"],
            id="QoS 3",
        ),
        pytest.param(after_subscribe(publish(b"a", b"")), ["'a'"], id="topic not asked for"),
        pytest.param(
            after_subscribe(publish(b"edge/v1/#", b"")), ["'edge/v1/#'"], id="pattern as topic"
        ),
        pytest.param(
            after_subscribe(publish(b"", b"")), ["disconnected from the broker"], id="no topic"
        ),
        pytest.param(
            after_subscribe(publish(b"\xff\xfe", b"")), ["broken packet"], id="topic not UTF-8"
        ),
        pytest.param(
            after_subscribe(b"\x30\x04\xff\xffab"),
            ["disconnected from the broker"],
            id="topic beyond its end",
        ),
        pytest.param(
            after_subscribe(publish(SYNC.encode(), b"x" * MAX_PUBLISH_BYTES)),
            ["announces a packet of"],
            id="larger than MQTT 5 was told",
        ),
        pytest.param(after_subscribe(b"\x62\x02\x00\x07"), ["type 6"], id="PUBREL for nothing"),
        pytest.param(
            after_subscribe(refusals=b"\x01\x01\x01"),
            ["3 of 1 topics"],
            id="SUBACK for more",
        ),
        pytest.param(after_subscribe(refusals=b""), ["the broker"], id="empty SUBACK"),
        pytest.param(
            after_subscribe(*[b"\xb0\x04\x00\x63\x00\x00"] * 100), ["floods"], id="UNSUBACK flood"
        ),
    ],
)
def test_a_broker_that_sends_wrong_messages_is_left_and_told(
    script: Script, words: list[str]
) -> None:
    received: list[InboundMessage] = []
    with (
        peer(script) as broker,
        running(config_for(broker.port), received=received.append, subscribed=[SYNC]) as link,
    ):
        link.report("kept")
        wait_for_error(link, *words)
        wait_until(lambda: broker.connections > 2, "it is tried again")
        assert received == []
        assert link.status()["queued"] == 1


def test_a_message_before_the_broker_accepted_is_an_offence() -> None:
    def script(connection: socket.socket, _connect: bytes) -> None:
        connection.sendall(WELL)
        _read_for_ever(connection)

    received: list[InboundMessage] = []
    with (
        peer(script) as broker,
        running(config_for(broker.port), received=received.append, subscribed=[SYNC]) as link,
    ):
        wait_for_error(link, "before its CONNACK (MQTT 5, 3.2.0-1)")
        assert received == []


def test_a_refused_subscription_is_told_and_the_connection_stays() -> None:
    with (
        peer(after_subscribe(refusals=b"\x87")) as broker,
        running(
            config_for(broker.port, reconnect_min_s=60.0, reconnect_max_s=60.0),
            received=print,
            subscribed=[SYNC],
        ) as link,
    ):
        wait_for_error(link, f"refuses the subscription to {SYNC}: Not authorized", "access list")
        assert link.status()["state"] == "connected"
        assert broker.connections == 1


def test_messages_of_a_kept_session_come_before_it_is_asked_for_anything() -> None:
    def script(connection: socket.socket, connect: bytes) -> None:
        old = publish(LOGS.encode(), b"of an earlier life", qos=1)
        connection.sendall(kept(connect) + old + publish(SYNC.encode(), b"kept", qos=1))
        _read_for_ever(connection)

    received: list[InboundMessage] = []
    with (
        peer(script) as broker,
        running(config_for(broker.port), received=received.append, subscribed=[SYNC]) as link,
    ):
        wait_until(lambda: received, "the kept message is handed on")
        assert received[0].payload == b"kept"
        assert link.status()["passed_over"] == 1
        assert link.status()["state"] == "connected"


def test_too_large_a_message_is_skipped_in_3_1_1_which_cannot_be_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from edge_agent.mqtt.connection import VERSIONS

    monkeypatch.setattr("edge_agent.mqtt.connection.VERSIONS", VERSIONS[1:])
    acknowledged = threading.Event()
    size = 40 * 1024 * 1024
    before = _resident_bytes()

    def script(connection: socket.socket, _connect: bytes) -> None:
        connection.sendall(CONNACK_3)
        topic = SYNC.encode()
        head = b"\x32" + length(2 + len(topic) + 2 + size)
        connection.sendall(head + len(topic).to_bytes(2, "big") + topic + b"\0\x2a")
        for _ in range(size // 65536):
            connection.sendall(b"x" * 65536)
        connection.sendall(publish(topic, b"well", protocol=4))
        received = b""
        while b"\x40\x02\x00\x2a" not in received:
            received = received[-8:] + connection.recv(65536)
        acknowledged.set()
        _read_for_ever(connection)

    received: list[InboundMessage] = []
    with (
        peer(script) as broker,
        running(config_for(broker.port), received=received.append, subscribed=[SYNC]) as link,
    ):
        wait_until(lambda: received, "the next message is handed on")
        assert received[0].payload == b"well"
        assert acknowledged.wait(TIMEOUT_S)
        assert link.status()["passed_over"] == 1
        assert link.status()["state"] == "connected"
    assert _resident_bytes() - before < size // 2


def test_a_flood_that_reads_no_acknowledgement_is_read_no_further(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edge_agent.mqtt.client.MESSAGES_PER_S", 1e9)
    connect = socket.create_connection

    def with_a_small_buffer(*arguments: Any, **options: Any) -> socket.socket:
        connection = connect(*arguments, **options)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return connection

    monkeypatch.setattr("socket.create_connection", with_a_small_buffer)
    stopped = threading.Event()
    sent = 0

    def script(connection: socket.socket, _connect: bytes) -> None:
        nonlocal sent
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(CONNACK_5)
        _answer_subscribe(connection, b"\x01")
        connection.settimeout(1.0)
        message = publish(SYNC.encode(), b"", qos=1)
        try:
            while sent < 2_000_000:
                connection.sendall(message * 100)
                sent += 100
        except TimeoutError:
            stopped.set()

    received = 0

    def count(_message: InboundMessage) -> None:
        nonlocal received
        received += 1

    with (
        peer(script) as broker,
        running(config_for(broker.port), received=count, subscribed=[SYNC]) as link,
    ):
        assert stopped.wait(TIMEOUT_S), f"{sent} sent"
        assert received < sent
        assert link.status()["state"] == "connected"


def test_no_more_is_read_in_a_burst_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.mqtt.client.MESSAGES_PER_S", 0.001)
    received: list[InboundMessage] = []
    with (
        peer(after_subscribe(*[WELL] * 3 * MESSAGE_BURST)) as broker,
        running(config_for(broker.port), received=received.append, subscribed=[SYNC]) as link,
    ):
        wait_until(lambda: len(received) >= MESSAGE_BURST, "the burst is read")
        link.report("meanwhile")
        wait_until_connected(link)
        # paho reads as many packets at once as there are messages in flight.
        assert len(received) < MESSAGE_BURST + 10


def test_owed_acknowledgements_are_few_beside_what_is_in_flight() -> None:
    assert OWED_PACKETS > 4 + 8 + 8  # results, incoming window, subscriptions


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
