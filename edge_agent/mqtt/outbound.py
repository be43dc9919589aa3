"""The channels of one node, made from its configuration, and when reported results are packed.

Connections are numbered: the numbers grow over reboots, also where no clock does.
"""

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path

from edge_agent import __version__
from edge_agent.config import MqttConfig
from edge_agent.errors import StoreError
from edge_agent.fleet_protocol.topics import node_topics
from edge_agent.mqtt.channels import (
    IMPORTANT_WINDOW,
    RESULTS_WINDOW,
    STATE_INTERVAL_S,
    AnswersChannel,
    Document,
    DocumentChannel,
    OutboxChannel,
    Publisher,
    StatusChannel,
    Wire,
)
from edge_agent.mqtt.journal import Journal
from edge_agent.mqtt.outbox import Describe, Outbox
from edge_agent.store import files

log = logging.getLogger(__name__)


# More connections than one boot makes: one each second for twelve days.
CONNECTIONS = 1 << 20
# What JSON's numbers hold exactly everywhere.
MOST = 1 << 53


def next_epoch(path: Path, clock_ms: int) -> int:
    """A number above all that this node used; `path` remembers it.

    The clock's milliseconds where they are higher, so that a card that was written anew does
    not begin below what the fleet has seen; where nothing can be remembered the clock alone.
    """
    try:
        known = _known(path)
        number = max(known + CONNECTIONS, clock_ms) if known < MOST - CONNECTIONS else clock_ms
        files.make_folder(path.parent)
        files.write(path, b"%d\n" % number)
    except StoreError as error:
        log.warning("the number of this start is the clock's: %s", error)
        return clock_ms
    return number


def _known(path: Path) -> int:
    data = files.read(path, max_bytes=64) or b"0"
    try:
        return max(0, int(data))
    except ValueError:
        log.warning("%s: is damaged; numbers begin anew with the clock", path)
        return 0


# Log lines are worth less than results: a small queue of their own.
LOG_RECORDS = 1000
# Packing holds the interpreter, which the thread that answers the runtime needs: a few
# records (about a millisecond), then a pause in which that thread goes first.
PACK_AT_ONCE = 16
PAUSE_S = 0.001

_NEVER = 1 << 62


class Batcher:
    """Lets the items of `outbox` wait `batch_s` for others, or until `batch_items` wait; then all
    that wait are packed.

    Only then is the packing thread woken, and only if it sleeps: putting an item costs no
    system call while a batch is gathering or being packed.
    """

    def __init__(self, outbox: Outbox, batch_s: float, batch_items: int) -> None:
        self.outbox = outbox
        self._batch_s = batch_s
        self._batch_items = batch_items
        self._due: float | None = None  # when those that wait now have waited enough
        self._wake_at = _NEVER  # number of waiting items that ends the thread's sleep

    def put(self, item: object, size: int, important: bool) -> bool:
        """Any thread. True: wake the packing thread, once."""
        if self.outbox.put(item, size, important) < self._wake_at:
            return False
        self._wake_at = _NEVER
        return True

    def flush_now(self) -> None:
        """Wait for nothing any more."""
        self._batch_s = 0.0
        if self._due is not None:
            self._due = -math.inf

    def step(self, now: float) -> None:
        """Pack some if they have waited enough."""
        if self._due is None and self.outbox.waiting:
            self._due = now + self._batch_s
        if self._ripe(now):
            self._due = -math.inf  # until none waits
            self.outbox.pack(PACK_AT_ONCE, now)
        if not self.outbox.waiting:
            self._due = None

    def sleep_until(self, now: float) -> float:
        """When `step` is due (monotonic; infinity: when woken). Arms the wake-up."""
        if self._ripe(now):
            return now + PAUSE_S
        self._wake_at = 1 if self._due is None else self._batch_items
        # An item put before the wake-up was armed does not wake this thread: look again.
        if self.outbox.waiting >= self._wake_at:
            return now
        return math.inf if self._due is None else self._due

    def _ripe(self, now: float) -> bool:
        if self._due is None:
            return False
        return now >= self._due or self.outbox.waiting >= self._batch_items


