"""`edge-agent fleet watch` and `rollout --watch`: live, or line by line."""

import argparse
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from edge_agent.cli import OK, PROBLEM
from edge_agent.cli.fleet_deploy import opened
from edge_agent.cli.fleet_output import (
    BAD,
    CHANGED,
    GOOD,
    QUIET,
    line,
    on_terminal,
    show_json,
    terminal,
)
from edge_agent.cli.fleet_results import ALL, Wanted, result_line
from edge_agent.operator import releases, rollout_driver
from edge_agent.operator.fleet import Fleet
from edge_agent.operator.overview import NOTHING, News, Snapshot, news, snapshot
from edge_agent.operator.results import Merger
from edge_agent.operator.rollout import Course
from edge_agent.operator.tool_client import Received
from edge_agent.operator.view import View, read_nodes

if TYPE_CHECKING:
    from edge_agent.cli.fleet_screen import Screen

REDRAW_S = 0.25
SHARE = 5  # of the time that goes into drawing, at most a fifth
TONES = {"good": GOOD, "bad": BAD, "changed": CHANGED, "quiet": QUIET}


def watch(arguments: argparse.Namespace) -> int:
    """Until interrupted, or for --seconds."""
    with opened(arguments) as fleet:
        if not arguments.json and on_terminal():
            watch_on_screen(fleet, arguments.seconds, Wanted.of(arguments))
        else:
            _as_lines(fleet, arguments.seconds, arguments.json, Wanted.of(arguments))
    return OK


def follow(fleet: Fleet, name: str, version: str, given: Course, as_json: bool) -> int:
    """Watch a rollout to its end; 1 if it was taken back or held."""
    steps = rollout_driver.follow(fleet, name, version, given)
    if as_json or not on_terminal():
        step = _steps_as_lines(name, version, steps, as_json)
    else:
        step = _steps_on_screen(fleet, name, version, steps)
    if step.action not in ("abort", "timeout"):
        return OK
    for node, reason in step.status.failed.items():
        if not as_json:
            line(f"          {node}: {reason}", BAD)
    return PROBLEM


def _steps_as_lines(
    name: str, version: str, steps: Iterator[rollout_driver.Step], as_json: bool
) -> rollout_driver.Step:
    said = ""
    for step in steps:
        text = step_text(name, version, step)
        if text != said and as_json:
            show_json(_step_facts(name, version, step))
        elif text != said:
            line(f"{_now()}  {text}", BAD if step.action in ("abort", "timeout") else CHANGED)
        said = text
    return step


def _steps_on_screen(
    fleet: Fleet, name: str, version: str, steps: Iterator[rollout_driver.Step]
) -> rollout_driver.Step:
    known: dict[str, Snapshot] = {}
    names = releases.named(fleet.folder)
    said = ""
    with _screen(fleet) as screen:
        for step in steps:
            for node in step.view.sorted():
                before, known[node.name] = known.get(node.name, NOTHING), snapshot(node)
                for each in news(node.name, before, known[node.name], names) if said else ():
                    screen.say(f"{each.node}  {each.text}", TONES[each.tone])
            if step.action != said:  # the counts are in the headline
                text = step_text(name, version, step)
                screen.say(text, BAD if step.action in ("abort", "timeout") else CHANGED)
            said = step.action
            headline = step_text(name, version, step, exact=True)
            screen.draw(step.view, step.current, fleet.client.trouble, headline)
    return step


def watch_on_screen(fleet: Fleet, seconds: float | None, wanted: Wanted = ALL) -> None:
    view, merger, current = View(fleet.enrolment), Merger(), fleet.current(proven=False)
    known: dict[str, Snapshot] = {}
    names = releases.named(fleet.folder)
    with _screen(fleet) as screen:
        due = 0.0
        for message in messages(fleet, seconds):
            if message is None:
                pass
            elif message.topic == fleet.topics.trust:
                before = fleet.trust.version
                fleet.follow_trust(message.payload)
                if fleet.trust.version != before:
                    screen.say(f"trust became version {fleet.trust.version}", CHANGED)
                current = fleet.believed(current.raw)
            elif message.topic == fleet.topics.deployment:
                if message.payload != current.raw:
                    current = fleet.believed(message.payload)
                    screen.say(f"generation {current.generation} was deployed", CHANGED)
            elif message.topic.endswith("/results"):
                for item in merger.feed(message.topic, message.payload):
                    if wanted.takes(item):
                        screen.append(*result_line(item))
            else:
                for each in changed(view, known, message, names):
                    if not message.retained:
                        screen.say(f"{each.node}  {each.text}", TONES[each.tone])
            began = time.monotonic()
            if began >= due:
                screen.draw(view, current, fleet.client.trouble)
                # Thousands of nodes take a while to count.
                due = began + max(REDRAW_S, SHARE * (time.monotonic() - began))
        screen.draw(view, current, fleet.client.trouble)


