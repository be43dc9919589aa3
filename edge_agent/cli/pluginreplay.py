"""`edge-agent plugin replay`: recorded events at a new version of a plugin, and what changes."""

import argparse
import fnmatch
import json

from edge_agent.authors import recording
from edge_agent.authors.replay import replay
from edge_agent.authors.tryout import Runtime, read_plugin
from edge_agent.cli import OK, PROBLEM
from edge_agent.errors import ConfigError
from edge_agent.text import printable
from edge_agent.wasm.choice import choose


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
    engine = choose(arguments.engine)[0].name
    different = unexpected = 0
    told = []
    for each in replay(events, new, old, Runtime(), engine):
        if not each.lines:
            continue
        different += 1
        wrong = [line for line in each.lines if not _fits(line, arguments.expect or ())]
        unexpected += bool(wrong)
        if arguments.json:
            told.append(
                {
                    "number": each.number,
                    "event": each.event,
                    "subject": each.subject,
                    "lines": list(each.lines),
                    "unexpected": wrong,
                }
            )
            continue
        print(f"event {each.number}, {each.event} of {printable(each.subject)}:")
        for line in each.lines:
            mark = "  not expected" if line in wrong and arguments.expect else ""
            print(f"    {printable(line)}{mark}")
    if arguments.json:
        print(json.dumps({"events": len(events), "different": told}, indent=2))
    else:
        print(f"{len(events)} events, {different} differ, {unexpected} not as expected")
    return PROBLEM if unexpected else OK


def _fits(line: str, globs: "list[str] | tuple[()]") -> bool:
    return any(fnmatch.fnmatchcase(line, glob) for glob in globs)
