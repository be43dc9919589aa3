"""The fleet as its broker shows it now, for many readers at once.

One thread follows the broker; pages read from another. All that is kept is bounded: nodes by what
the broker retains, events by MAX_EVENTS, changes by MAX_NEWS.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from typing import NamedTuple, Self

from edge_agent.console.facts import Facts, Summary, facts, summary
from edge_agent.errors import EdgeAgentError
from edge_agent.fleet_protocol.topics import read_node_topic
from edge_agent.operator import releases
from edge_agent.operator.deploy import Current
from edge_agent.operator.fleet import Fleet
from edge_agent.operator.overview import NOTHING, News, news, snapshot
from edge_agent.operator.results import Item, Merger
from edge_agent.operator.tool_client import Received
from edge_agent.operator.view import View, read_nodes
from edge_agent.pacing import backoff_s

log = logging.getLogger(__name__)

MAX_EVENTS, MAX_EVENT_BYTES = 5_000, 8 << 20  # bytes as they came; in memory some times more
READING = "the broker is still being read"
MAX_NEWS = 1_000
LOOK_S = 0.25  # for the end, and for counts that are due
REREAD_S = 300.0  # a broker drops what a slow subscriber has not taken (operator/view)
SHARE = 5  # of the thread's time that goes into counting, at most a fifth
RETRY_LEAST_S, RETRY_MOST_S = 1.0, 30.0


class Event(NamedTuple):
    """One result, when it came to this process (seconds since 1970), and its share of a batch."""

    came: float
    item: Item
    size: int = 0  # bytes


class NodeNews(NamedTuple):
    """A change of a node that was seen to happen, and when."""

    came: float
    news: News


class LiveFleet:
    """A context manager: the thread runs between entering and leaving."""

    def __init__(self, connect: Callable[[], AbstractContextManager[Fleet]]) -> None:
        """`connect` is called on the thread, again after each failure; it may wait and raise
        EdgeAgentError."""
        self._connect = connect
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="console", daemon=True)
        self._fleet: Fleet | None = None
        self._view = View()
        self._facts: dict[str, Facts] = {}
        self._events: deque[Event] = deque()
        self._event_bytes = 0
        self._news: deque[NodeNews] = deque(maxlen=MAX_NEWS)
        self._merger = Merger()
        self._problem = "not connected yet"
        self._counted = 0  # the revision of `summary`
        self._count_due = 0.0
        self._revision = 0
        self.name = ""  # of the fleet; "" until the first connection
        self.current = Current(None, None, "")  # the deployment at the broker
        self.names: dict[str, str] = {}  # `NAME VERSION` by digest, of the fleet's folder
        self.summary = Summary()
        self.events_seen = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    # --- for the pages

    @property
    def problem(self) -> str:
        """Why what is shown may be old; "": the broker is connected."""
        fleet = self._fleet
        return self._problem or (fleet.client.trouble if fleet is not None else "")

    @property
    def shown(self) -> tuple[object, ...]:
        """Changes with everything that is shown of nodes and the deployment."""
        return self._counted, self.problem

    def nodes(self) -> list[Facts]:
        """All nodes, by name."""
        with self._lock:
            return [self._facts[name] for name in sorted(self._facts)]

    def node(self, name: str) -> Facts | None:
        """One of them; None: it has no message at the broker."""
        with self._lock:
            return self._facts.get(name)

    def events(self, takes: Callable[[Item], bool], most: int) -> list[Event]:
        """The latest `most` events that `takes` accepts, the newest first."""
        with self._lock:
            kept = list(self._events)
        return list(islice((each for each in reversed(kept) if takes(each.item)), most))

    def news(self, node: str = "", most: int = 50) -> list[NodeNews]:
        """The latest changes while this process watched, of one node or all, the newest first."""
        with self._lock:
            kept = list(self._news)
        return list(islice((each for each in reversed(kept) if node in ("", each.news.node)), most))

    # --- the thread

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                with self._connect() as fleet:
                    failures = 0
                    self._follow(fleet)
            except EdgeAgentError as error:
                failures += 1
                self._problem = str(error)
            except Exception:  # a page then says that it may be old
                failures += 1
                self._problem = "a defect of the console: its log has the details"
                log.exception("following the fleet failed")
            if failures:
                self._stopping.wait(backoff_s(failures, RETRY_LEAST_S, RETRY_MOST_S))

    def _follow(self, fleet: Fleet) -> None:
        """Take what comes, until the end. LinkError, OperatorError."""
        with self._lock:
            self._fleet, self.name = fleet, fleet.settings.name
            self._view, self._facts = View(fleet.enrolment), {}
            self.names = releases.named(fleet.folder)
        self._problem = READING
        self._deployed(fleet.current(proven=False))
        for message in _messages(fleet, self._stopping):
            if message is not None:
                self._take(fleet, message)
            else:
                self._problem = ""
            if self._revision != self._counted and time.monotonic() >= self._count_due:
                self._count()

    def _take(self, fleet: Fleet, message: Received) -> None:
        if message.topic == fleet.topics.trust:
            fleet.follow_trust(message.payload)
            self._deployed(fleet.believed(self.current.raw))
        elif message.topic == fleet.topics.deployment:
            if message.payload != self.current.raw:
                self.names = releases.named(fleet.folder)
                self._deployed(fleet.believed(message.payload or None))
        elif message.topic.endswith("/results"):
            self._results(message)
        else:
            self._node_said(message, fleet.trust.version)

    def _deployed(self, current: Current) -> None:
        self.current = current
        self._revision += 1

    def _results(self, message: Received) -> None:
        now = time.time()
        items = list(self._merger.feed(message.topic, message.payload))
        with self._lock:
            self.events_seen += len(items)
            for item in items:
                self._keep(Event(now, item, len(message.payload) // len(items)))
            if items and (known := self._facts.get(items[0].node)) is not None:
                known.seen = now

    def _keep(self, event: Event) -> None:
        self._events.append(event)
        self._event_bytes += event.size
        while len(self._events) > MAX_EVENTS or self._event_bytes > MAX_EVENT_BYTES:
            self._event_bytes -= self._events.popleft().size

    def _node_said(self, message: Received, trust_version: int) -> None:
        named = read_node_topic(message.topic)
        if named is None:
            return
        name, now = named[0], time.time()
        known = self._view.nodes.get(name)
        before = snapshot(known) if known is not None else NOTHING
        node = self._view.feed(message)
        self._revision += 1
        if name not in self._view.nodes:  # removed from the fleet
            with self._lock:
                self._facts.pop(name, None)
            return
        if node is None:  # an old will
            return
        seen = self._facts[name].seen if name in self._facts else 0.0
        made = facts(
            node, self._view, self.names, trust_version, now, seen if message.retained else now
        )
        with self._lock:
            self._facts[name] = made
            if not message.retained:
                told = news(name, before, snapshot(node), self.names)
                self._news.extend(NodeNews(now, each) for each in told)

    def _count(self) -> None:
        """Pages count nothing over all nodes themselves."""
        began, revision = time.monotonic(), self._revision
        self.summary = summary(list(self._facts.values()), self._view, self.current)
        self._counted = revision
        now = time.monotonic()
        self._count_due = now + SHARE * (now - began)


def _messages(fleet: Fleet, stopping: threading.Event) -> Iterator[Received | None]:
    """What nodes and operators say, beginning with all that the broker keeps; None after that, and
    from time to time without a message."""
    leaves = ("status", "state", "results")
    topics = (fleet.topics.trust, fleet.topics.deployment)
    wanted = (*topics, *(f"{fleet.nodes_topic}/+/{leaf}" for leaf in leaves))
    with fleet.client.subscribed(wanted, latest=("status", "state")) as subscription:
        due = 0.0
        while not stopping.is_set():
            if time.monotonic() >= due:
                found = read_nodes(fleet.client, fleet.nodes_topic, proven=False)
                for topic, payload in found.items():
                    yield Received(topic, payload, True)
                due = time.monotonic() + REREAD_S
                yield None
            yield subscription.take(LOOK_S)
