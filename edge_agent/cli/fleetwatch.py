"""`edge-agent fleet watch` and `rollout --watch`: live, or line by line."""

import argparse
import time
from collections.abc import Iterator
from datetime import datetime

from edge_agent.cli import OK, PROBLEM
from edge_agent.cli.fleetdeploy import opened
from edge_agent.cli.fleetlook import result_line
from edge_agent.cli.fleetout import BAD, CHANGED, GOOD, QUIET, line, show_json
from edge_agent.operator import course
from edge_agent.operator.broker import Received
from edge_agent.operator.fleet import Fleet
from edge_agent.operator.news import NOTHING, News, Snapshot, news, snapshot
from edge_agent.operator.results import Merger
from edge_agent.operator.rollout import Course
from edge_agent.operator.view import View

TONES = {"good": GOOD, "bad": BAD, "changed": CHANGED, "quiet": QUIET}


def watch(arguments: argparse.Namespace) -> int:
    """Until interrupted, or for --seconds."""
    with opened(arguments) as fleet:
        _as_lines(fleet, arguments.seconds, arguments.json)
    return OK


def follow(fleet: Fleet, name: str, version: str, given: Course, as_json: bool) -> int:
    """Watch a rollout to its end; 1 if it was taken back."""
    said, step = "", None
    for step in course.follow(fleet, name, version, given):
        text = step_text(name, version, step)
        if text != said and as_json:
            show_json(_step_facts(name, version, step))
        elif text != said:
            line(f"{_now()}  {text}", BAD if step.action == "abort" else CHANGED)
        said = text
    assert step is not None
    if step.action == "abort":
        for node, reason in step.standing.failed.items():
            if not as_json:
                line(f"          {node}: {reason}", BAD)
        return PROBLEM
    return OK


def step_text(name: str, version: str, step: course.Step, exact: bool = False) -> str:
    """Where a rollout is, in a line."""
    found = step.standing
    words = {
        "wait": "waiting for nodes",
        "soak": f"holding for {step.left_s:.0f} s more" if exact else "holding",
        "advance": f"advanced to {step.percent} %",
        "paused": "held; --resume lets it go on",
        "abort": "too many failed: taken back",
        "done": "done",
    }
    counts = f"{len(found.running)} run it, {len(found.pending)} to come"
    if found.failed:
        counts += f", {len(found.failed)} failed"
    if found.away:
        counts += f", {len(found.away)} not online"
    return f"{name} {version} at {step.percent} %: {counts}; {words[step.action]}"


def _step_facts(name: str, version: str, step: course.Step) -> dict[str, object]:
    found = step.standing
    return {
        "plugin": name,
        "version": version,
        "action": step.action,
        "percent": step.percent,
        "generation": step.generation,
        "running": list(found.running),
        "pending": list(found.pending),
        "away": list(found.away),
        "failed": dict(found.failed),
    }


def _as_lines(fleet: Fleet, seconds: float | None, as_json: bool) -> None:
    view, merger = View(), Merger()
    known: dict[str, Snapshot] = {}
    for message in messages(fleet, seconds):
        if message is None:
            continue
        if message.topic.endswith("/results"):
            for item in merger.feed(message.topic, message.payload):
                if as_json:
                    show_json({"result": item.as_json()})
                else:
                    line(*result_line(item))
            continue
        for each in changed(view, known, message):
            if as_json:
                show_json({"node": each.node, "change": each.text})
            else:
                line(f"{_now()}  {each.node}  {each.text}", TONES[each.tone])


def messages(fleet: Fleet, seconds: float | None) -> Iterator[Received | None]:
    """What nodes say, and None each second without anything."""
    deadline = None if seconds is None else time.monotonic() + seconds
    leaves = ("status", "state", "results")
    with fleet.client.subscribed(
        f"{fleet.nodes_topic}/+/{leaf}" for leaf in leaves
    ) as subscription:
        while deadline is None or time.monotonic() < deadline:
            yield subscription.take(1.0)


def changed(view: View, known: dict[str, Snapshot], message: Received) -> list[News]:
    """The news in one message."""
    node = view.feed(message)
    if node is None:
        return []
    before, known[node.name] = known.get(node.name, NOTHING), snapshot(node)
    return news(node.name, before, known[node.name])


def _now() -> str:
    return datetime.now().strftime("%H:%M:%S")
