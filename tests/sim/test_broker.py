"""The small broker: filters, packets, and clients that break the rules."""

import itertools
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.sim.broker import Broker
from edge_agent.sim.mqttwire import (
    MAX_PACKET_BYTES,
    PUBLISH,
    VERSION_3_1_1,
    VERSION_5,
    Malformed,
    Message,
    Packet,
    matches,
    packet,
    publish_packet,
    read_connect,
    read_filters,
    read_publish,
    split,
)
from tests.mqtt.observer import Observer
from tests.support.wait import TIMEOUT_S, wait_until

CONNECT_3 = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a"
CONNECT_5 = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01b"
WILL_3 = b"\x10\x14\x00\x04MQTT\x04\x06\x00\x3c\x00\x01w\x00\x01t\x00\x02hi"
GOODBYE = b"\xe0\x00"


@pytest.mark.parametrize(
    ("wanted", "topic", "taken"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/b/c", "a/b", False),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("+/+", "a/", True),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("#", "a/b", True),
        ("#", "$SYS/uptime", False),
        ("+/uptime", "$SYS/uptime", False),
        ("$SYS/#", "$SYS/uptime", True),
    ],
)
def test_filters_take_what_mqtt_says(wanted: str, topic: str, taken: bool) -> None:
    assert matches(wanted, topic) is taken


@given(st.lists(st.binary(max_size=300), max_size=6), st.lists(st.integers(0, 2000), max_size=6))
def test_any_split_of_the_bytes_gives_the_same_packets(
    bodies: list[bytes], places: list[int]
) -> None:
    stream = b"".join(packet(PUBLISH, body) for body in bodies)
    cuts = [0, *sorted(min(place, len(stream)) for place in places), len(stream)]
    received, packets = bytearray(), list[Packet]()
    for start, end in itertools.pairwise(cuts):
        received += stream[start:end]
        packets += split(received)
    assert packets == [Packet(PUBLISH, 0, body) for body in bodies]
    assert not received


@given(st.binary(max_size=200), st.sampled_from([VERSION_3_1_1, VERSION_5]))
def test_any_bytes_are_read_or_refused(body: bytes, version: int) -> None:
    for read in (
        lambda: read_connect(Packet(0x10, 0, body)),
        lambda: read_publish(Packet(PUBLISH, 2, body), version),
        lambda: read_filters(Packet(0x80, 2, body), version, with_options=True),
        lambda: list(split(bytearray(body))),
    ):
        try:
            read()
        except Malformed:
            pass


@given(st.text(min_size=1), st.binary(max_size=300), st.booleans())
def test_a_message_reads_as_it_was_written(topic: str, payload: bytes, retain: bool) -> None:
    message = Message(topic.replace("+", "p").replace("#", "h"), payload, retain)
    for version in (VERSION_3_1_1, VERSION_5):
        written = publish_packet(message, version, retained=retain)
        (received,) = split(bytearray(written))
        assert read_publish(received, version) == (message, None)


def test_lengths_beyond_the_limit_are_refused_before_memory_is_taken() -> None:
    with pytest.raises(Malformed, match=str(MAX_PACKET_BYTES + 1)):
        list(split(bytearray(packet(PUBLISH, bytes(MAX_PACKET_BYTES + 1))[:5])))


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"User-Agent: b\r\n" * 5,
        b"\xc0\x00",  # PINGREQ before CONNECT
        CONNECT_3 + CONNECT_3,
        CONNECT_3 + b"\x34\x06\x00\x01a\x00\x01x",  # QoS 2
        CONNECT_3 + b"\x30\xff\xff\xff\xff\xff",
        CONNECT_3 + b"\x82\x02\x00\x01",  # SUBSCRIBE without a filter
        CONNECT_5 + b"\xf0\x00",  # AUTH
        CONNECT_3[:8] + b"\x03" + CONNECT_3[9:],  # MQTT 3.1
    ],
)
def test_a_client_that_breaks_the_rules_is_dropped_and_no_other(sent: bytes) -> None:
    with Broker() as broker, Observer(broker.port) as observer:
        with socket.create_connection(("127.0.0.1", broker.port), timeout=TIMEOUT_S) as client:
            client.sendall(sent)
            while client.recv(4096):
                pass  # until the broker closes
        with socket.create_connection(("127.0.0.1", broker.port), timeout=TIMEOUT_S) as client:
            client.sendall(CONNECT_3 + b"\x30\x04\x00\x01ax")
            wait_until(lambda: observer.messages("a"), "the message arrives")


@pytest.mark.parametrize(("goodbye", "wills"), [(b"", 1), (GOODBYE, 0)])
def test_a_will_is_published_unless_its_client_said_goodbye(goodbye: bytes, wills: int) -> None:
    with Broker() as broker, Observer(broker.port) as observer:
        with socket.create_connection(("127.0.0.1", broker.port), timeout=TIMEOUT_S) as client:
            client.sendall(WILL_3 + goodbye)
            client.recv(4)
            if not goodbye:
                client.shutdown(socket.SHUT_WR)
            while client.recv(4096):
                pass
        with socket.create_connection(("127.0.0.1", broker.port), timeout=TIMEOUT_S) as client:
            client.sendall(CONNECT_3 + b"\x30\x04\x00\x01zx")
            wait_until(lambda: observer.messages("z"), "a later message arrives")
        assert [message.payload for message in observer.messages("t")] == [b"hi"] * wills
