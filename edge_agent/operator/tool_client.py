"""The operator's MQTT client, with bounds on what a broker can send and on what waits here.

A tool reads as fast as it can and asks for much, so unlike a node (mqtt/client) it does not
limit the number of packets. It bounds their size and kinds, the acknowledgements that the broker
does not read, and the messages that the tool has not taken yet.
"""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import NamedTuple

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion

from edge_agent.config import MqttConfig
from edge_agent.errors import LinkError
from edge_agent.mqtt.client import BoundedClient

# Of one received message; the fleet's largest are a deployment and a part, with 64 KiB each.
MAX_PACKET_BYTES = 1 << 20
# An answer to a subscription has a byte for each of some hundred topics, and perhaps reasons.
MAX_ANSWER_BYTES = 64 << 10
# Acknowledgements that the broker has not read yet: more than all that one client may be sent
# without any (65,535), with 100 bytes each.
MAX_OWED_PACKETS = 100_000

_HINTS = {
    "Bad user name or password": ": check username and password_file in fleet.toml",
    "Not authorized": (
        ": check username, password_file and cert_file in fleet.toml, and the broker's access list"
    ),
}


class ToolClient(BoundedClient):
    """After a violation of MQTT by the broker, `last_error` describes it."""

    max_answer_bytes = MAX_ANSWER_BYTES
    max_publish_bytes = MAX_PACKET_BYTES
    skipped = 0  # messages that were too large for us, of brokers that could not be told

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)
        self.too_large = self._too_large
        self._accepted = False

    def _too_large(self, _topic: str, _size: int) -> str:
        self.skipped += 1
        return ""

    def reconnect(self) -> MQTTErrorCode:
        self.last_error, self._accepted = "", False
        return super().reconnect()

    def _packet_handle(self) -> MQTTErrorCode:
        self.credit += 1  # packets are not counted
        if len(self._out_packet) > MAX_OWED_PACKETS:
            self.last_error = "it does not read acknowledgements"
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        return super()._packet_handle()

    def _handle_connack(self) -> MQTTErrorCode:
        if self._accepted:
            self.last_error = "it accepts the same connection twice"
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        found = super()._handle_connack()
        self._accepted = found == MQTTErrorCode.MQTT_ERR_SUCCESS
        return found


def tool_client(
    config: MqttConfig, version: MQTTProtocolVersion, *, tls: bool, clean: bool
) -> ToolClient:
    """A client that is not connected; `clean`: the broker keeps no session. LinkError."""
    client = ToolClient(
        CallbackAPIVersion.VERSION2,
        client_id=config.client_id,
        clean_session=None if version == MQTTProtocolVersion.MQTTv5 else clean,
        protocol=version,
        # Until the broker has accepted it once: a refusal ends the attempt.
        reconnect_on_failure=False,
    )
    client.take_credentials(config, tls=tls)
    return client


def client_id() -> str:
    """An id that no other client has; every broker takes 23 letters and digits."""
    return f"edgeop{os.urandom(8).hex()}"


def with_client_id(mqtt: MqttConfig, name: str) -> MqttConfig:
    """The same broker under another client id, for a session that the broker keeps."""
    return replace(mqtt, client_id=name)


def hint(reason: str) -> str:
    """What to check after a refusal of the broker, or ""."""
    return _HINTS.get(reason, "")


# Of messages that wait: more than a tool is ever behind in a fleet of some 10,000 nodes. Beyond it,
# messages are dropped and counted, except retained ones.
MAX_WAITING_BYTES = 64 << 20
# Of the retained messages of one listing: 20,000 states of the largest form have 1.3 GB, those with
# ten plugins each 60 MB.
MAX_KEPT_BYTES = 512 << 20
# A listing brings some thousand messages a second; a longer one is taken for endless.
LISTING_TIMEOUT_S = 600.0


class Received(NamedTuple):
    """One message; `retained` if the broker had kept it."""

    topic: str
    payload: bytes
    retained: bool
    packet_id: int = 0