class Outbound:
    """Results and logs in their outboxes, state and metrics made when they are due."""

    def __init__(
        self,
        config: MqttConfig,
        node: str,
        fleet: str,
        describe: Describe,
        state: Callable[[], Document],
        metrics: Callable[[], Document],
        journal: Journal | None,
        seal: Callable[[bytes], bytes] = bytes,
    ) -> None:
        topics = node_topics(fleet, node)
        self.results = _batcher(config, node, describe, config.queue_records, journal)
        self.logs = _batcher(config, node, _as_it_is, min(LOG_RECORDS, config.queue_records))
        self.status = StatusChannel(topics.status, __version__)
        self._state = DocumentChannel(
            topics.state,
            lambda: {"session": self.status.session, **state()},
            retain=True,
            interval_s=STATE_INTERVAL_S,
            repeat=False,
            seal=seal,
        )
        self.answers = AnswersChannel(topics.responses)
        self._batches = (
            OutboxChannel(topics.results, self.results.outbox, IMPORTANT_WINDOW, important=True),
            OutboxChannel(topics.results, self.results.outbox, RESULTS_WINDOW),
            OutboxChannel(topics.logs, self.logs.outbox, 1),
        )
        metrics_channel = DocumentChannel(
            topics.metrics,
            metrics,
            retain=False,
            interval_s=config.metrics_interval_s,
            repeat=True,
        )
        self.publisher = Publisher(
            (self.status, self.answers, self._state, *self._batches, metrics_channel),
            config.reconnect_min_s,
            config.reconnect_max_s,
        )
        self._state_is_new = False

    def begin(self, session: int, now: float) -> None:
        """Before the first step: `session` is above all of earlier starts."""
        self.status.session = session
        self.results.outbox.open(now)

    def state_changed(self) -> bool:
        """Any thread. True: wake the link's thread."""
        known, self._state_is_new = self._state_is_new, True
        return not known

    def opened(self, wire: Wire, now: float) -> None:
        """A broker accepted the connection: say `online` and everything that is retained."""
        self.results.outbox.connected(True, now)
        self.publisher.opened(wire, now)

    def closed(self, now: float) -> None:
        """The connection is gone; what it did not acknowledge goes out on the next one."""
        self.publisher.closed()
        self.results.outbox.rewind()
        self.logs.outbox.rewind()
        self.results.outbox.connected(False, now)

    def flush_now(self, now: float) -> None:
        """The last words: nothing waits for company any more, and the status is `offline`."""
        self.results.flush_now()
        self.logs.flush_now()
        self.status.say_offline(now)

    def end(self, now: float) -> None:
        """After the last step: what could not be sent is kept, where there is a disk."""
        outbox = self.results.outbox
        outbox.pack(outbox.waiting, now)
        outbox.finish()

    def step(self, now: float) -> float:
        """Pack what waited enough, publish what is due; returns when to come back.

        With no connection only the packing is done. Raises LinkError.
        """
        batchers = (self.results, self.logs)
        for batcher in batchers:
            batcher.step(now)
        if self._state_is_new:
            self._state_is_new = False
            self._state.changed(now)
        for channel in (self.answers, *self._batches):
            channel.look(now)
        self.publisher.step(now)
        return min(
            self.publisher.due(),
            self.results.outbox.tick(now),
            *(batcher.sleep_until(now) for batcher in batchers),
        )


def _batcher(
    config: MqttConfig,
    node: str,
    describe: Describe,
    queue_records: int,
    journal: Journal | None = None,
) -> Batcher:
    outbox = Outbox(
        node,
        config.encoding,
        describe,
        queue_records=queue_records,
        batch_records=config.batch_records,
        journal=journal,
    )
    # A batch that cannot fill up before the queue does must not wait for that.
    return Batcher(
        outbox, config.batch_ms / 1000, max(1, min(config.batch_records, queue_records // 2))
    )


def _as_it_is(item: object) -> Mapping[str, object]:
    assert isinstance(item, Mapping)  # `Link.log` takes nothing else
    return item