def _screen(fleet: Fleet) -> "Screen":
    from edge_agent.cli.fleet_screen import Screen

    names, trust_version = releases.named(fleet.folder), fleet.trust.version
    return Screen(terminal(), fleet.settings.name, fleet.client.url, names, trust_version)


def step_text(name: str, version: str, step: rollout_driver.Step, exact: bool = False) -> str:
    """The state of a rollout in one line."""
    found = step.status
    words = {
        "wait": f"waiting: {step.lacking}",
        "soak": f"holding for {step.left_s:.0f} s more" if exact else "holding",
        "advance": f"advanced to {step.reach}",
        "paused": "held; --resume ends that",
        "abort": "too many failed: taken back",
        "timeout": f"held, since no further node came to run it: {step.lacking}",
        "done": "done",
    }
    counts = f"{len(found.running)} run it, {len(found.pending)} to come"
    if found.failed:
        counts += f", {len(found.failed)} failed"
    if found.away:
        counts += f", {len(found.away)} away"
    if found.unproven:
        counts += f", {len(found.unproven)} not proven"
    if found.uncounted:
        counts += f", {len(found.uncounted)} not enrolled"
    return f"{name} {version} at {step.reach}: {counts}; {words[step.action]}"


def _step_facts(name: str, version: str, step: rollout_driver.Step) -> dict[str, object]:
    found = step.status
    return {
        "plugin": name,
        "version": version,
        "action": step.action,
        "percent": step.percent,
        "named": list(step.reach.nodes),
        "rings": list(step.reach.rings),
        "lacking": step.lacking,
        "generation": step.current.generation,
        "running": list(found.running),
        "pending": list(found.pending),
        "away": list(found.away),
        "failed": dict(found.failed),
        "unproven": dict(found.unproven),
        "uncounted": list(found.uncounted),
    }


def _as_lines(fleet: Fleet, seconds: float | None, as_json: bool, wanted: Wanted) -> None:
    view, merger = View(fleet.enrolment), Merger()
    known: dict[str, Snapshot] = {}
    names = releases.named(fleet.folder)
    for message in messages(fleet, seconds):
        if message is None:
            continue
        if message.topic.endswith("/results"):
            for item in filter(wanted.takes, merger.feed(message.topic, message.payload)):
                if as_json:
                    show_json({"result": item.as_json()})
                else:
                    line(*result_line(item))
            continue
        if message.topic in (fleet.topics.deployment, fleet.topics.trust):
            continue
        for each in changed(view, known, message, names):
            if as_json:
                show_json({"node": each.node, "change": each.text})
            else:
                line(f"{_now()}  {each.node}  {each.text}", TONES[each.tone])


def messages(fleet: Fleet, seconds: float | None) -> Iterator[Received | None]:
    """Messages of nodes and operators; None from time to time without a message.

    The `seconds` begin after the fleet was read, since a slow broker could use all of them up.
    """
    leaves = ("status", "state", "results")
    with fleet.client.subscribed(
        (
            fleet.topics.trust,
            fleet.topics.deployment,
            *(f"{fleet.nodes_topic}/+/{leaf}" for leaf in leaves),
        )
    ) as subscription:
        # The subscription alone brings what the broker lets wait for one client.
        found = read_nodes(fleet.client, fleet.nodes_topic, proven=False)
        for topic, payload in found.items():
            yield Received(topic, payload, True)
        deadline = None if seconds is None else time.monotonic() + seconds
        while deadline is None or time.monotonic() < deadline:
            yield subscription.take(REDRAW_S)


def changed(
    view: View, known: dict[str, Snapshot], message: Received, names: Mapping[str, str]
) -> list[News]:
    """The changes in one message."""
    node = view.feed(message)
    if node is None:
        return []
    before, known[node.name] = known.get(node.name, NOTHING), snapshot(node)
    return news(node.name, before, known[node.name], names)


def _now() -> str:
    return datetime.now().strftime("%H:%M:%S")
