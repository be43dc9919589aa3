"""The way to the fleet and back: one link, what is said over it, what is asked through it.

Imported only where a broker is configured: a node that works alone pays for none of it.
"""

import binascii
import json
import logging
import time
from collections.abc import Callable, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any, cast

from edge_agent.config import AgentConfig
from edge_agent.errors import StoreError
from edge_agent.fleet_protocol.outcome import OK, Outcome
from edge_agent.fleet_protocol.result_records import describe
from edge_agent.fleet_protocol.state_truncation import MAX_BYTES, METRICS, STATE, condensed
from edge_agent.fleet_protocol.topics import RequestFor, Router, fleet_topics, node_topics
from edge_agent.logs import RECORD_BYTES, message_of, plugin_of
from edge_agent.loop import Loop
from edge_agent.mqtt.inbound import InboundMessage
from edge_agent.mqtt.link import Link
from edge_agent.node.nodekey import NodeKey
from edge_agent.node.recent import Recent
from edge_agent.node.requests import Action, Requests, Ticket, answer
from edge_agent.store import files

if TYPE_CHECKING:
    from edge_agent.node.updates import Updates

log = logging.getLogger(__name__)

MAX_TICKET_BYTES = 4096


class Remote:
    """`actions` carry requests out, on the loop; `state` is called on the link's thread."""

    def __init__(
        self,
        loop: Loop,
        config: AgentConfig,
        state: Callable[[], Mapping[str, Any]],
        actions: Mapping[str, Action],
        recent: Recent,
        key: NodeKey,
    ) -> None:
        assert config.mqtt is not None
        self.key = key
        self._fleet = config.fleet
        self._numbers = count(1)  # of states, since the agent began
        self.restarted = False  # as the fleet asked
        self._updates: Updates | None = None
        topics = node_topics(config.fleet, config.node)
        self._router = Router(fleet_topics(config.fleet), topics)
        self._requests = Requests(loop, topics.response, self._publish, actions, config.requests)
        self._ticket_file = config.state_dir / "restart.json"
        self.link = Link(
            config.mqtt,
            config.node,
            config.fleet,
            describe=lambda item: describe(cast(Outcome, item)),
            state=lambda: self._told(state()),
            metrics=lambda: condensed(self._metrics(state()), MAX_BYTES, METRICS),
            state_dir=config.state_dir,
            received=self._received,
            seal=key.seal,
        )
        self.link.subscribe(self._router.requests)
        logger = logging.getLogger("edge_agent")
        logger.addHandler(recent)
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
        """Who gets deployments, trust and parts of blobs, and knows whose signatures count."""
        self._updates = updates
        self._requests.vouch = updates.vouch

    def report(self, outcome: Outcome) -> None:
        """A result on its way; never waits."""
        self.link.report(outcome, outcome.size, important=outcome.kind != OK)

    def keep(self, ticket: Ticket) -> None:
        """Answer this request after the restart that it asks for. Writes a file. StoreError."""
        correlation = None if ticket.correlation is None else ticket.correlation.hex()
        document = {**ticket._asdict(), "correlation": correlation}
        files.make_folder(self._ticket_file.parent)
        files.write(self._ticket_file, json.dumps(document).encode())

    def answer_kept(self) -> None:
        """The restart is over: say so to who asked for it, once. Reads a file, so before the
        loop runs; and before the link does, to which the same request may come again."""
        try:
            kept = files.read(self._ticket_file, MAX_TICKET_BYTES)
        except StoreError as error:
            log.warning("%s", error)
            kept = b""
        if kept is None:
            return
        self.restarted = True
        files.remove(self._ticket_file)
        ticket = _ticket(kept)
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


def _ticket(kept: bytes) -> Ticket | None:
    """None for a file that a crash or somebody else left behind."""
    try:
        found = json.loads(kept)
        correlation = found["correlation"]
        return Ticket(
            str(found["id"]),
            str(found["verb"]),
            str(found["topic"]),
            None if correlation is None else binascii.unhexlify(correlation),
        )
    except (ValueError, TypeError, LookupError, RecursionError):
        return None


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
