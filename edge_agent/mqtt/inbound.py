"""Messages from the broker: which topics are subscribed, which messages are accepted. No I/O.

The broker is not trusted. A message is taken on a topic that is wanted; one that was in
flight when its topic was given up is passed over, and so is one of a session that the
broker kept from an earlier life of this node, whose topic is then given up once more.
Anything else is a broker that breaks the rules, and is left.

`want` and `unwant` come from any thread; everything else belongs to the link's. A topic
that is wanted is asked for on each new connection, whatever session the broker kept: its
retained message then comes again, which makes up for whatever a broker forgot.
"""

import logging
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from edge_agent.errors import LinkError
from edge_agent.fleet_protocol.topics import NodeTopics, is_plain
from edge_agent.mqtt.channels import ACKNOWLEDGE_TIMEOUT_S
from edge_agent.pacing import backoff_s

logger = logging.getLogger(__name__)

# AWS IoT Core's, the narrowest of the common brokers.
TOPICS_AT_ONCE = 8
# A message may be on its way while its topic is given up. Far more than are given up in a
# moment; those given up before that come no more.
FORMER_TOPICS = 256
# Topics of an earlier life that a kept session may bring up on one connection: an update's
# window of parts, requests, the deployment, and as much again. All are given up once more.
STRANGERS = 64
# Comes back with the answer, beside it in one message. Usually an identifier.
MAX_CORRELATION_BYTES = 256
# Lines of log about what arrives, in the life of a process: its sender chooses how often.
TELL_AT_MOST = 64


class SubscribingWire(Protocol):
    """The part of a connection that is needed here."""

    def subscribe(self, topics: Sequence[str]) -> int:
        """Ask for `topics` at QoS 1; returns the packet id. Raises LinkError."""

    def unsubscribe(self, topics: Sequence[str]) -> int:
        """Give `topics` up; returns the packet id. Raises LinkError."""


class _Asked(NamedTuple):
    topics: Sequence[str]
    subscribing: bool
    at: float


class _Refused(NamedTuple):
    times: int
    until: float
    last_error: str