class Subscription:
    """Messages of some topic filters, until they are taken.

    A flood from a board or the broker does not fill the memory: `dropped` counts dropped messages.
    Retained messages that do not fit are an error.
    """

    def __init__(self, filters: tuple[str, ...], latest: Collection[str] = ()) -> None:
        """On topics whose last level is in `latest`, a message takes the place of the one before
        it that was not taken yet."""
        self.filters = filters
        self.answer: str | None = None  # the broker's: "", or why it refuses
        self.dropped = 0
        self._plain = frozenset(each for each in filters if not set(each) & {"+", "#"})
        self._wild = tuple(each for each in filters if each not in self._plain)
        self._latest = frozenset(latest)
        self._came = threading.Condition()
        self._waiting: OrderedDict[object, Received] = OrderedDict()
        self._bytes = self._number = 0
        self._overflowed = False

    def take(self, timeout_s: float | None = None) -> Received | None:
        """The next message; None after `timeout_s` without one (None: wait for ever).

        LinkError: the broker sends more that it keeps than there is room for.
        """
        with self._came:
            if not self._came.wait_for(lambda: self._waiting or self._overflowed, timeout_s):
                return None
            if self._overflowed:
                raise LinkError(
                    f"the broker sends more of {', '.join(self.filters)} than can be taken"
                )
            _, message = self._waiting.popitem(last=False)
            self._bytes -= _size(message)
            return message

    def wants(self, topic: str) -> bool:
        return topic in self._plain or any(
            paho.topic_matches_sub(each, topic) for each in self._wild
        )

    def put(self, message: Received) -> None:
        with self._came:
            key: object = self._number
            if message.topic.rpartition("/")[2] in self._latest:
                key = message.topic
            before = self._waiting.get(key)
            grown = self._bytes + _size(message) - (_size(before) if before else 0)
            if grown > MAX_WAITING_BYTES:
                if message.retained:
                    self._overflowed = True
                    self._came.notify_all()
                self.dropped += 1
                return
            self._number += 1
            self._bytes = grown
            self._waiting[key] = message
            self._came.notify_all()


def _size(message: Received) -> int:
    """In memory, approximately."""
    return len(message.payload) + len(message.topic) + 200


class Quiet:
    """Takes messages of a subscription until no new retained one has come for `seconds`.

    Other messages do not count, nor a retained message that comes again: a fleet, or one board,
    that publishes without pause could otherwise keep a listing from ending. From a broker that
    invents ever more retained messages the listing ends with an error.
    """

    def __init__(
        self, subscription: Subscription, seconds: float, *, flagged: bool = False
    ) -> None:
        """Without `flagged` a new topic counts as retained, since some brokers clear the flag of
        retained messages."""
        self._subscription = subscription
        self._flagged = flagged
        self._seconds = seconds
        self._until = time.monotonic() + seconds
        self._end = time.monotonic() + LISTING_TIMEOUT_S
        self._topics = set[str]()
        self._bytes = 0

    def again(self, seconds: float) -> None:
        """Wait for a silence of this length from now on."""
        self._seconds = seconds
        self._until = time.monotonic() + seconds

    def take(self) -> Received | None:
        """The next message; None: silence. LinkError: the retained messages have no end."""
        message = self._subscription.take(max(0.0, self._until - time.monotonic()))
        now = time.monotonic()
        if message is None:
            return None
        new = message.topic not in self._topics and (message.retained or not self._flagged)
        if new:
            self._topics.add(message.topic)
            self._until = now + self._seconds
            self._bytes += _size(message)
            if now > self._end or self._bytes > MAX_KEPT_BYTES:
                raise LinkError(
                    f"the retained messages at {', '.join(self._subscription.filters[:3])} have no"
                    f" end: {len(self._topics)} topics with {self._bytes >> 20} MiB so far"
                )
        elif now >= self._until:
            return None
        return message


def until(subscription: Subscription, seconds: float) -> Iterator[Received]:
    """The messages within `seconds`, in any number; at least all that wait already."""
    end = time.monotonic() + seconds
    while (message := subscription.take(max(0.0, end - time.monotonic()))) is not None:
        yield message
        if time.monotonic() > end + seconds:
            return
