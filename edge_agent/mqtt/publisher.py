"""Publishing on a connection: windows, acknowledgements, refusals. No I/O of its own."""

import math
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from edge_agent.errors import LinkError
from edge_agent.fleet_protocol.topics import MAX_TOPIC_BYTES
from edge_agent.mqtt.channels import Channel
from edge_agent.mqtt.stream import Batch
from edge_agent.pacing import backoff_s

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
        self._channels = tuple(channels)
        self._pauses = {channel: _Pause() for channel in self._channels}
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
        self._pauses = {channel: _Pause() for channel in self._channels}
        for channel in self._channels:
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
        for channel in self._channels:
            while self._ready_at(channel) <= now:
                self._publish(channel, now)

    def due(self) -> float:
        """When `step` has something to do (monotonic)."""
        oldest = min((sent.at for sent in self._sent.values()), default=math.inf)
        at = min(map(self._ready_at, self._channels))
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
