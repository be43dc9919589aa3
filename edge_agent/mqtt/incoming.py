"""What arrives from the broker: which messages are taken, and handing them on. No I/O.

The broker is not trusted. A message is taken on a topic that is wanted; one that was in
flight when its topic was given up is passed over, and so is one of a session that the
broker kept from an earlier life of this node, whose topic is then given up once more.
Anything else is a broker that breaks the rules, and is left.
"""

import logging
from collections.abc import Callable
from typing import NamedTuple

from edge_agent.mqtt.subscriptions import Subscriptions
from edge_agent.mqtt.topics import NodeTopics

logger = logging.getLogger(__name__)

# Comes back with the answer, beside it in one message. Usually an identifier.
MAX_CORRELATION_BYTES = 256
# Lines of log about what arrives, in the life of a process: whoever sends it chooses how often.
TELL_AT_MOST = 64


class Incoming(NamedTuple):
    """One message. `retained`: it was there before this node asked for its topic.

    The same message may come twice, and more often after a broken connection.
    """

    topic: str
    payload: bytes
    retained: bool
    response_topic: str | None  # None also where no answer may go
    correlation: bytes | None


Received = Callable[[Incoming], None]


class Arrivals:
    """Hands what is taken to `received`, on the link's thread."""

    def __init__(
        self, subscriptions: Subscriptions, topics: NodeTopics, received: Received
    ) -> None:
        self.taken = 0
        self.passed_over = 0
        self._subscriptions = subscriptions
        self._topics = topics
        self._received = received
        self._told: set[str] = set()

    def arrived(self, message: Incoming) -> str:
        """Take it or pass it over; "" or why the broker is to be left."""
        trouble = self._wanted(message.topic)
        if trouble is not None:
            return trouble
        answer = message.response_topic
        if len(message.correlation or b"") > MAX_CORRELATION_BYTES or (
            answer is not None and not self._topics.may_answer_on(answer)
        ):
            message = message._replace(response_topic=None, correlation=None)
        self.taken += 1
        try:
            self._received(message)
        except Exception as error:
            # A defect there must not end the link, nor fill the log.
            if self._is_new(repr(error)):
                logger.exception("a message on %s could not be handed on", message.topic)
        return ""

    def too_large(self, topic: str, size: int) -> str:
        """One was skipped while it came in; "" or why the broker is to be left."""
        trouble = self._wanted(topic)
        if trouble is not None:
            return trouble
        self.passed_over += 1
        if self._is_new(topic):
            logger.warning("%s: a message of %d bytes is too large and was not read", topic, size)
        return ""

    def _is_new(self, what: str) -> bool:
        if what in self._told or len(self._told) >= TELL_AT_MOST:
            return False
        self._told.add(what)
        return True

    def _wanted(self, topic: str) -> str | None:
        """None: it is; "": pass over; else why the broker is to be left."""
        if self._subscriptions.wants(topic):
            return None
        if self._subscriptions.expects(topic):
            self.passed_over += 1
            return ""
        return f"it sends a message on {topic[:200]!r}, which was not asked for"
