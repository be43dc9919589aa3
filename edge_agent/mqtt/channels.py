"""What a node publishes, and how. No I/O of its own, no clock.

Each `Channel` is a topic: its next message, and when that is due. The `Publisher` sends what the
channels have on the present connection: windows, acknowledgements, refusals.
"""

import logging
import math
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, Protocol

from edge_agent.errors import LinkError
from edge_agent.fleet_protocol.packing import pack_json
from edge_agent.fleet_protocol.topics import MAX_MESSAGE_BYTES, MAX_TOPIC_BYTES
from edge_agent.mqtt.outbox import Outbox
from edge_agent.mqtt.stream import Batch
from edge_agent.pacing import TokenBucket, backoff_s

log = logging.getLogger(__name__)

Document = Mapping[str, object]


class Message(NamedTuple):
    """A message to publish; `topic` only for an answer, others go to the channel's."""

    payload: bytes
    batch: Batch | None = None  # what `acknowledged` wants back
    topic: str | None = None  # None: the channel's
    retain: bool | None = None  # None: as the channel says
    correlation: bytes | None = None


# A plugin that flaps must not become a stream of state documents: fleet protocol.
STATE_INTERVAL_S = 1.0
# Enough to keep a link with a long way to the broker busy, 256 KiB at most.
RESULTS_WINDOW = 4
IMPORTANT_WINDOW = 2
# After an outage a node is not alone with its backlog, at the broker and on its own processor.
# 5,000 records in a second are more than its plugins make.
BATCH_BURST, BATCHES_PER_S = 8, 50
# Each some hundred bytes usually; `logs` and `diagnose` fill a message.
ANSWERS = 16
# Connections that may end before one answer is acknowledged: a broker may hang up because of it,
# such as AWS IoT Core on a topic that is forbidden.
ANSWER_TRIES = 3


class Channel(ABC):
    """One topic. `due` is the monotonic time from which `take` gives something to send."""

    rests = True  # after a refusal, longer each time

    def __init__(self, topic: str, *, retain: bool, window: int = 1) -> None:
        self.topic = topic
        self.retain = retain
        self.window = window  # messages that may wait for their acknowledgement
        self.due = math.inf

    @abstractmethod
    def take(self, now: float, max_bytes: int) -> Message | None:
        """The next message, its payload at most `max_bytes` long; None: nothing after all."""

    @abstractmethod
    def opened(self, now: float) -> None:
        """A new connection is there: a broker may know nothing yet."""

    def acknowledged(self, batch: Batch | None) -> None:  # noqa: B027 - most keep nothing
        """The broker has it."""

    def lost(self, now: float) -> None:
        """The connection is gone, or the broker refused: publish again what is unacknowledged."""
        self.opened(now)


class StatusChannel(Channel):
    """`online`, `offline`, and `lost` as the will, each with the connection's number.

    The number grows with each connection, so a will that arrives late is recognised.
    """

    def __init__(self, topic: str, version: str, session: int = 0) -> None:
        super().__init__(topic, retain=True)
        self.session = session
        self._version = version
        self._status = "online"

    def will(self) -> tuple[str, bytes]:
        """Topic and payload for the next connection, which is a new session."""
        self.session += 1
        return self.topic, pack_json({"status": "lost", "session": self.session})

    def opened(self, now: float) -> None:
        self.due = now

    def say_offline(self, now: float) -> None:
        """The last word."""
        self._status = "offline"
        self.due = now

    def take(self, now: float, max_bytes: int) -> Message:  # noqa: ARG002
        self.due = math.inf
        said = {"status": self._status, "session": self.session, "version": self._version}
        return Message(pack_json(said))


