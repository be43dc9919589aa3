"""What a fleet's broker keeps, and the proof that it keeps nothing more."""

import os
import time
from collections.abc import Iterable
from itertools import takewhile

from edge_agent.errors import LinkError
from edge_agent.operator.broker_connection import BrokerConnection, NotAllowedError
from edge_agent.operator.subscription import Quiet, until
from edge_agent.operator.toolclient import hint

# Retained messages have no end mark in MQTT. Silence of this length ends a listing only after a
# message of our own, published after the subscription, has come back (docs/adr/0042).
QUIET_S = 0.4
ASK_S = 0.05  # of silence, before that message is sent
MARK_TIMEOUT_S = 20.0  # until it must be back
# Mosquitto 2.0 drops answers too while 1,000 packets wait for a client that reads slowly: what
# belongs to a mark, which brings nothing that is kept, is said again.
MARK_AGAIN_S = 4.0
# The silence that ends a listing for who only looks, where the broker takes no such message.
UNPROVEN_QUIET_S = 2.0
ATTEMPTS = 3  # at reading what the broker keeps, when the connection breaks meanwhile


class BrokerClient(BrokerConnection):
    """A context manager: connected inside. Its methods may be called by any thread."""

    may_mark = True  # False once the broker did not take or bring back a mark

    def retained(
        self, filters: Iterable[str], quiet_s: float = QUIET_S, *, proven: bool = True
    ) -> dict[str, bytes]:
        """What the broker keeps at the topics that match, by topic; all of it, or LinkError.

        Over at once when each filter is a plain topic and has something. `proven` as in `proof`.
        """
        filters = tuple(filters)
        exact = not any("+" in each or "#" in each for each in filters)
        for _ in range(ATTEMPTS):
            connection, found = self.connections, dict[str, bytes]()
            with self.subscribed(filters) as subscription:
                quiet, marked = Quiet(subscription, min(quiet_s, ASK_S), flagged=not exact), False
                while not (exact and len(found) == len(filters)):
                    message = quiet.take()
                    if message is not None:
                        if message.retained or exact:  # else perhaps somebody's mark
                            found[message.topic] = message.payload
                    elif marked:
                        break
                    else:
                        quiet.again(self.proof(filters[0], quiet_s, proven))
                        marked = True
            found = {topic: payload for topic, payload in found.items() if payload}
            # What came over a connection that broke may be a part of it only.
            if connection == self.connections and not self._lost:
                return found
        raise LinkError(f"{self.url}: the connection breaks each time; the last was: {self._lost}")

    def kept(self, topic: str, quiet_s: float = QUIET_S, *, proven: bool = True) -> bytes | None:
        """What the broker keeps at one topic; None if it is proven that there is nothing."""
        return self.retained((topic,), quiet_s, proven=proven).get(topic)

    def proof(self, beside: str, quiet_s: float, proven: bool = True) -> float:
        """Mark the end of what is kept at `beside`; the silence after it, in s, that ends it.

        With `proven` False, for who only looks and from whose listing nothing follows, an account
        that may not write marks waits longer instead: `may_mark` says so. LinkError.
        """
        if proven or self.may_mark:
            try:
                self.mark(beside)
            except NotAllowedError:
                self.may_mark = False
                if proven:
                    raise
            else:
                return quiet_s
        return max(quiet_s, UNPROVEN_QUIET_S)

    def mark(self, beside: str) -> None:
        """Publish something and wait until it comes back: the broker has answered all before.

        In the fleet of the topic or filter `beside`, where the operator may write and no node
        reads. LinkError if it does not come back: then nobody knows what the broker keeps.
        """
        topic = mark_topic(beside, self._config.client_id)
        nonce = os.urandom(8).hex().encode()
        end = time.monotonic() + MARK_TIMEOUT_S
        with self.subscribed((topic,), again_s=MARK_AGAIN_S) as marks:
            while True:
                if refusal := self.offer(topic, nonce, MARK_AGAIN_S):
                    raise NotAllowedError(
                        f"{self.url}: {topic}: the broker refuses it: {refusal}{hint(refusal)}"
                    )
                left = max(0.0, end - time.monotonic())
                for message in until(marks, min(left, MARK_AGAIN_S)):
                    if self._keep_session_s:
                        self.acknowledge(message)
                    if message.payload == nonce:
                        return
                if left < MARK_AGAIN_S:
                    break
        raise NotAllowedError(
            f"{self.url}: the broker is too slow, or lets this operator not read {topic}: what it"
            f" keeps at {beside} is not known"
        )


def mark_topic(beside: str, name: str) -> str:
    """Below `blobs` of the same fleet: `configs/mosquitto/acl` lets the operator write there."""
    plain = takewhile(lambda level: level not in "+#", beside.split("/")[:3])
    return "/".join((*plain, "blobs", "mark", name))


def client_id() -> str:
    """An id that no other client has; every broker takes 23 letters and digits."""
    return f"edgeop{os.urandom(8).hex()}"
