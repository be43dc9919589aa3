"""The link to the fleet's broker: one thread that connects, publishes and reconnects.

Any thread may call `report`, `log`, `state_changed` and `status`; none of them waits. The
callables given to a Link run on its thread.

    batch what was put -> publish what is due -> wait for the broker, a timer or a wake-up

Names, TCP and TLS may take their time-outs each, on a thread of their own; the link's thread
goes on keeping what is reported meanwhile.

Brokers are tried in turn, each in MQTT 5 and, where that fails the way a broker without it
fails, in 3.1.1; under the node's name and, where the broker refuses that as a client id, under
one that every broker takes. What a broker accepted is tried first from then on. After a round
without a steady connection the thread rests, longer each time.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from selectors import EVENT_READ, EVENT_WRITE
from typing import TYPE_CHECKING, TypedDict

from edge_agent import process
from edge_agent.config import Broker, MqttConfig
from edge_agent.errors import LinkError
from edge_agent.fleet_protocol.topics import is_plain, node_topics, plain_client_id
from edge_agent.lazy_import import import_later
from edge_agent.loop import Loop
from edge_agent.mqtt.channels import Document, Message
from edge_agent.mqtt.inbound import Inbound, Received, Subscriptions
from edge_agent.mqtt.journal import FOLDER, journal_of
from edge_agent.mqtt.outbound import Outbound, next_epoch
from edge_agent.mqtt.outbox import Describe
from edge_agent.pacing import TokenBucket, backoff_s

if TYPE_CHECKING:
    from paho.mqtt.enums import MQTTProtocolVersion

    from edge_agent.mqtt.connection import Connection

logger = logging.getLogger(__name__)

# TLS handshakes and name lookups fit; the default of 8 MB counts where memory is locked.
STACK_BYTES = 512 * 1024
# From CONNECT to the broker's CONNACK.
ACCEPT_TIMEOUT_S = 5.0
# A connection that lasted this long ends the series of failures that backoff counts.
STEADY_S = 20.0
# SIGTERM to the end takes less than 2 s, and this is not all there is to stop.
STOP_TIMEOUT_S = 1.5
# Lines of log about what the broker refuses, at once and then in so many seconds: it may refuse
# every other message.
REFUSALS_TOLD, REFUSAL_S = 8, 60.0


class LinkStatus(TypedDict):
    """The state of the link, as `status` and `doctor` show it."""

    state: str  # `stopped`, `connecting`, `connected` or `waiting` (for the next attempt)
    broker: str | None  # the one connected to or tried last
    protocol: str | None  # `5` or `3.1.1`, while connected
    queued: int
    sent: int
    dropped: int
    disk_bytes: int | None  # of the files in which results wait; None: they wait in memory
    disk_limit: int | None
    disk_trouble: str | None  # why new results wait in memory
    streams_cut: int  # that the last agent did not finish: their newest results may be lost
    received: int
    passed_over: int  # messages that were not wanted any more, or too large
    last_error: str | None  # what is refused, or ended the last connection a moment ago


class Link:
    """MQTT for one node. `describe` turns a reported item into a record, None for no record."""

    def __init__(
        self,
        config: MqttConfig,
        node: str,
        fleet: str,
        describe: Describe,
        state: Callable[[], Document],
        metrics: Callable[[], Document],
        *,
        state_dir: Path | None = None,
        received: Received | None = None,
        seal: Callable[[bytes], bytes] = bytes,
    ) -> None:
        """In `state_dir` results wait for a broker, and outlive this process; None: in memory.

        `received` gets each message on a topic subscribed to and must return at once. What is
        subscribed to before `start` also gets what the broker kept while this node was away.
        Without `received` nothing may be subscribed to and the broker keeps no session.
        `seal` makes the message of a state's JSON, on the link's thread.
        """
        self._config = config
        self._state_dir = state_dir
        journal = journal_of(config, state_dir) if state_dir and config.queue_bytes else None
        self.outbound = Outbound(config, node, fleet, describe, state, metrics, journal, seal)
        self._subscriptions = Subscriptions(config.reconnect_min_s, config.reconnect_max_s)
        self._inbound = (
            Inbound(self._subscriptions, node_topics(fleet, node), received) if received else None
        )
        self._loop = Loop()
        self._events = 0  # what the connection's socket is ready for
        self._thread: threading.Thread | None = None
        self._stop_at = math.inf  # monotonic; finite: say goodbye until then
        self._state = "stopped"
        self._broker: Broker | None = None
        self._protocol: str | None = None
        # What each broker accepted last, so that not each connection begins with a refusal.
        self._accepted: dict[Broker, tuple[MQTTProtocolVersion, str]] = {}
        # A configured id is not replaced.
        chosen = config.client_id != node
        self._plain_id = config.client_id if chosen else plain_client_id(fleet, node)
        self._last_error: str | None = None
        self._reported = ""
        self._telling = TokenBucket(REFUSALS_TOLD, 1 / REFUSAL_S)

    def start(self) -> None:
        """Begin, once; returns at once, whatever the broker does."""
        self._thread = process.start(self._run, name="mqtt", stack_bytes=STACK_BYTES)

    def report(self, item: object, size: int = 0, important: bool = False) -> None:
        """Hand over a result, `size` bytes large; important ones are the last to be dropped."""
        if self.outbound.results.put(item, size, important):
            self._wake()

    def log(self, record: Mapping[str, object], size: int = 0) -> None:
        """Hand over a log record, ready as it is, that takes about `size` bytes."""
        if self.outbound.logs.put(record, size, False):
            self._wake()

    def state_changed(self) -> None:
        """The state document is out of date."""
        if self.outbound.state_changed():
            self._wake()

    def subscribe(self, topics: Iterable[str], *, anew: bool = False) -> None:
        """Ask for `topics` (no patterns) on this and every later connection; with `anew` also for
        those that were asked for before.

        What is retained there comes, and again on each connection. ValueError: no topic.
        """
        if self._inbound is None:
            raise ValueError("this link was given nobody to receive messages")
        if self._subscriptions.want(topics, anew=anew):
            self._wake()

    def unsubscribe(self, topics: Iterable[str]) -> None:
        """Give `topics` up; one or two messages of theirs may still be handed on."""
        if self._subscriptions.unwant(topics):
            self._wake()

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        correlation: bytes | None = None,
        spare: int = 0,
    ) -> bool:
        """Hand over an answer of at most 64 KiB; False: too many wait, it is dropped.

        With `spare`, which leaves so many places to others, it is the caller's still.
        It goes out before results do, again after a broken connection, and once only where the
        broker refuses it. ValueError for a topic to which nothing can be published.
        """
        if not is_plain(topic):
            raise ValueError(f"{topic!r}: nothing can be published there")
        message = Message(payload, topic=topic, retain=retain, correlation=correlation)
        taken = self.outbound.answers.put(message, spare)
        self._wake()
        return taken

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Say `offline`, send what is left, disconnect; in `timeout_s`, or as far as that goes."""
        if self._thread is not None:
            # Some of the time is for the way back out of the thread.
            self._stop_at = time.monotonic() + timeout_s * 0.8
            self._wake()
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                return  # it waits for a disk, and ends with the process
        self._loop.close()

    def status(self) -> LinkStatus:
        """The state of the link now."""
        outbox = self.outbound.results.outbox
        return {
            "state": self._state,
            "broker": self._broker.url if self._broker else None,
            "protocol": self._protocol,
            "queued": outbox.queued,
            "sent": outbox.sent,
            "dropped": outbox.dropped,
            "disk_bytes": outbox.journal.bytes if outbox.journal else None,
            "disk_limit": self._config.queue_bytes if outbox.journal else None,
            "disk_trouble": outbox.disk_trouble or None,
            "streams_cut": outbox.journal.streams_cut if outbox.journal else 0,
            "received": self._inbound.taken if self._inbound else 0,
            "passed_over": self._inbound.passed_over if self._inbound else 0,
            "last_error": self._refusal or self._last_error,
        }

    @property
    def _stopping(self) -> bool:
        return self._stop_at != math.inf

    def _run(self) -> None:
        clock_ms = int(time.time() * 1000)
        session = (
            next_epoch(self._state_dir / FOLDER / "session", clock_ms)
            if self._state_dir
            else clock_ms
        )
        self.outbound.begin(session, time.monotonic())
        failures = 0
        while not self._stopping:
            failures = 1 if self._attend_brokers() else failures + 1
            self._state = "waiting"
            self._rest(
                backoff_s(failures, self._config.reconnect_min_s, self._config.reconnect_max_s)
            )
        self.outbound.end(time.monotonic())
        self._state = "stopped"

    def _attend_brokers(self) -> bool:
        """Try each broker in turn; True as soon as one served for a while (and then failed)."""
        return any(not self._stopping and self._attend(broker) for broker in self._config.brokers)

    def _attend(self, broker: Broker) -> bool:
        """Connect and serve until that fails; True if it went well for a while."""
        # paho and TLS cost 11 MB: only a node with a broker pays. What paho would look a proxy up
        # with brings http and email, 1.2 MB.
        import_later("urllib.request")
        from edge_agent.mqtt.connection import VERSIONS, Connection

        self._broker = broker
        version, client_id = self._accepted.get(broker, (VERSIONS[0], self._config.client_id))
        certain = True  # whether the broker said that it does not speak the version before
        while True:
            self._state = "connecting"
            will = self.outbound.status.will()
            connection = Connection(broker, self._config, version, client_id, will, self._inbound)
            began = time.monotonic()
            try:
                self._serve(connection)
            except LinkError as error:
                self._failed(str(error))
            except Exception as error:
                # A defect must not end the link for good: it is logged, and tried again.
                logger.exception("the MQTT link failed")
                self._failed(f"{broker.url}: {error!r}")
            finally:
                self._protocol = None
                self.outbound.closed(time.monotonic())
                self._subscriptions.closed()
                connection.close()
            if connection.accepted:
                if certain:
                    self._accepted[broker] = version, client_id
                return time.monotonic() - began >= STEADY_S
            if self._stopping:
                return False
            if connection.wrong_id and client_id != self._plain_id:
                client_id = self._plain_id
            elif connection.wrong_version and version != VERSIONS[-1]:
                version, certain = VERSIONS[-1], connection.version_refused
            else:
                if connection.wrong_id or connection.wrong_version:
                    self._accepted.pop(broker, None)  # it may be another broker by now
                return False

    def _serve(self, connection: "Connection") -> None:
        """From connecting to the goodbye. Raises LinkError when the connection fails."""
        self._open(connection)
        deadline = time.monotonic() + ACCEPT_TIMEOUT_S
        while not connection.accepted:  # also when stopping: or the will would be published
            now = time.monotonic()
            until = min(deadline, self._stop_at)
            if now >= until:
                raise LinkError(f"{connection.url}: the broker does not answer CONNECT")
            self._wait(min(until, self.outbound.step(now)), connection)
        logger.info("connected to %s with MQTT %s", connection.url, connection.protocol)
        self._state, self._protocol = "connected", connection.protocol
        steady_at = time.monotonic() + STEADY_S
        self.outbound.opened(connection, time.monotonic())
        self._subscriptions.opened(connection, connection.session_kept)
        while not self._stopping:
            now = time.monotonic()
            if now >= steady_at:
                self._last_error = None
            due = min(self._subscriptions.step(now), self.outbound.step(now))
            self._wait(due, connection)
        self._say_goodbye(connection)

    def _open(self, connection: "Connection") -> None:
        """Connect while what is reported is kept. LinkError: it failed, or it is time to end."""
        from edge_agent.mqtt.connection import Connector

        connector = Connector(connection.open, connection.close, self._wake, STACK_BYTES)
        while not connector.finished:
            now = time.monotonic()
            if now >= self._stop_at:
                connector.abandon()
                raise LinkError(f"{connection.url}: given up, the agent ends")
            self._wait(min(self._stop_at, self.outbound.step(now)), None)
        connector.result()

    def _say_goodbye(self, connection: "Connection") -> None:
        """`offline`, then the last results as far as the time goes; then no will."""
        self.outbound.flush_now(time.monotonic())
        while (now := time.monotonic()) < self._stop_at:
            due = self.outbound.step(now)
            if not self.outbound.publisher.in_flight and due > self._stop_at:
                break
            self._wait(min(due, self._stop_at), connection)
        connection.disconnect()

    def _rest(self, seconds: float) -> None:
        """Wait for the next attempt; what is reported meanwhile is packed."""
        until = time.monotonic() + seconds
        while not self._stopping and (now := time.monotonic()) < until:
            self._wait(min(until, self.outbound.step(now)), None)

    def _wake(self) -> None:
        """End the sleep of the link's thread, the present one or the next. Any thread."""
        self._loop.call_soon(_nothing)

    def _wait(self, until: float, connection: "Connection | None") -> None:
        """Sleep until then (monotonic) or until something happens; let `connection` read and write
        what there is, and do what the broker asks for. LinkError: the connection is over."""
        if connection is None:
            self._loop.turn(until)
            return
        try:
            self._exchange(until, connection)
        finally:  # what was acknowledged before a failure counts
            self._take_answers(connection, time.monotonic())

    def _exchange(self, until: float, connection: "Connection") -> None:
        """Sleep, then read and write once, at the pace that the connection allows."""
        now = time.monotonic()
        read_due = connection.read_due(now)
        if connection.has_read or read_due > now:
            until = min(until, read_due)
        wanted = EVENT_WRITE if connection.wants_write else 0
        if read_due <= now:
            wanted |= EVENT_READ
        self._events = 0
        if wanted:
            self._loop.watch(connection, wanted, self._ready)
        try:
            self._loop.turn(min(until, connection.tick_due))
        finally:
            self._loop.unwatch(connection)  # it may close before the next wait
        now = time.monotonic()
        readable = bool(self._events & EVENT_READ) or (
            connection.has_read and connection.read_due(now) <= now
        )
        connection.ready(readable, bool(self._events & EVENT_WRITE))
        connection.tick(now)

    def _ready(self, events: int) -> None:
        self._events = events

    def _take_answers(self, connection: "Connection", now: float) -> None:
        before = self._refusal
        for packet_id, refusals in connection.take_answers():
            self._subscriptions.answered(packet_id, refusals, now)
            self.outbound.publisher.acknowledged(packet_id, "".join(refusals[:1]), now)
        if self._refusal and self._refusal != before and self._telling.take(now):
            logger.warning("%s", self._refusal)

    @property
    def _refusal(self) -> str:
        return self.outbound.publisher.last_error or self._subscriptions.last_error

    def _failed(self, message: str) -> None:
        """Tell a new trouble once, not at every attempt."""
        level = logging.DEBUG if message == self._reported else logging.WARNING
        logger.log(level, "%s", message)
        self._reported = self._last_error = message


def _nothing() -> None:
    """To be woken is all."""
