"""`edge-agent plugin test`: the cases beside a plugin, on one engine or on all that are here."""

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.authors import suite
from edge_agent.authors.tryout import read_plugin
from edge_agent.cli import OK, PROBLEM
from edge_agent.errors import ConfigError, NotInstalledError
from edge_agent.store import files
from edge_agent.text import printable
from edge_agent.wasm.engine_selection import AUTO, engine_names, select_engine

if TYPE_CHECKING:
    from edge_agent.authors.suite import CaseResult

ALL = "all"


def test(arguments: argparse.Namespace) -> int:
    """Print how each case went; the exit code is 1 if one failed. ConfigError, ModuleError,
    EngineError, StoreError: the cases could not be run."""
    file = arguments.file or _only_plugin()
    plugin = read_plugin(file, arguments.config, arguments.settings)
    engines = engines_named(arguments.engine)
    colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    results: list[CaseResult] = []
    for path in arguments.cases or [suite.cases_beside(file)]:
        run = suite.Suite(path, plugin)
        names = [name for name in run.names if (arguments.only or "") in name]
        for result in run.results(engines, names, update=arguments.update):
            results.append(result)
            if not arguments.json:
                print("\n".join(suite.as_lines(result, colours)), flush=True)
        if arguments.update and (written := run.write_accepted()) and not arguments.json:
            print(f"accepted: {printable(str(written))}")
    if not results:
        raise ConfigError(f"no case has {printable(arguments.only)} in its name")
    if arguments.junit:
        files.write(arguments.junit, suite.as_junit(file, results), mode=0o644)
    failed = sum(not result.passed for result in results)
    if arguments.json:
        print(json.dumps([suite.as_json(result) for result in results], indent=2))
    else:
        print(f"{len(results) - failed} passed, {failed} failed, on {', '.join(engines)}")
    return PROBLEM if failed else OK


def _only_plugin() -> Path:
    found = sorted(Path().glob("*.wasm"))
    if len(found) == 1:
        return found[0]
    raise ConfigError(f"name the plugin: this folder has {len(found) or 'no'} files *.wasm")


def engines_named(name: str) -> list[str]:
    """The names of engines that are here. EngineError: none is, or not this one."""
    if name != ALL:
        return [select_engine(name)[0].name]
    found = []
    for each in engine_names():
        with contextlib.suppress(NotInstalledError):
            found.append(select_engine(each)[0].name)
    return found or engines_named(AUTO)
