"""`edge-agent plugin bench`: what a plugin's events take here, and what another version takes."""

import argparse
import json
from pathlib import Path

from edge_agent.authors import bench
from edge_agent.authors.tryout import Runtime, asked_events, read_plugin
from edge_agent.cli import OK
from edge_agent.cli.plugintest import engines_named
from edge_agent.config.units import format_size
from edge_agent.errors import ConfigError
from edge_agent.text import printable

MAX_CALLS = 1_000_000  # 8 bytes are kept of each
_FORM = "{:9} {:22} {:>10} {:>9} {:>9} {:>11} {:>8}  {}"
_HEAD = ("engine", "event", "median us", "p90", "p99", "fuel", "memory", "plugin")


def run(arguments: argparse.Namespace) -> int:
    """Print times and fuel. ConfigError, ModuleError, EngineError, StoreError, GuestFault."""
    plugins = [read_plugin(arguments.file, arguments.config, arguments.settings)]
    if arguments.against:
        plugins.append(read_plugin(arguments.against, arguments.config, arguments.settings))
    if not 1 <= arguments.calls <= MAX_CALLS:
        raise ConfigError(f"--calls must be between 1 and {MAX_CALLS}")
    asked = asked_events(plugins[0], arguments.event or [])
    results = []
    for engine in engines_named(arguments.engine):
        for method, request, _ in asked:
            measured = bench.measure(plugins, Runtime(), engine, method, request, arguments.calls)
            results += measured
            if not arguments.json:
                _show(measured)
    if arguments.json:
        print(json.dumps([each.as_json() for each in results], indent=2))
    return OK


def _show(measured: list[bench.Measured]) -> None:
    print(_FORM.format(*_HEAD))
    for each in measured:
        times = (f"{each.at(part) / 1000:.1f}" for part in (0.5, 0.9, 0.99))
        memory = format_size(each.memory_bytes)
        name = printable(Path(each.plugin).name)
        print(_FORM.format(each.engine, each.method, *times, each.fuel, memory, name))
    if len(measured) == 2:
        ours, other = measured
        fuel = f", fuel {ours.fuel / other.fuel:.2f}" if other.fuel else ""
        print(f"the first, of the second: median {ours.at(0.5) / other.at(0.5):.2f}{fuel}")
    for line in measured[0].histogram():
        print(line)
    print()