class DocumentChannel(Channel):
    """A JSON document made when it goes out, at most every `interval_s` seconds.

    With `repeat` it goes out that often; without, when `changed` was called.
    """

    def __init__(
        self,
        topic: str,
        make: Callable[[], Document],
        *,
        retain: bool,
        interval_s: float,
        repeat: bool,
        seal: Callable[[bytes], bytes] = bytes,
    ) -> None:
        """`seal` makes the message of the document's JSON."""
        super().__init__(topic, retain=retain)
        self._make = make
        self._seal = seal
        self._interval_s = interval_s
        self._repeat = repeat
        self._last = -math.inf

    def opened(self, now: float) -> None:
        self.changed(now)

    def changed(self, now: float) -> None:
        """Send it as soon as the interval allows."""
        self.due = min(self.due, max(now, self._last + self._interval_s))

    def take(self, now: float, max_bytes: int) -> Message | None:
        self._last = now
        self.due = now + self._interval_s if self._repeat else math.inf
        try:
            payload = self._seal(pack_json(self._make()))
        except Exception:
            # A defect in one message must not keep all others from being sent.
            log.exception("no document for %s", self.topic)
            return None
        if len(payload) > min(max_bytes, MAX_MESSAGE_BYTES):
            log.error("not sent to %s: %d bytes are too many", self.topic, len(payload))
            return None
        return Message(payload)


class AnswersChannel(Channel):
    """Answers to requests, in order; one that the broker refuses, or ends connections for, is
    given up.

    The requests come from a broker that is not trusted, so no number of them fills memory.
    """

    rests = False  # one topic may be forbidden and the next not

    def __init__(self, topic: str) -> None:
        super().__init__(topic, retain=False)
        self.dropped = 0
        self._lock = threading.Lock()
        self._waiting: deque[Message] = deque()
        self._sent: Message | None = None
        self._tries = 0  # with `_sent`

    def put(self, message: Message, spare: int = 0) -> bool:
        """Any thread. False: there is no room, and it is dropped; with `spare`, which leaves so
        many places to others, it may be put again."""
        with self._lock:
            full = len(self._waiting) >= ANSWERS - spare
            if full or len(message.payload) > MAX_MESSAGE_BYTES:
                self.dropped += not spare
                return False
            self._waiting.append(message)
        return True

    def look(self, now: float) -> None:
        """Due when something waits."""
        self.due = now if self._sent or self._waiting else math.inf

    def opened(self, now: float) -> None:
        self.look(now)

    def take(self, now: float, max_bytes: int) -> Message | None:
        if self._sent is not None and self._tries == ANSWER_TRIES:
            self.dropped += 1
            self._sent = None
        message = self._sent  # on the connection before this one
        if message is None:
            self._tries = 0
            with self._lock:
                message = self._waiting.popleft() if self._waiting else None
        self._tries += 1
        self.due = math.inf
        if message is not None and len(message.payload) > max_bytes:
            self.dropped += 1
            self._sent = None
            self.look(now)
            return None
        self._sent = message
        return message

    def acknowledged(self, batch: Batch | None) -> None:  # noqa: ARG002
        self._sent = None

    def lost(self, now: float) -> None:
        self.dropped += 1
        self._sent = None
        self.look(now)


class OutboxChannel(Channel):
    """The batches of an outbox: its ordinary records, or its important ones."""

    def __init__(self, topic: str, outbox: Outbox, window: int, important: bool = False) -> None:
        super().__init__(topic, retain=False, window=window)
        self._outbox = outbox
        self._important = important
        self._pace = TokenBucket(BATCH_BURST, BATCHES_PER_S)

    def look(self, now: float) -> None:
        """Due when something is packed, and not too much of it went out just now."""
        self.due = self._pace.due(now) if self._outbox.packed(self._important) else math.inf

    def opened(self, now: float) -> None:
        self._outbox.rewind()
        self.look(now)

    def take(self, now: float, max_bytes: int) -> Message | None:
        batch = self._outbox.take(self._important, min(max_bytes, MAX_MESSAGE_BYTES))
        self._pace.spend()
        self.look(now)
        return Message(batch.payload, batch) if batch else None

    def acknowledged(self, batch: Batch | None) -> None:
        if batch is not None:
            self._outbox.acknowledge(batch)


# A broker that answers pings but acknowledges nothing for this long is left.
ACKNOWLEDGE_TIMEOUT_S = 30.0
# What a PUBLISH adds to its payload beside the topic: 5 (header) + 2 + 2 + 3, and what comes
# back with an answer (inbound.MAX_CORRELATION_BYTES), rounded up.
PUBLISH_BYTES = 300


