"""Everything that one node publishes, put together from its configuration. No I/O of its own."""

from collections.abc import Callable, Mapping

from edge_agent import __version__
from edge_agent.config import MqttConfig
from edge_agent.mqtt.batcher import Batcher
from edge_agent.mqtt.channels import (
    IMPORTANT_WINDOW,
    RESULTS_WINDOW,
    STATE_INTERVAL_S,
    AnswersChannel,
    Document,
    DocumentChannel,
    OutboxChannel,
    StatusChannel,
)
from edge_agent.mqtt.ingress_queue import Describe
from edge_agent.mqtt.journal import Journal
from edge_agent.mqtt.outbox import Outbox
from edge_agent.mqtt.publisher import Publisher, Wire
from edge_agent.mqtt.topics import node_topics

# Log lines are worth less than results: a small queue of their own.
LOG_RECORDS = 1000


class Outgoing:
    """Results and logs in their outboxes, state and metrics made when they are due."""

    def __init__(
        self,
        config: MqttConfig,
        node: str,
        fleet: str,
        describe: Describe,
        state: Callable[[], Document],
        metrics: Callable[[], Document],
        disk: Journal | None,
    ) -> None:
        topics = node_topics(fleet, node)
        self.results = _batcher(config, node, describe, config.queue_records, disk)
        self.logs = _batcher(config, node, _as_it_is, min(LOG_RECORDS, config.queue_records))
        self.status = StatusChannel(topics.status, __version__)
        self._state = DocumentChannel(
            topics.state,
            lambda: {"session": self.status.session, **state()},
            retain=True,
            interval_s=STATE_INTERVAL_S,
            repeat=False,
        )
        self.answers = AnswersChannel(f"{topics.status.removesuffix('status')}response")
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

    def hurry(self, now: float) -> None:
        """The last words: nothing waits for company any more, and the status is `offline`."""
        self.results.hurry()
        self.logs.hurry()
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
            self.results.outbox.tend(now),
            *(batcher.sleep_until(now) for batcher in batchers),
        )


def _batcher(
    config: MqttConfig,
    node: str,
    describe: Describe,
    queue_records: int,
    disk: Journal | None = None,
) -> Batcher:
    outbox = Outbox(
        node,
        config.encoding,
        describe,
        queue_records=queue_records,
        batch_records=config.batch_records,
        disk=disk,
    )
    # A batch that cannot fill up before the queue does must not wait for that.
    return Batcher(
        outbox, config.batch_ms / 1000, max(1, min(config.batch_records, queue_records // 2))
    )


def _as_it_is(item: object) -> Mapping[str, object]:
    assert isinstance(item, Mapping)  # `Link.log` takes nothing else
    return item
