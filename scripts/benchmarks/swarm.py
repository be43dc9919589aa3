"""Many nodes of a fleet in one process, each with its own MQTT connection.

python -m scripts.benchmarks.swarm PORT COUNT FOLDER TRUST_DIR    "ready", then until stdin closes

A node here is the real one in everything that its fleet sees: deployment rules, transfer,
store, catalogue (edge_agent.fleet, edge_agent.store), subscriptions, state, status and metrics
(edge_agent.mqtt). What is missing are the threads, of which one does for all, and the host:
what is to run runs at once, and proves itself at once.
"""

import heapq
import itertools
import math
import resource
import select
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edge_agent.config import MqttConfig, UpdatesConfig
from edge_agent.config.model import Broker
from edge_agent.fleet.plan import Node, Plan
from edge_agent.fleet.updater import Updater
from edge_agent.fleet_protocol.topics import DocumentOf, PartOf, Router, fleet_topics, node_topics
from edge_agent.mqtt.connection import VERSIONS, Connection
from edge_agent.mqtt.inbound import Inbound, InboundMessage, Subscriptions
from edge_agent.mqtt.outbound import Outbound
from edge_agent.store.layout import Layout
from edge_agent.store.release import Release

FLEET = "bench"
READY = "ready"
LEAST_S, MOST_S = 1.0, 60.0  # the link's own


class SwarmNode:
    """One node. Everything on the one thread of the swarm."""

    def __init__(self, folder: Path, name: str, port: int, trust_dir: Path) -> None:
        topics = fleet_topics(FLEET)
        config = MqttConfig((Broker("127.0.0.1", port, False),), name)
        self._subscriptions = Subscriptions(LEAST_S, MOST_S)
        self._runs: tuple[Release, ...] = ()
        self._proven: list[Release] = []
        self._updater = Updater(
            node=Node(name, FLEET, {}),
            config=UpdatesConfig(trust_dir=trust_dir),
            layout=Layout(folder),
            catalogue_path=folder / "catalogue.json",
            topics=topics,
            broker=self,
            activate=self._activate,
            changed=lambda: None,
            wake=lambda: None,
            clock=time.time,
            monotonic=time.monotonic,
        )
        self._outbound = Outbound(config, name, FLEET, lambda _item: None, self._state, dict, None)
        self._outbound.begin(1, time.monotonic())
        own = node_topics(FLEET, name)
        self._router = Router(topics, own)
        inbound = Inbound(self._subscriptions, own, self._received)
        self._name = name
        self.connection = Connection(
            *(config.brokers[0], config, VERSIONS[0], config.client_id),
            *(self._outbound.status.will(), inbound),
        )
        self.due = 0.0

    def open(self) -> None:
        """Connect, and read what the disk says."""
        self._updater.start()
        self.connection.open()
        poll = select.poll()
        poll.register(self.connection.fileno(), select.POLLIN)
        while not self.connection.accepted:
            poll.poll(1000)
            self.connection.ready(True, True)
        now = time.monotonic()
        self._outbound.opened(self.connection, now)
        self._subscriptions.opened(self.connection, self.connection.session_kept)

    def turn(self, readable: bool, writable: bool) -> None:
        """Do what is due; `due` is when to come back."""
        now = time.monotonic()
        connection = self.connection
        connection.ready(readable or connection.has_read, writable)
        connection.tick(now)
        for packet_id, refusals in connection.take_answers():
            self._subscriptions.answered(packet_id, refusals, now)
            self._outbound.publisher.acknowledged(packet_id, "".join(refusals[:1]), now)
        due = self._updater.step(now)
        while self._proven:
            wanted = self._proven.pop()
            self._updater.verdict(wanted.identity, wanted.digest, True, "it runs")
            due = self._updater.step(now)
        due = min(due, self._subscriptions.step(now), self._outbound.step(now))
        self.due = min(due, connection.tick_due, connection.read_due(now) or math.inf)

    # --- what the updater is given

    def subscribe(self, topics: Iterable[str], *, anew: bool = False) -> None:
        self._subscriptions.want(topics, anew=anew)

    def unsubscribe(self, topics: Iterable[str]) -> None:
        self._subscriptions.unwant(topics)

    def _received(self, incoming: InboundMessage) -> None:
        what = self._router.route(incoming.topic)
        if isinstance(what, DocumentOf | PartOf):
            self._updater.received(what, incoming.payload)

    def _activate(self, plan: Plan) -> None:
        self._runs = plan.releases
        self._proven = [wanted for wanted in plan.releases if wanted.on_probation]
        self._outbound.state_changed()

    def _state(self) -> dict[str, Any]:
        return {
            "agent": "swarm",
            "node": self._name,
            "labels": {},
            "plugins": [
                {
                    "name": wanted.name,
                    "index": wanted.index,
                    "version": wanted.version,
                    "digest": wanted.digest,
                    "status": "probation" if wanted.on_probation else "running",
                }
                for wanted in self._runs
            ],
            "updates": self._updater.status(),
        }


class Swarm:
    """All of them, and when each has something to do."""

    def __init__(self, nodes: list[SwarmNode]) -> None:
        self._epoll = select.epoll()
        self._by_fd = {node.connection.fileno(): node for node in nodes}
        self._due: list[tuple[float, int, SwarmNode]] = []
        self._order = itertools.count()
        for fd in self._by_fd:
            self._epoll.register(fd, select.EPOLLIN)
        for node in nodes:
            self._turn(node, False, False)

    def run(self) -> None:
        """Until stdin closes."""
        self._epoll.register(sys.stdin.fileno(), select.EPOLLIN | select.EPOLLHUP)
        while True:
            until = max(0.0, self._due[0][0] - time.monotonic()) if self._due else 60.0
            for fd, events in self._epoll.poll(min(until, 60.0)):
                if fd == sys.stdin.fileno():
                    return
                self._turn(self._by_fd[fd], True, bool(events & select.EPOLLOUT))
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                when, _, node = heapq.heappop(self._due)
                if when == node.due:
                    self._turn(node, False, False)

    def _turn(self, node: SwarmNode, readable: bool, writable: bool) -> None:
        before = node.due
        node.turn(readable, writable)
        wanted = select.EPOLLIN | (select.EPOLLOUT if node.connection.wants_write else 0)
        self._epoll.modify(node.connection.fileno(), wanted)
        if node.due != before and node.due < math.inf:
            heapq.heappush(self._due, (node.due, next(self._order), node))


def main(port: int, count: int, folder: Path, trust_dir: Path) -> None:
    """Connect `count` nodes, say so, serve them."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    nodes = [
        SwarmNode(folder / f"node-{number}", f"node-{number}", port, trust_dir)
        for number in range(count)
    ]
    for node in nodes:
        node.open()
    swarm = Swarm(nodes)
    print(READY, flush=True)
    swarm.run()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *map(Path, sys.argv[3:5]))
