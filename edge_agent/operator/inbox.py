"""Results, as the broker keeps them for this folder while nobody looks.

A session of its own at the broker (MQTT's clean start off) collects what nodes send; a message is
acknowledged once what came of it was taken and noted, so that an interrupted reader loses nothing.
"""

import math
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from edge_agent.operator.broker import BrokerClient
from edge_agent.operator.fleet import Fleet
from edge_agent.operator.readmarks import ReadMarks
from edge_agent.operator.results import Item
from edge_agent.operator.settings import with_client_id
from edge_agent.operator.subscription import Received

# Of the session: brokers drop it when nobody has come for so long.
KEEP_S = 7 * 86_400
# What waited is here when nothing has come for this long.
QUIET_S = 1.0
BATCH = 100  # messages between two notes of what was read
# That the broker sends before some are: with 64 KiB each what `Subscription` has room for.
UNACKNOWLEDGED = 500
# Of reading what waited: boards that talk on and on would keep it from ending.
READING_S = 30.0
SLACK_S = 5.0  # beyond any time that was given, for what has come already


class Inbox:
    """A context manager around the session; `items` reads it."""

    def __init__(self, fleet: Fleet) -> None:
        """OperatorError: what was noted here is damaged."""
        self._fleet = fleet
        self._marks = ReadMarks(fleet.folder)
        self.merger = self._marks.merger
        self.first_time = True
        self.more = False  # `items` ended before all was read that came
        config = with_client_id(fleet.settings.mqtt, self._marks.client_id)
        self._client = BrokerClient(config, keep_session_s=KEEP_S, unacknowledged=UNACKNOWLEDGED)
        self._arrived = self._client.expect(f"{fleet.nodes_topic}/+/results")

    def __enter__(self) -> Self:
        self._client.__enter__()
        self.first_time = not self._client.session_present
        self._marks.save(whole=True)  # the id, under which the broker keeps from now on
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.__exit__(kind, error, trace)

    def items(self, follow: bool = False, seconds: float | None = None) -> Iterator[Item]:
        """What waited and, with `follow`, what comes; at most for `seconds`.

        A batch counts as read when the next item is asked for. `more` tells afterwards that
        messages still came when the time for what waited was over.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        end = math.inf if deadline is None else deadline + SLACK_S
        if deadline is None and not follow:
            end = time.monotonic() + READING_S
        taken: list[Received] = []
        while True:
            wait_s = None if follow else QUIET_S
            if deadline is not None:
                left_s = max(0.0, deadline - time.monotonic())
                wait_s = left_s if wait_s is None else min(wait_s, left_s)
            message = self._arrived.take(0 if taken else wait_s)
            if message is not None and time.monotonic() >= end:
                self.more = seconds is None
                self._keep(taken)  # this one is not acknowledged: it comes again
                return
            if message is not None:
                yield from self.merger.feed(message.topic, message.payload)
                taken.append(message)
            if taken and (message is None or len(taken) >= BATCH):
                self._keep(taken)
            elif message is None:
                self.more = self._arrived.dropped > 0
                return

    def _keep(self, taken: list[Received]) -> None:
        """Note what was read, and let the broker forget it."""
        self._marks.save()
        for each in taken:
            self._client.acknowledge(each)
        taken.clear()

    def take_missing(self) -> list[Item]:
        """What has not come, of what was read so far; told once."""
        missing = self.merger.take_missing()
        if missing:
            self._marks.save()
        return missing

    def forget(self) -> None:
        """End the session at the broker, and what is noted here."""
        config = with_client_id(self._fleet.settings.mqtt, self._marks.client_id)
        with BrokerClient(config):
            pass
        self._marks.forget()
