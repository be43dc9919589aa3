"""What a node told its broker, and what must hold after a cut of the power. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgpack  # type: ignore[import-untyped]

Record = Mapping[str, Any]
Number = tuple[str, int]
"""A stream of results, and a record's number in it."""

ALIVE = ("running", "probation")


class Told(NamedTuple):
    """A message of the node's, and how long the log of its disk's writes was when it came."""

    logged: int  # bytes
    topic: str  # below the node's own
    payload: bytes


class Deployed(NamedTuple):
    """What the operator deployed."""

    generation: int
    logged: int  # how long the log of writes was before, in bytes
    limit: int  # of memory, that a container is given by it: bytes
    bad: bool = False  # a release of it is rejected; `limit` is the one before's


class Known(NamedTuple):
    """What the world knew of the node when the power went."""

    accepted: int  # the highest generation that it had said to have accepted
    runs: int  # the highest that it had said to run
    records: Mapping[Number, Record]
    possible: Sequence[Deployed]  # what may run: nothing older than that, nothing from the future
    fallback: Sequence[Deployed] = ()  # what a rejection may lead back to, besides


def known(told: Iterable[Told], logged: int, deployed: Iterable[Deployed]) -> Known:
    """From all that had come while the log was at most so long: it lies before the cut."""
    accepted, runs, kept, records = 0, 0, 0, dict[Number, Record]()
    for message in told:
        if message.logged > logged:
            continue
        if message.topic == "state":
            state = json.loads(message.payload)
            updates = state.get("updates", {})
            accepted = max(accepted, updates.get("accepted", 0))
            runs = max(runs, updates.get("generation", 0))
            if proven(state):
                kept = max(kept, updates.get("generation", 0))
        elif message.topic == "results":
            records.update(numbered(message.payload))
    came = [each for each in deployed if each.logged <= logged]
    possible = [each for each in came if each.generation >= runs]
    fallback = [each for each in came if kept <= each.generation < runs]
    return Known(accepted, runs, records, possible, fallback)


def proven(state: Mapping[str, Any]) -> bool:
    """Whether all releases of the state's generation have passed their probation."""
    plugins = state.get("plugins", [])
    passed = all(each["status"] == "running" and "running" not in each for each in plugins)
    return bool(plugins) and passed and not state["updates"].get("rejected")


def numbered(batch: bytes) -> dict[Number, Record]:
    """The records of a batch of results; gaps have no number."""
    told = msgpack.unpackb(batch)
    return {(told["stream"], each["seq"]): each for each in told["records"] if "seq" in each}


def broken(before: Known, facts: Mapping[str, Any], after: Sequence[Told]) -> list[str]:
    """What must not be after one cut: empty if the board is whole.

    `facts` are `status` as the agent tells it, and a container's `limit` with the `error` of its
    creation, or just `trouble`; `after` is what the agent then told the broker.
    """
    if "trouble" in facts:
        return [str(facts["trouble"])]
    found = []
    updates = facts["status"]["updates"]
    generations = [each.generation for each in before.possible]
    if not before.accepted <= updates["accepted"] <= max(generations):
        found.append(f"generation {before.accepted} was accepted, now it is {updates['accepted']}")
    if updates["generation"] not in generations:
        found.append(f"generation {updates['generation']} runs, and not one of {generations}")
    if updates["trouble"]:
        found.append(f"its disk refuses: {updates['trouble']}")
    plugins = {str(each["name"]): str(each["status"]) for each in facts["status"]["plugins"]}
    if any(each not in ALIVE for each in plugins.values()):
        found.append(f"its plugins are {plugins}")
    rejected = updates.get("rejected", {})
    fallback = before.fallback if rejected else ()
    if len(rejected) > len(late_releases(facts)) and not any(
        each.bad for each in (*before.possible, *fallback)
    ):
        found.append(f"a good release was rejected: {rejected}")
    limits = [each.limit for each in (*before.possible, *fallback)]
    if facts["limit"] not in limits:
        found.append(
            f"a container has {facts['limit']}, of no release: {facts['error']}; {rejected}"
        )
    sent: dict[Number, Record] = {}
    for message in after:
        if message.topic == "results":
            sent.update(numbered(message.payload))
    if not sent:
        found.append("no result came")
    for number, record in sent.items():
        if number in before.records and before.records[number] != record:
            found.append(f"{number} means two things: {before.records[number]} and {record}")
    return found


def late_releases(facts: Mapping[str, Any]) -> list[str]:
    """Why releases were rejected that took longer than their deadline.

    An emulator that is starved makes a good release late. The one that was kept before it runs
    then, under the same generation (docs/fleet-protocol.md, Rejected): the old set, which is whole.
    """
    rejected = facts["status"]["updates"].get("rejected", {}) if "status" in facts else {}
    return [str(reason) for reason in rejected.values() if str(reason).startswith("timeout: ")]


def went_on(before: Known, after: Sequence[Told]) -> bool:
    """Whether a stream that was known has new numbers, rather than a new stream."""
    streams = {stream for stream, _ in before.records}
    return any(
        stream in streams and (stream, number) not in before.records
        for message in after
        if message.topic == "results"
        for stream, number in numbered(message.payload)
    )
