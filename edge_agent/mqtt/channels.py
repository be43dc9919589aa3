"""What a node publishes: for each topic, what goes out next and when. No I/O, no clock."""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from edge_agent.mqtt.outbox import MESSAGE_BYTES, Batch, Outbox
from edge_agent.mqtt.packing import pack_json

log = logging.getLogger(__name__)

Document = Mapping[str, object]

# A plugin that flaps must not become a stream of state documents: fleet protocol.
STATE_INTERVAL_S = 1.0
# Enough to keep a link with a long way to the broker busy, 256 KiB at most.
RESULTS_WINDOW = 4


class Channel(ABC):
    """One topic. `due` is the monotonic time from which `take` gives something to send."""

    def __init__(self, topic: str, *, retain: bool, window: int = 1) -> None:
        self.topic = topic
        self.retain = retain
        self.window = window  # messages that may wait for their acknowledgement
        self.due = math.inf

    @abstractmethod
    def take(self, now: float, max_bytes: int) -> tuple[bytes, Batch | None] | None:
        """The next payload, with what `acknowledged` wants back; None: nothing after all."""

    @abstractmethod
    def opened(self, now: float) -> None:
        """A new connection is there: a broker may know nothing yet."""

    def acknowledged(self, batch: Batch | None) -> None:  # noqa: B027 - most keep nothing
        """The broker has it."""

    def lost(self, now: float) -> None:
        """What was not acknowledged has to go out again."""
        self.opened(now)


class StatusChannel(Channel):
    """`online`, `offline`, and `lost` as the will, each with the connection's number.

    The number grows with each connection, so a will that arrives late is recognised.
    """

    def __init__(self, topic: str, version: str, session: int) -> None:
        super().__init__(topic, retain=True)
        self.session = session
        self._version = version
        self._status = "online"

    def will(self) -> tuple[str, bytes]:
        """Topic and payload for the next connection, which is a new session."""
        self.session += 1
        return self.topic, pack_json({"status": "lost", "session": self.session})

    def opened(self, now: float) -> None:
        self.due = now

    def say_offline(self, now: float) -> None:
        """The last word."""
        self._status = "offline"
        self.due = now

    def take(self, now: float, max_bytes: int) -> tuple[bytes, Batch | None]:  # noqa: ARG002
        self.due = math.inf
        said = {"status": self._status, "session": self.session, "version": self._version}
        return pack_json(said), None


class DocumentChannel(Channel):
    """A JSON document made when it goes out, at most every `interval_s` seconds.

    With `repeat` it goes out that often; without, when `changed` was called.
    """

    def __init__(
        self,
        topic: str,
        make: Callable[[], Document],
        *,
        retain: bool,
        interval_s: float,
        repeat: bool,
    ) -> None:
        super().__init__(topic, retain=retain)
        self._make = make
        self._interval_s = interval_s
        self._repeat = repeat
        self._last = -math.inf

    def opened(self, now: float) -> None:
        self.changed(now)

    def changed(self, now: float) -> None:
        """Send it as soon as the interval allows."""
        self.due = min(self.due, max(now, self._last + self._interval_s))

    def take(self, now: float, max_bytes: int) -> tuple[bytes, Batch | None] | None:
        self._last = now
        self.due = now + self._interval_s if self._repeat else math.inf
        try:
            payload = pack_json(self._make())
        except Exception:
            # A defect in what is told must not end the telling of everything else.
            log.exception("no document for %s", self.topic)
            return None
        if len(payload) > min(max_bytes, MESSAGE_BYTES):
            log.error("not sent to %s: %d bytes are too many", self.topic, len(payload))
            return None
        return payload, None


class OutboxChannel(Channel):
    """The batches of an outbox."""

    def __init__(self, topic: str, outbox: Outbox, window: int) -> None:
        super().__init__(topic, retain=False, window=window)
        self._outbox = outbox

    def look(self, now: float) -> None:
        """Due when something is packed."""
        self.due = now if self._outbox.packed else math.inf

    def opened(self, now: float) -> None:
        self._outbox.rewind()
        self.look(now)

    def take(self, now: float, max_bytes: int) -> tuple[bytes, Batch | None] | None:
        batch = self._outbox.take(min(max_bytes, MESSAGE_BYTES))
        self.look(now)
        return (batch.payload, batch) if batch else None

    def acknowledged(self, batch: Batch | None) -> None:
        if batch is not None:
            self._outbox.acknowledge(batch)