class Wire(Protocol):
    """The part of a connection that is needed here."""

    receive_maximum: int
    max_packet_bytes: int

    def publish(
        self, topic: str, payload: bytes, retain: bool, correlation: bytes | None = None
    ) -> int:
        """Send at QoS 1; returns the packet id. Raises LinkError."""


class _Sent(NamedTuple):
    channel: Channel
    topic: str
    batch: Batch | None
    at: float


class _Pause:
    """How long a topic rests after the broker refused it."""

    def __init__(self) -> None:
        self.refusals = 0
        self.until = -math.inf
        self.last_error = ""


class Publisher:
    """Sends what the channels have, first channel first, within their windows."""

    def __init__(self, channels: Iterable[Channel], least_s: float, most_s: float) -> None:
        self.channels = tuple(channels)
        self._pauses = {channel: _Pause() for channel in self.channels}
        self._sent: dict[int, _Sent] = {}
        self._wire: Wire | None = None
        self._least_s = least_s
        self._most_s = most_s

    @property
    def last_error(self) -> str:
        """What the broker refuses at present, for the operator; empty: nothing."""
        return next((pause.last_error for pause in self._pauses.values() if pause.last_error), "")

    @property
    def in_flight(self) -> int:
        """Messages that wait for their acknowledgement."""
        return len(self._sent)

    def opened(self, wire: Wire, now: float) -> None:
        """A connection was accepted."""
        self._wire = wire
        self._pauses = {channel: _Pause() for channel in self.channels}
        for channel in self.channels:
            channel.opened(now)

    def closed(self) -> None:
        """The connection is gone, and with it every answer."""
        self._wire = None
        self._sent.clear()

    def step(self, now: float) -> None:
        """Publish what is due. Raises LinkError: the connection broke or stalls."""
        for sent in self._sent.values():
            if now - sent.at > ACKNOWLEDGE_TIMEOUT_S:
                raise LinkError(
                    f"the broker acknowledged nothing on {sent.topic}"
                    f" for {ACKNOWLEDGE_TIMEOUT_S:.0f} s"
                )
        for channel in self.channels:
            while self._ready_at(channel) <= now:
                self._publish(channel, now)

    def due(self) -> float:
        """When `step` has something to do (monotonic)."""
        oldest = min((sent.at for sent in self._sent.values()), default=math.inf)
        at = min(map(self._ready_at, self.channels))
        return min(at, oldest + ACKNOWLEDGE_TIMEOUT_S)

    def acknowledged(self, packet_id: int, refusal: str, now: float) -> None:
        """The broker answered a message; `refusal` is its reason, empty if it took it."""
        sent = self._sent.pop(packet_id, None)
        if sent is None:
            return
        pause = self._pauses[sent.channel]
        if not refusal:
            pause.refusals, pause.last_error = 0, ""
            sent.channel.acknowledged(sent.batch)
            return
        if sent.channel.rests:
            pause.refusals += 1
            pause.until = now + backoff_s(pause.refusals, self._least_s, self._most_s)
        pause.last_error = (
            f"the broker refuses what is published to {sent.channel.topic}: {refusal};"
            " its access list must let this node write there"
        )
        sent.channel.lost(now)

    def _ready_at(self, channel: Channel) -> float:
        """When `channel` may send; infinity while a window is full."""
        if self._wire is None or len(self._sent) >= self._wire.receive_maximum:
            return math.inf
        waiting = sum(sent.channel is channel for sent in self._sent.values())
        if waiting >= channel.window:
            return math.inf
        return max(channel.due, self._pauses[channel].until)

    def _publish(self, channel: Channel, now: float) -> None:
        assert self._wire is not None  # `_ready_at` looked
        room = self._wire.max_packet_bytes - MAX_TOPIC_BYTES - PUBLISH_BYTES
        message = channel.take(now, room)
        if message is None:
            return
        topic = message.topic or channel.topic
        packet_id = self._wire.publish(
            topic,
            message.payload,
            channel.retain if message.retain is None else message.retain,
            message.correlation,
        )
        self._sent[packet_id] = _Sent(channel, topic, message.batch, now)