class Subscriptions:
    """The wanted topics, kept over connections; `least_s` and `most_s` are for refused ones."""

    def __init__(self, least_s: float, most_s: float) -> None:
        self._least_s = least_s
        self._most_s = most_s
        # Shared with the threads that want topics.
        self._lock = threading.Lock()
        self._wanted: dict[str, None] = {}
        self._anew: set[str] = set()  # to be asked for again: their retained message is due
        self._changed = False
        # The link's thread's own.
        self._wire: SubscribingWire | None = None
        self._held: set[str] = set()  # asked for on this connection
        self._kept: set[str] = set()  # asked for on those before, until the first step on this one
        self._asked: dict[int, _Asked] = {}
        self._refused: dict[str, _Refused] = {}
        self._former: dict[str, bool] = {}  # given up; True: the broker does not know it yet
        self._strangers = 0

    def want(self, topics: Iterable[str], *, anew: bool = False) -> bool:
        """Any thread. True: wake the link's thread. ValueError for a pattern or no topic.

        `anew`: what is retained is to come again where a topic is wanted already. The broker is
        asked once more and not told to forget before: aedes 1.2 carries out an UNSUBSCRIBE after
        the SUBSCRIBE that follows, and the node would hear nothing from then on.
        """
        topics = list(topics)
        for topic in topics:
            if not is_plain(topic):
                raise ValueError(f"{topic!r}: not a topic that a node subscribes to")
        with self._lock:
            new = [topic for topic in topics if anew or topic not in self._wanted]
            self._wanted.update(dict.fromkeys(new))
            self._anew.update(new)
            self._changed = self._changed or bool(new)
        return bool(new)

    def unwant(self, topics: Iterable[str]) -> bool:
        """Any thread. True: wake the link's thread."""
        with self._lock:
            old = [topic for topic in topics if topic in self._wanted]
            for topic in old:
                del self._wanted[topic]
            self._changed = self._changed or bool(old)
        return bool(old)

    @property
    def last_error(self) -> str:
        """What the broker refuses at present, for the operator; empty: nothing."""
        return next((refused.last_error for refused in self._refused.values()), "")

    def wants(self, topic: str) -> bool:
        """Whether a message on `topic` is to be taken."""
        return topic in self._wanted

    def expects(self, topic: str) -> bool:
        """Whether a message on `topic`, which is not wanted, is no offence."""
        # Given up; or given up a moment ago, and the next step tells the broker.
        if topic in self._former or topic in self._held or topic in self._kept:
            return True
        if not self._strangers or not is_plain(topic):
            return False
        self._strangers -= 1
        self._give_up([topic])
        self._changed = True
        return True

    def opened(self, wire: SubscribingWire, session_kept: bool) -> None:
        """A connection was accepted; `session_kept`: the broker knows this node's last topics."""
        self._wire = wire
        self._strangers = STRANGERS if session_kept else 0
        if session_kept:
            # A connection that broke may have taken the word with it that they are given up.
            self._former = dict.fromkeys(self._former, True)
        else:
            self._former.clear()
            self._kept.clear()
        self._changed = True

    def closed(self) -> None:
        """The connection is gone, and with it every answer."""
        self._wire = None
        self._strangers = 0
        self._kept |= self._held
        self._held.clear()
        self._asked.clear()
        self._refused.clear()

    def step(self, now: float) -> float:
        """Tell the broker what changed; returns when to come back. Raises LinkError."""
        if self._wire is None:
            return math.inf
        for asked in self._asked.values():
            if now - asked.at > ACKNOWLEDGE_TIMEOUT_S:
                raise LinkError(
                    f"the broker did not answer a subscription to {asked.topics[0]}"
                    f" for {ACKNOWLEDGE_TIMEOUT_S:.0f} s"
                )
        if self._changed or now >= self._retry_at():
            self._tell(self._wire, now)
        oldest = min((asked.at for asked in self._asked.values()), default=math.inf)
        return min(self._retry_at(), oldest + ACKNOWLEDGE_TIMEOUT_S)

    def answered(self, packet_id: int, refusals: Sequence[str], now: float) -> None:
        """The broker answered; `refusals` has a reason for each topic, "" for one granted.

        Raises LinkError for an answer that does not fit what was asked.
        """
        asked = self._asked.pop(packet_id, None)
        if asked is None or not asked.subscribing:
            return
        if len(refusals) != len(asked.topics):
            raise LinkError(
                f"the broker answered for {len(refusals)} of {len(asked.topics)} topics"
            )
        for topic, refusal in zip(asked.topics, refusals, strict=True):
            before = self._refused.pop(topic, None)
            if refusal and topic in self._held:
                self._held.discard(topic)
                times = before.times + 1 if before else 1
                self._refused[topic] = _Refused(
                    times,
                    now + backoff_s(times, self._least_s, self._most_s),
                    f"the broker refuses the subscription to {topic}: {refusal};"
                    " its access list must let this node read there",
                )

    def _retry_at(self) -> float:
        return min((refused.until for refused in self._refused.values()), default=math.inf)

    def _tell(self, wire: SubscribingWire, now: float) -> None:
        with self._lock:
            self._changed = False
            wanted, anew = list(self._wanted), self._anew
            self._anew = set()
        self._held -= anew
        gone = self._held.union(self._refused).difference(wanted)
        self._give_up(self._kept.union(gone & self._held).difference(wanted))
        self._kept.clear()
        self._held -= gone
        for topic in gone:
            self._refused.pop(topic, None)
        for topic in wanted:
            self._former.pop(topic, None)
        for group in _groups([topic for topic, unknown in self._former.items() if unknown]):
            self._asked[wire.unsubscribe(group)] = _Asked(group, False, now)
            self._former.update(dict.fromkeys(group, False))
        missing = [topic for topic in wanted if topic not in self._held]
        due = [
            topic
            for topic in missing
            if topic not in self._refused or self._refused[topic].until <= now
        ]
        for group in _groups(due):
            self._held.update(group)
            self._asked[wire.subscribe(group)] = _Asked(group, True, now)
        for topic in due:
            if topic in self._refused:  # the next answer says when to try again
                self._refused[topic] = self._refused[topic]._replace(until=math.inf)

    def _give_up(self, topics: Iterable[str]) -> None:
        for topic in topics:
            self._former.pop(topic, None)
            self._former[topic] = True
        while len(self._former) > FORMER_TOPICS:
            del self._former[next(iter(self._former))]


def _groups(topics: Sequence[str]) -> list[Sequence[str]]:
    return [topics[at : at + TOPICS_AT_ONCE] for at in range(0, len(topics), TOPICS_AT_ONCE)]


# --- messages


class InboundMessage(NamedTuple):
    """One message. `retained`: it was there before this node asked for its topic.

    The same message may come twice, and more often after a broken connection.
    """

    topic: str
    payload: bytes
    retained: bool
    response_topic: str | None  # None also where no answer may go
    correlation: bytes | None


Received = Callable[[InboundMessage], None]


class Inbound:
    """Hands what is taken to `received`, on the link's thread."""

    def __init__(
        self, subscriptions: Subscriptions, topics: NodeTopics, received: Received
    ) -> None:
        self.taken = 0
        self.passed_over = 0
        self._subscriptions = subscriptions
        self._topics = topics
        self._received = received
        self._reported: set[str] = set()

    def arrived(self, message: InboundMessage) -> str:
        """Take it or pass it over; "" or why the broker is to be left."""
        problem = self._wanted(message.topic)
        if problem is not None:
            return problem
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
        """A message was skipped while it came in; "" or why to disconnect."""
        problem = self._wanted(topic)
        if problem is not None:
            return problem
        self.passed_over += 1
        if self._is_new(topic):
            logger.warning("%s: a message of %d bytes is too large and was not read", topic, size)
        return ""

    def _is_new(self, what: str) -> bool:
        if what in self._reported or len(self._reported) >= TELL_AT_MOST:
            return False
        self._reported.add(what)
        return True

    def _wanted(self, topic: str) -> str | None:
        """None: it is; "": pass over; else why the broker is to be left."""
        if self._subscriptions.wants(topic):
            return None
        if self._subscriptions.expects(topic):
            self.passed_over += 1
            return ""
        return f"it sends a message on {topic[:200]!r}, which was not asked for"
