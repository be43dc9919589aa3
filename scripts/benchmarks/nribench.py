"""`scripts/nri-bench`: NRI plugins of anybody beside each other, native or Wasm.

Each contestant has a runtime of its own, upstream's side of NRI. Contestants take turns in an order
that is drawn anew each round, and each ratio is taken within a round.
"""

import argparse
import json
import random
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_agent.errors import EngineError
from edge_agent.pb import nri_pb2
from edge_agent.wasm.engine_selection import select_engine
from scripts.benchmarks import guests
from scripts.benchmarks.contestants import Agent, Contestant, WazeroHost, end, wait_for_any
from scripts.benchmarks.figures import latency, p99_ratio, ratio
from scripts.benchmarks.machine import load, machine, versions
from scripts.benchmarks.plot import Bar, bars
from scripts.benchmarks.process import cpu_seconds
from tests.support.gobuild import GO_MISSING, go_is_installed
from tests.support.gopeers import NriRuntime

FORM = re.compile(r"(?P<name>[^=]+)=(?P<host>native|wazero|agent|agent/[a-z0-9]+):(?P<what>.+)")
IDENTITY = "10-plugin"
WARMUP = 50  # calls before the first round
HOSTS = """contestants, NAME=HOST:WHAT, the first of which is what the others are compared with:
  NAME=native:COMMAND        a plugin's own process; {socket} in COMMAND is the runtime's socket
  NAME=wazero:FILE.wasm      in the runtime's own Wasm host, inside its process
  NAME=agent:FILE.wasm       in edge-agent; agent/ENGINE:FILE.wasm on wasmtime, wasmer or wasmi
FILE.conf beside a FILE.wasm is the plugin's configuration, for edge-agent, and FILE.toml its
settings."""


class Command(Contestant):
    """A native plugin, started by a command of the caller's."""

    def __init__(self, folder: Path, command: str) -> None:
        super().__init__(folder)
        self._command = command

    def _start(self, stack: ExitStack) -> None:
        socket = self.folder / "nri.sock"
        self.runtime = stack.enter_context(NriRuntime(socket, owners=False))
        words = [word.replace("{socket}", str(socket)) for word in shlex.split(self._command)]
        log = stack.enter_context((self.folder / "log").open("ab"))
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        stack.callback(end, process)
        self.pid = process.pid
        try:
            wait_for_any(self.runtime, alive=lambda: process.poll() is None)
        except TimeoutError as error:
            said = (self.folder / "log").read_text(errors="replace")[-2000:]
            raise TimeoutError(f"{self._command}: {error}\n{said}") from error

    def log_lines(self) -> int:
        return 0


def contestant(text: str, folder: Path) -> tuple[str, Contestant]:
    """Name and contestant. ValueError: `text` names none, or its file is not there."""
    found = FORM.fullmatch(text)
    if found is None:
        raise ValueError(f"{text}: not of the form NAME=native|wazero|agent[/ENGINE]:WHAT")
    name, host, what = found["name"], found["host"], found["what"]
    if host == "native":
        if "{socket}" not in what:
            raise ValueError(f"{name}: the command does not say where {{socket}} goes")
        return name, Command(folder, what)
    file = Path(what)
    try:
        module = file.read_bytes()
    except OSError as error:
        raise ValueError(f"{name}: {file}: {error.strerror}") from error
    if host == "wazero":
        return name, WazeroHost(folder, IDENTITY, module)
    engine = host.partition("/")[2] or "auto"
    try:
        select_engine(engine)
    except EngineError as error:
        raise ValueError(f"{name}: {error}") from error
    config = file.with_suffix(".conf")
    text = config.read_text() if config.exists() else ""
    settings = file.with_suffix(".toml")
    more = {"settings": settings.read_text()} if settings.exists() else {}
    return name, Agent(folder, {IDENTITY: (module, text)}, engine=engine, **more)


