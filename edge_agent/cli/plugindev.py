"""`edge-agent plugin dev`: build and test a plugin again at each change of its folder."""

import argparse
import os
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from edge_agent.authors import manifest, project, suite
from edge_agent.authors.tryout import read_plugin
from edge_agent.cli import OK, PROBLEM
from edge_agent.errors import EdgeAgentError
from edge_agent.store import files
from edge_agent.text import printable
from edge_agent.wasm.engine_selection import select_engine

POLL_S = 0.3
MAX_FILES = 10_000
_MADE = (".wasm", ".accepted.json")  # by this command itself, or by `plugin test --update`
_CARGO_MADE = "target"  # a folder

Seen = dict[Path, tuple[int, int]]


def run(arguments: argparse.Namespace) -> int:
    """Until it is interrupted; with --once the exit code is 1 if the plugin does not build or a
    case fails. ConfigError: the folder is no plugin's."""
    manifest.read(arguments.folder / manifest.FILE)  # or there is nothing to wait for
    seen: Seen = {}
    while True:
        now = files_seen(arguments.folder)
        if now == seen:
            time.sleep(POLL_S)
            continue
        while (later := files_seen(arguments.folder)) != now:  # an editor writes more than one file
            now = later
            time.sleep(POLL_S)
        seen = now
        good = _round(arguments)
        if arguments.once:
            return OK if good else PROBLEM


def _round(arguments: argparse.Namespace) -> bool:
    print(f"--- {time.strftime('%H:%M:%S')}", flush=True)
    try:
        made = project.build(arguments.folder)
        print(f"built {printable(str(made))}: {made.stat().st_size} bytes", flush=True)
        good = _tested(made, select_engine(arguments.engine)[0].name)
        if good and arguments.into:
            _install(made, arguments.into)
    except EdgeAgentError as error:
        print("\n".join(printable(line) for line in str(error).split("\n")), flush=True)
        return False
    return good


def _tested(made: Path, engine: str) -> bool:
    cases = suite.cases_beside(made)
    if not cases.exists():
        print(f"no cases: write {printable(cases.name)} (docs/plugin-test.md)", flush=True)
        return True
    run = suite.Suite(cases, read_plugin(made, None, None))
    failed = 0
    for result in run.results([engine], run.names):
        failed += not result.passed
        print("\n".join(suite.as_lines(result, colours=False)), flush=True)
    print(f"{len(run.names) - failed} passed, {failed} failed", flush=True)
    return not failed


def _install(made: Path, folder: Path) -> None:
    """Into the plugins' folder of an agent, the module last: it loads what it sees then."""
    for suffix in (".conf", ".toml", ".wasm"):
        source = made.with_suffix(suffix)
        if source.is_file():
            files.write(folder / source.name, source.read_bytes(), mode=0o644)
    print(f"installed {printable(str(folder / made.name))}", flush=True)


def files_seen(folder: Path) -> Seen:
    """The files that are looked at, with their sizes and times."""
    found: Seen = {}
    for path in _files(folder):
        try:
            status = path.stat()
        except OSError:
            continue  # removed meanwhile
        found[path] = (status.st_size, status.st_mtime_ns)
    return found


def _files(folder: Path) -> Iterator[Path]:
    def walk() -> Iterator[Path]:
        for where, folders, names in os.walk(folder):
            folders[:] = [name for name in folders if _is_source(name)]
            yield from (Path(where, name) for name in names if _is_source(name))

    return islice(walk(), MAX_FILES)


def _is_source(name: str) -> bool:
    return not name.startswith(".") and name != _CARGO_MADE and not name.endswith(_MADE)
