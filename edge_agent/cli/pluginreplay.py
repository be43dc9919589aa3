"""`edge-agent plugin replay`: recorded events at a new version of a plugin, and what changes."""

import argparse
import fnmatch
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from edge_agent.authors import recording
from edge_agent.authors.recording import Recorded, Redaction
from edge_agent.authors.replay import NOTHING_HIDDEN, Replayed, replay
from edge_agent.authors.tryout import PluginFile, Runtime, read_plugin
from edge_agent.cli import OK, PROBLEM
from edge_agent.errors import ConfigError
from edge_agent.text import printable
from edge_agent.wasm.engine_selection import select_engine


def run(arguments: argparse.Namespace) -> int:
    """Print each event that differs; 1 if a difference is not among those of --expect."""
    new = read_plugin(arguments.file, arguments.config, arguments.settings)
    old = None
    if arguments.against:
        old = read_plugin(arguments.against, arguments.config, arguments.settings)
    events = [
        each
        for each in recording.read(arguments.recording)
        if arguments.plugin in (None, each.plugin)
    ]
    plugins = {each.plugin for each in events}
    if len(plugins) > 1:
        names = ", ".join(sorted(map(printable, plugins)))
        raise ConfigError(f"it has events of {names}: choose one with --plugin")
    if not events:
        raise ConfigError("it has no event of this plugin; nothing is compared")
    expect = arguments.expect or ()
    found = []
    hidden = recording.hidden_in(arguments.recording)
    for each in differences(events, new, old, arguments.engine, expect, hidden):
        found.append(each)
        if not arguments.json:
            show(each, bool(expect))
    unexpected = sum(bool(each.unexpected) for each in found)
    if arguments.json:
        print(json.dumps(as_json(len(events), found), indent=2))
    else:
        print(summary(len(events), found))
    return PROBLEM if unexpected else OK


class Difference(NamedTuple):
    """An event at which the versions differ; `unexpected` are lines that fit no --expect."""

    event: Replayed
    unexpected: list[str]


def differences(
    events: Iterable[Recorded],
    new: PluginFile,
    old: PluginFile | None,
    engine: str,
    expect: Sequence[str],
    hidden: Redaction = NOTHING_HIDDEN,
) -> Iterator[Difference]:
    """The events at which the versions differ. Raises what `replay` does."""
    for each in replay(events, new, old, Runtime(), select_engine(engine)[0].name, hidden):
        if each.lines:
            wrong = [line for line in each.lines if not any(fits(line, glob) for glob in expect)]
            yield Difference(each, wrong)


def fits(line: str, glob: str) -> bool:
    """Whether a difference is the expected one."""
    return fnmatch.fnmatchcase(line, glob)


def show(found: Difference, marked: bool) -> None:
    """Print one event; `marked`: say which lines were not expected."""
    each = found.event
    print(f"event {each.number}, {each.event} of {printable(each.subject)}:")
    for line in each.lines:
        mark = "  not expected" if line in found.unexpected and marked else ""
        print(f"    {printable(line)}{mark}")
    for frame in each.frames:
        print(f"        at {printable(frame)}")


def summary(events: int, found: Sequence[Difference]) -> str:
    """One line about all events."""
    unexpected = sum(bool(each.unexpected) for each in found)
    return f"{events} events, {len(found)} differ, {unexpected} not as expected"


def as_json(events: int, found: Iterable[Difference]) -> dict[str, object]:
    """The same for programs."""
    different = [
        {
            "number": each.event.number,
            "event": each.event.event,
            "subject": each.event.subject,
            "lines": list(each.event.lines),
            "frames": list(each.event.frames),
            "unexpected": each.unexpected,
        }
        for each in found
    ]
    return {"events": events, "different": different}
