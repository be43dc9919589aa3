"""The node at its fleet's broker: results, states and logs out, requests and documents in.

Imported only where a broker is configured: a node that works alone pays for none of it.
"""

import logging
import time
from collections.abc import Callable, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any, cast

from edge_agent.config import AgentConfig
from edge_agent.fleet_protocol import requests as protocol
from edge_agent.fleet_protocol.event_result import (
    ORDINARY,
    EventResult,
    describe,
    load_messages,
)
from edge_agent.fleet_protocol.reported_state import MAX_BYTES, METRICS, STATE, condensed
from edge_agent.fleet_protocol.topics import RequestFor, Router, fleet_topics, node_topics
from edge_agent.logs import RECORD_BYTES, message_of, plugin_of
from edge_agent.loop import Loop
from edge_agent.mqtt.inbound import InboundMessage
from edge_agent.mqtt.link import Link
from edge_agent.node.actions import LogBuffer
from edge_agent.node.nodekey import NodeKey
from edge_agent.node.requests import Action, Job, Requests, Restart, answer

if TYPE_CHECKING:
    from edge_agent.node.updates import Updates

log = logging.getLogger(__name__)

SPARE_ANSWERS = 8  # places that parts leave to other answers


class Remote:
    """`actions` carry requests out, on the loop; `state` is called on the link's thread."""

    def __init__(
        self,
        loop: Loop,
        config: AgentConfig,
        state: Callable[[], Mapping[str, Any]],
        actions: Mapping[str, Action],
        log_buffer: LogBuffer,
        key: NodeKey,
        restart: Restart,
    ) -> None:
        assert config.mqtt is not None
        load_messages()
        self.key = key
        self.restart = restart
        self._fleet = config.fleet
        self._numbers = count(1)  # of states, since the agent began
        self._updates: Updates | None = None
        topics = node_topics(config.fleet, config.node)
        self._router = Router(fleet_topics(config.fleet), topics)
        self._requests = Requests(loop, topics.response, self._publish, actions, config.requests)
        self.link = Link(
            config.mqtt,
            config.node,
            config.fleet,
            describe=lambda item: describe(cast(EventResult, item)),
            state=lambda: self._told(state()),
            metrics=lambda: condensed(self._metrics(state()), MAX_BYTES, METRICS),
            state_dir=config.state_dir,
            received=self._received,
            seal=key.seal,
        )
        self.link.subscribe(self._router.requests)
        logger = logging.getLogger("edge_agent")
        logger.addHandler(log_buffer)
        logger.addHandler(_LinkHandler(self.link))

    def _told(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """What is signed beside the state itself, so that no old one passes for a new one. On the
        link's thread."""
        said = {"fleet": self._fleet, "number": next(self._numbers), "time": int(time.time())}
        return {**said, **condensed(state, MAX_BYTES, STATE)}

    def _metrics(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """On the link's thread."""
        counts = {name: told for name, told in self.link.status().items() if isinstance(told, int)}
        return {"time": time.time(), **state, "mqtt": counts}

    def fleet(self, updates: "Updates") -> None:
        """Pass deployments, trust and parts of blobs to `updates`, which also checks signatures."""
        self._updates = updates
        self._requests.verify = updates.verify_request

    def report(self, result: EventResult) -> None:
        """A result on its way; never waits."""
        self.link.report(result, result.size, important=result.kind not in ORDINARY)

    def offer(self, job: Job, result: Mapping[str, object]) -> bool:
        """Send a part of a large answer; False: too many answers wait, try again. Any thread."""
        payload = protocol.answer(job.ticket.id, job.ticket.verb, "running", result=result)
        topic, correlation = job.ticket.topic, job.ticket.correlation
        return self.link.publish(topic, payload, correlation=correlation, spare=SPARE_ANSWERS)

    def answer_kept(self) -> None:
        """Where this process began because a request asked for it: say so, once. Reads a file, so
        before the loop runs; and before the link does, to which the same request may come again."""
        ticket = self.restart.kept()
        if ticket is not None:
            self._requests.carried_out(ticket)
            answer(self._publish, ticket, "succeeded")

    def _received(self, incoming: InboundMessage) -> None:
        what = self._router.route(incoming.topic)
        if isinstance(what, RequestFor):
            self._requests.received(what.verb, incoming)
        elif what is not None and self._updates is not None:
            self._updates.received(what, incoming.payload)

    def _publish(self, topic: str, payload: bytes, correlation: bytes | None) -> None:
        try:
            taken = self.link.publish(topic, payload, correlation=correlation)
        except ValueError as error:  # of a ticket that was damaged
            log.warning("an answer is dropped: %s", error)
            return
        if not taken:
            log.warning("an answer to %s is dropped: too many wait", topic)


class _LinkHandler(logging.Handler):
    """Warnings and errors go to the fleet too, except the link's own."""

    def __init__(self, link: Link) -> None:
        super().__init__(logging.WARNING)
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith("edge_agent.mqtt"):
            message = message_of(record)
            line = {"time": record.created, "level": record.levelname.lower(), "message": message}
            plugin = plugin_of(record)
            size = RECORD_BYTES + len(message)
            self._link.log({**line, "plugin": plugin} if plugin else line, size)
