"""Tests whether a broker has what the fleet protocol needs, one check after the other.

All checks use the topics of one blob that does not exist, where an operator may write and
read and no node looks; it is cleared afterwards. What fails names where MQTT demands it, as
`MQTT-x.y.z-n` of version 5 or by its section.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Literal, NamedTuple

from paho.mqtt import client as paho
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.properties import Properties

from edge_agent.config import Broker, MqttConfig
from edge_agent.errors import LinkError
from edge_agent.fleet_protocol.topics import MAX_MESSAGE_BYTES, fleet_topics
from edge_agent.operator.blobs import PATIENCE_S
from edge_agent.operator.broker import BrokerClient
from edge_agent.operator.tool_client import ToolClient, client_id
from edge_agent.store.digest import Digest

# For what a broker does by itself: a will, a message on its way.
WAIT_S = 10.0
WAITS_S = (2.0, 3.0, WAIT_S)  # for what is retained, each with a subscription of its own
# For what a broker kept for a session. NATS may have sent it down the connection that was just
# ending, which it learns late under load, and sends it again after its ack_wait of 30 s.
SESSION_WAIT_S = 45.0
KEPT_S = 600  # sessions of a trial
BURST = 200  # messages at once
MAX_NOTED_BYTES, MESSAGE_BYTES = 32 << 20, 400  # of what came, with what each takes beside; a
# trial publishes some MiB at most
LEAST_INFLIGHT = 10  # below it a plugin of a megabyte takes minutes

Level = Literal["ok", "warn", "fail"]


class Found(NamedTuple):
    """The result of one check. `demand` is the section of the specification, or ""."""

    level: Level
    subject: str
    text: str
    demand: str = ""


class _Came(NamedTuple):
    topic: str
    payload: bytes
    retained: bool
    properties: Mapping[str, object]


class _Client(BrokerClient):
    """A client that keeps whole messages, may have a will, and can break off."""

    def __init__(
        self, config: MqttConfig, keep_session_s: int = 0, will: tuple[str, bytes] | None = None
    ) -> None:
        super().__init__(replace(config, client_id=client_id()), keep_session_s=keep_session_s)
        self.came: list[_Came] = []
        self._noted_bytes = 0
        self.granted: Mapping[str, object] = {}
        self._will = will

    def _make(self, broker: Broker, version: MQTTProtocolVersion) -> ToolClient:
        client = super()._make(broker, version)
        client.manual_ack_set(False)
        if self._will is not None:
            client.will_set(self._will[0], self._will[1], qos=1)
        noted = client.on_connect
        assert noted is not None

        def on_connect(*arguments: object) -> None:
            self.granted = _values(arguments[-1])
            noted(*arguments)  # type: ignore[arg-type]

        client.on_connect = on_connect
        return client

    def _on_message(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        self._noted_bytes += len(message.payload) + MESSAGE_BYTES
        with suppress(UnicodeDecodeError):  # no topic of MQTT; nothing that was asked for
            if self._noted_bytes <= MAX_NOTED_BYTES:
                topic, properties = message.topic, _values(message.properties)
                self.came.append(_Came(topic, bytes(message.payload), message.retain, properties))
        super()._on_message(client, userdata, message)

    def saw(self, what: Callable[[_Came], bool], wait_s: float | None = None) -> _Came | None:
        """The first message that matches, within the time."""
        until = time.monotonic() + (WAIT_S if wait_s is None else wait_s)
        while True:
            found = next((each for each in list(self.came) if what(each)), None)
            if found is not None or time.monotonic() >= until:
                return found
            time.sleep(0.02)

    def die(self) -> None:
        """Break the connection without DISCONNECT."""
        client = self._opened()
        client.set_reconnecting(False)
        client.loop_stop()
        sock = client.socket()
        if sock is not None:
            sock.close()
        self._client = None


class BrokerCheck:
    """One broker, of one fleet's settings."""

    def __init__(self, config: MqttConfig, fleet: str) -> None:
        self._config = config
        self._topics = fleet_topics(fleet)
        self._fleet = fleet
        self._blob = Digest.of_hex(os.urandom(32).hex())

    def run(self, *, restarted: bool = False) -> Iterator[Found]:
        """Yields each result. LinkError: no connection.

        `restarted`: the broker was restarted since the last time, and what was left then is
        looked for.
        """
        with self._client() as client:
            yield Found("ok", "connection", f"{client.url} with MQTT {client.protocol}")
            yield from self._granted(client)
            for trial in (
                *(self._retained, self._wildcard, self._cleared, self._largest),
                *(self._burst, self._response_topic, self._session, self._will),
            ):
                try:
                    yield from trial(client)
                except LinkError as error:
                    yield Found("fail", trial.__name__.strip("_").replace("_", " "), str(error))
            yield from self._on_disk(client, restarted)

    def _client(self, keep_session_s: int = 0) -> _Client:
        return _Client(self._config, keep_session_s)

    def _topic(self, number: int) -> str:
        return self._topics.blob_part(self._blob, number)

    @contextmanager
    def _left(self, client: BrokerClient, *numbers: int) -> Iterator[None]:
        """Clears the retained messages at these topics in the end."""
        try:
            yield
        finally:
            for number in numbers:
                client.publish(self._topic(number), b"", retain=True)

    def _kept(self, pattern: str, count: int = 1) -> list[_Came]:
        """What comes to a client that subscribes now, `count` messages at the most.

        A cluster of NATS acknowledges a retained message before it has it for new subscriptions, so
        others are made as long as some are missing.
        """
        found: list[_Came] = []
        for wait_s in WAITS_S:
            with self._client() as later, later.subscribed((pattern,)):
                later.saw(lambda _each, later=later: len(later.came) >= count, wait_s)  # type: ignore[misc]
                found = list(later.came)
            if len(found) >= count:
                break
        return found

    def _granted(self, client: _Client) -> Iterator[Found]:
        if client.protocol != "5":
            text = "no MQTT 5: requests have no response topic, refusals no reason, and queues cut"
            yield Found("warn", "version", text)
            return
        granted = client.granted
        size = granted.get("MaximumPacketSize", 1 << 28)
        if not isinstance(size, int) or size < MAX_MESSAGE_BYTES + 1024:
            yield Found("fail", "size", f"it takes {size} bytes at once", "3.2.2.3.6")
        quality = granted.get("MaximumQoS", 2)
        if quality == 0:
            yield Found("fail", "QoS", "it takes QoS 0 only", "3.2.2.3.4")
        inflight = granted.get("ReceiveMaximum", 65_535)
        level: Level = "ok" if isinstance(inflight, int) and inflight >= LEAST_INFLIGHT else "warn"
        yield Found(level, "inflight", f"it takes {inflight} unacknowledged messages", "3.2.2.3.3")

    def _retained(self, client: _Client) -> Iterator[Found]:
        topic = self._topic(0)
        with self._left(client, 0):
            client.publish(topic, b"kept", retain=True)
            came = next((each for each in self._kept(topic) if each.payload == b"kept"), None)
        if came is None:
            yield Found("fail", "retained", "it does not come to who subscribes", "MQTT-3.3.1-9")
            return
        yield Found("ok", "retained", "it comes to who subscribes")
        if came.retained:
            yield Found("ok", "RETAIN flag", "set on what was kept")
        else:
            text = "clear on what was kept: nodes do not care, `fleet nodes` shows none"
            yield Found("fail", "RETAIN flag", text, "3.8.3.1")

    def _wildcard(self, client: _Client) -> Iterator[Found]:
        topics = {self._topic(number) for number in range(3)}
        with self._left(client, 0, 1, 2):
            for topic in topics:
                client.publish(topic, b"kept", retain=True)
            pattern = f"{self._topics.blobs}/{self._blob.hex}/+"
            missing = topics - {each.topic for each in self._kept(pattern, len(topics))}
        if missing:
            text = f"{len(missing)} of 3 do not come to who subscribes to a pattern"
            yield Found("fail", "wildcards", text, "MQTT-3.3.1-9, 4.7.1.3")
        else:
            yield Found("ok", "wildcards", "what is retained comes to who subscribes to a pattern")

    def _cleared(self, client: _Client) -> Iterator[Found]:
        topic = self._topic(0)
        client.publish(topic, b"kept", retain=True)
        client.publish(topic, b"", retain=True)
        with self._client() as later, later.subscribed((topic,)):
            later.mark(topic)
            came = later.saw(lambda each: each.topic == topic, 0)
        if came is None or not came.payload:
            yield Found("ok", "clearing", "an empty message ends what was retained")
        else:
            yield Found("fail", "clearing", "an empty message leaves it there", "MQTT-3.3.1-6")

    def _largest(self, client: _Client) -> Iterator[Found]:
        topic, payload = self._topic(0), os.urandom(MAX_MESSAGE_BYTES)
        with self._left(client, 0):
            client.publish(topic, payload, retain=True)
            came = any(each.payload == payload for each in self._kept(topic))
        if not came:
            yield Found("fail", "64 KiB", "the largest message is lost or changed", "3.2.2.3.6")
        else:
            yield Found("ok", "64 KiB", "the largest message passes and is retained")

    def _burst(self, client: _Client) -> Iterator[Found]:
        topic = self._topic(1)
        payloads = [b"%d" % number for number in range(BURST)]
        with self._client() as reader, reader.subscribed((topic,)):
            for packet_id in [client.send(topic, each, retain=False) for each in payloads]:
                client.wait(packet_id)
            reader.saw(lambda each: each.payload == payloads[-1])
            came = [each.payload for each in reader.came]
        if came == payloads:
            yield Found("ok", "QoS 1", f"{BURST} messages at once come in their order")
        elif set(payloads) <= set(came):
            yield Found("warn", "QoS 1", f"{BURST} messages at once come in another order", "4.6.0")
        else:
            lost = len(set(payloads) - set(came))
            yield Found("fail", "QoS 1", f"{lost} of {BURST} messages are lost", "MQTT-4.3.2-4")

    def _response_topic(self, client: _Client) -> Iterator[Found]:
        if client.protocol != "5":
            return
        topic = self._topic(1)
        wanted = {"ResponseTopic": self._topic(2), "CorrelationData": b"\x00\x01"}
        with self._client() as reader, reader.subscribed((topic,)):
            client.publish(topic, b"asked", retain=False, properties=wanted)
            came = reader.saw(lambda each: each.payload == b"asked")
        if came is not None and wanted.items() <= came.properties.items():
            yield Found("ok", "response topic", "it passes with its correlation data")
        else:
            text = "it is lost: answers to requests come at the node's own topic only"
            yield Found("fail", "response topic", text, "MQTT-3.3.2-15, MQTT-3.3.2-16")

    def _session(self, client: _Client) -> Iterator[Found]:
        topic = self._topic(1)
        reader = self._client(keep_session_s=KEPT_S)
        reader.expect(topic)
        with reader, reader.subscribed((topic,)):
            pass
        client.publish(topic, b"while away", retain=False)
        with reader:
            present = reader.session_present
            wait_s = SESSION_WAIT_S if present else 0
            came = reader.saw(lambda each: each.payload == b"while away", wait_s)
        if came is None or not present:
            text = "it is not kept: what is sent to a node or to `fleet results` meanwhile is lost"
            yield Found("fail", "session", text, "MQTT-3.1.2-23, MQTT-4.5.0-1")
        else:
            yield Found("ok", "session", "it is kept, with what came meanwhile")
        with _End(reader):
            pass

    def _will(self, client: _Client) -> Iterator[Found]:
        topic = self._topic(1)
        with client.subscribed((topic,)):
            for keep_s in (0, KEPT_S):
                said = b"lost %d" % keep_s
                dying = _Client(self._config, keep_session_s=keep_s, will=(topic, said))
                dying.__enter__()
                dying.die()
                came = client.saw(lambda each, said=said: each.payload == said)  # type: ignore[misc]
                subject = "will, session kept" if keep_s else "will"
                if came is None:
                    text = "it is not published when the connection breaks"
                    yield Found("fail", subject, text, "MQTT-3.1.2-8")
                else:
                    yield Found("ok", subject, "it is published when the connection breaks")
                with _End(dying):
                    pass

    def _on_disk(self, client: _Client, restarted: bool) -> Iterator[Found]:
        """Only a restart of the broker shows it."""
        topic = self._topics.blob_part(Digest.of(f"fleet doctor {self._fleet}".encode()), 0)
        if not restarted:
            client.publish(topic, b"kept", retain=True)
            text = "restart the broker, then: edge-agent fleet doctor --broker --restarted"
            yield Found("warn", "retained on disk", f"it cannot be seen from here; {text}")
            return
        # NATS serves clients before it has read again all that it kept, where that takes it 4 s.
        found = any(client.kept(topic, quiet_s) == b"kept" for quiet_s in PATIENCE_S)
        client.publish(topic, b"", retain=True)
        if found:
            yield Found("ok", "retained on disk", "what was retained outlived the restart")
        else:
            text = "nothing is left (or this was not run before): switch the broker's storage on"
            yield Found("fail", "retained on disk", text, "4.1.0")


class _End:
    """Ends a session that was kept for a trial."""

    def __init__(self, client: _Client) -> None:
        self._ending = BrokerClient(client.config)

    def __enter__(self) -> None:
        self._ending.__enter__()

    def __exit__(self, *_: object) -> None:
        self._ending.__exit__(None, None, None)


def _values(properties: object) -> Mapping[str, object]:
    """Of MQTT 5; empty for what has none."""
    if not isinstance(properties, Properties):
        return {}
    return {
        name: getattr(properties, name)
        for name in (
            *("MaximumPacketSize", "MaximumQoS", "ReceiveMaximum"),
            *("ResponseTopic", "CorrelationData"),
        )
        if hasattr(properties, name)
    }
