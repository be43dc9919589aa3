"""What nodes send to one operator: answers to a request, and results that the broker kept.

A session of its own at the broker (clean start off in MQTT) collects the results. A message is
acknowledged after its records were taken and noted, so an interrupted reader loses none.

The notes are files in the folder, and each write is as large as what came, however many streams
there are: `results.json` has all streams as they once were and names the journal of the changes
since; once the journal has grown as large, all is written anew. A journal that no `results.json`
names does not count.
"""

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edge_agent.errors import OperatorError, RequestError
from edge_agent.fleet_protocol import requests, signed_requests
from edge_agent.fleet_protocol.keys import Signer
from edge_agent.fleet_protocol.signed_requests import Addressed
from edge_agent.fleet_protocol.topics import node_topics
from edge_agent.operator.broker import BrokerClient
from edge_agent.operator.fleet import Fleet
from edge_agent.operator.folder import FleetFolder
from edge_agent.operator.results import Item, Merger
from edge_agent.operator.tool_client import Received, with_client_id
from edge_agent.operator.untrusted import UnreadableError, read_object

# A node's clock may be ahead: the request is valid for this much longer than the wait.
SKEW_S = 300.0
FINAL = ("succeeded", "failed")


def ask(
    client: BrokerClient,
    fleet: str,
    node: str,
    verb: str,
    arguments: Mapping[str, object],
    timeout_s: float,
    signers: Sequence[Signer] = (),
) -> Iterator[dict[str, Any]]:
    """Yields each answer: `accepted`, `running`, then `succeeded` or `failed`.

    Without `signers` the request is unsigned, and nodes do little for it. OperatorError: an invalid
    request, or no final answer in time.
    """
    for _, answer in answers(client, fleet, node, verb, arguments, timeout_s, signers):
        yield answer


def answers(
    client: BrokerClient,
    fleet: str,
    node: str,
    verb: str,
    arguments: Mapping[str, object],
    timeout_s: float,
    signers: Sequence[Signer] = (),
) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The same as `ask`, each answer with the bytes of its message."""
    topics = node_topics(fleet, node)
    identity = os.urandom(8).hex()
    try:  # check by the node's own rules before sending
        requests.checked(verb, identity, arguments)
    except RequestError as error:
        raise OperatorError(f"{verb}: {error}") from error
    if signers:
        payload = signed_requests.seal(
            *(Addressed(fleet, node, verb), identity, arguments),
            issued=time.time(),
            valid_s=min(timeout_s + SKEW_S, signed_requests.MAX_VALID_S),
            signers=signers,
        )
    else:
        payload = json.dumps({"id": identity, "arguments": dict(arguments)}).encode()
    deadline = time.monotonic() + timeout_s
    last = "nothing"
    with client.subscribed((topics.response(verb),)) as subscription:
        client.publish(topics.request(verb), payload, retain=False)
        while (left := deadline - time.monotonic()) > 0:
            message = subscription.take(left)
            answer = read_answer(message.payload, identity) if message else None
            if message is not None and answer is not None:
                last = str(answer.get("state"))
                yield message.payload, answer
                if last in FINAL:
                    return
    older = f" An agent of before {verb} does not hear it." if last == "nothing" else ""
    raise OperatorError(
        f"{node}: no final answer to {verb} within {timeout_s:g} s (last: {last}); is it online?"
        f" `edge-agent fleet node {node}`{older}"
    )


def read_answer(payload: bytes, identity: str) -> dict[str, Any] | None:
    """An answer to the request with this id; None for anything else."""
    try:
        answer = read_object(payload)
    except UnreadableError:
        return None  # not an answer to this request: its id cannot be read
    return answer if answer.get("id") == identity else None


MIN_JOURNAL_BYTES = 64 * 1024


class ReadMarks:
    """The notes of one fleet's folder. OperatorError from all of it: the disk."""

    def __init__(self, folder: FleetFolder) -> None:
        """OperatorError: what was noted here is damaged."""
        self._folder = folder
        self._file = folder.own_folder / "results.json"
        self.client_id, self.merger = f"edgein{os.urandom(8).hex()}", Merger()
        self._number = 0  # of the journal
        self._whole_bytes = self._journal_bytes = 0
        try:
            text = self._file.read_text("utf-8")
            values = json.loads(text)
            self.client_id = str(values["client_id"])
            self.merger = Merger.from_json(values["streams"])
            self._number = int(values.get("journal", 0))
            self._whole_bytes = len(text)
            self._replay()
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OperatorError(
                f"{self._file}: cannot be read: {error}; remove it, and results may come twice"
            ) from error

    def save(self, *, whole: bool = False) -> None:
        """Write what was read since to disk, before this returns."""
        changed = self.merger.take_changed()
        lines = "".join(f"{json.dumps(each)}\n" for each in changed).encode()
        room = max(MIN_JOURNAL_BYTES, self._whole_bytes)
        if whole or self._journal_bytes + len(lines) > room:
            self._write_whole()
        elif lines:
            self._append(lines)

    def forget(self) -> None:
        """Nothing was read."""
        self._file.unlink(missing_ok=True)
        self._journal.unlink(missing_ok=True)

    @property
    def _journal(self) -> Path:
        return self._file.with_name(f"results-{self._number}.journal")

    def _write_whole(self) -> None:
        before = self._journal
        self._number += 1
        self._journal.unlink(missing_ok=True)  # of a life that ended before it was named
        head = {"client_id": self.client_id, "journal": self._number}
        text = json.dumps({**head, "streams": self.merger.as_json()})
        self._folder.write(self._file, text)
        self._whole_bytes, self._journal_bytes = len(text), 0
        before.unlink(missing_ok=True)

    def _append(self, lines: bytes) -> None:
        try:
            with self._journal.open("ab") as file:
                file.truncate(self._journal_bytes)  # half a line of a life that was cut off
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OperatorError(f"{self._journal}: cannot be written: {error}") from error
        self._journal_bytes += len(lines)

    def _replay(self) -> None:
        try:
            data = self._journal.read_bytes()
        except FileNotFoundError:
            return
        whole, _, _ = data.rpartition(b"\n")
        for line in whole.splitlines():
            self.merger.replace(json.loads(line))
        self._journal_bytes = len(whole) + bool(whole)


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
        """Records that are missing so far; each is reported once."""
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