def measure(
    contestants: Mapping[str, Contestant],
    request: bytes,
    rounds: int,
    events: int,
    pause_us: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Figures by contestant. RuntimeError: one failed; TimeoutError: one did not start."""
    times: dict[str, list[list[int]]] = {name: [] for name in contestants}
    with ExitStack() as stack:
        for name, each in contestants.items():
            say(f"starting {name}")
            stack.enter_context(each)
            each.runtime.bench(WARMUP, request)
        cpu = {name: cpu_seconds(each.pid) for name, each in contestants.items()}
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            for name in random.sample(list(contestants), len(contestants)):
                found = contestants[name].runtime.bench(events, request, pause_us=pause_us)
                if found.errors:
                    raise RuntimeError(f"{name}: {found.errors[0]}")
                times[name].append(found.latencies_ns)
        spent = {name: cpu_seconds(each.pid) - cpu[name] for name, each in contestants.items()}
    base = times[next(iter(times))]
    return {
        name: {
            **asdict(latency(each)),
            "ratio": asdict(ratio(each, base)),
            "p99_ratio": asdict(p99_ratio(each, base)),
            "cpu_us_per_event": spent[name] / (rounds * events) * 1e6,
        }
        for name, each in times.items()
    }


def table(found: Mapping[str, Any]) -> str:
    """In Markdown; microseconds."""
    lines = [
        "| contestant | median | p99 | ratio (least-most of a round) | of p99 | CPU for an event |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, each in found.items():
        of = each["ratio"]
        lines.append(
            f"| {name} | {each['median_us']:.0f} us | {each['p99_us']:.0f} us"
            f" | {of['median']:.2f} ({of['low']:.2f}-{of['high']:.2f})"
            f" | {each['p99_ratio']['median']:.2f} | {each['cpu_us_per_event']:.0f} us |"
        )
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    """0: measured, whatever the figures; 1: it could not be."""
    parser = argparse.ArgumentParser(
        prog="scripts/nri-bench",
        description=__doc__,
        epilog=HOSTS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("contestants", nargs="+", metavar="NAME=HOST:WHAT")
    parser.add_argument("--rounds", type=int, default=20, help="(default: %(default)s)")
    parser.add_argument(
        "--events", type=int, default=300, help="in each round (default: %(default)s)"
    )
    parser.add_argument(
        "--pause-us",
        type=int,
        default=0,
        metavar="N",
        help="before each event, as a runtime has other work (default: none)",
    )
    parser.add_argument(
        "--request",
        type=Path,
        metavar="FILE",
        help="a serialized CreateContainerRequest (default: one of containerd's, 4.2 KB)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw median and p99")
    arguments = parser.parse_args(words)
    if min(arguments.rounds, arguments.events) < 1:
        parser.error("--rounds and --events are at least 1")
    if not go_is_installed():
        print(f"{GO_MISSING}: upstream's runtime side cannot be built", file=sys.stderr)
        return 1
    request = arguments.request.read_bytes() if arguments.request else guests.request()
    nri_pb2.CreateContainerRequest.FromString(request)
    about = {"machine": machine(), "versions": versions(), "request_bytes": len(request)}
    with tempfile.TemporaryDirectory(prefix="nri-bench-") as name:
        try:
            contestants = dict(
                contestant(text, Path(name) / str(number))
                for number, text in enumerate(arguments.contestants)
            )
            rounds, events, pause_us = arguments.rounds, arguments.events, arguments.pause_us
            found = measure(contestants, request, rounds, events, pause_us, _say)
        except (ValueError, RuntimeError, TimeoutError, OSError) as error:
            print(f"nri-bench: {error}", file=sys.stderr)
            return 1
    about["load_after"] = load()
    print(f"{arguments.rounds} rounds of {arguments.events} events of {len(request)} bytes\n")
    print(table(found))
    if arguments.json:
        whole = {**about, "contestants": found}
        arguments.json.write_text(json.dumps(whole, indent=1) + "\n")
    if arguments.plot:
        drawn = [Bar(each, of["median_us"], of["p99_us"]) for each, of in found.items()]
        arguments.plot.write_text(bars("CreateContainer at the runtime, us", drawn))
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
