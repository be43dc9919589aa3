"""`scripts/count-instructions`: instructions of an event and of the first start, against a file.

Valgrind counts what processes of the agent execute, which neither load nor caches nor clocks change
(docs/benchmark.md, "Instructions"). Exit code 1: a count grew by more than BOUND and
instructions.toml does not say so.
"""

import argparse
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import tomllib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from edge_agent.sim.nri_service import NriService
from scripts.benchmarks import guests
from scripts.benchmarks.counted_agent import EMPTY, FEW, KINDS, LINE, MANY, PUBLISHED, REFERENCE, C
from scripts.benchmarks.counted_peer import WAIT_S
from tests.support.gobuild import ROOT

FILE = Path(__file__).with_name("instructions.toml")
START = "first start, five C plugins"
PARTS = (EMPTY, C, PUBLISHED, LINE, START)
BOUND = 0.05  # of growth, with the same programs
# With others: a Python that was built differently shifts the parts against the reference.
BOUND_ELSEWHERE = 0.30
_MARKS = Path(__file__).with_name("callgrind_marks.c")
_START_PLUGINS = 5
# The same for each run: what a dictionary holds where, which of libc's variants run.
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True)
class Counts:
    """Instructions: `parts` for an event, a line or the start, `reference` for the loop."""

    programs: Mapping[str, str]
    reference: int
    parts: Mapping[str, int]
    why: str = ""


# --- the rule


def judge(then: Counts, now: Counts) -> tuple[list[str], list[str]]:
    """Lines to print, and the parts that grew by more than the bound, or are new.

    With the same programs counts are compared; with others, their ratios to the reference.
    """
    lines = []
    others = [
        f"{name} {then.programs.get(name, 'none')}, here {found}"
        for name, found in now.programs.items()
        if then.programs.get(name) != found
    ]
    bound, scale = BOUND, 1.0
    if others:
        bound, scale = BOUND_ELSEWHERE, now.reference / then.reference
        lines.append(
            f"NOTE: counted with other programs ({'; '.join(others)}): compared by the ratio to"
            f" the reference, {scale:.2f} of what it was, with {bound:.0%} in place of {BOUND:.0%}"
        )
    grown = []
    for part, count in now.parts.items():
        known = then.parts.get(part)
        if known is None:
            grown.append(part)
            lines.append(f"{part}: {count:,}, of which instructions.toml says nothing")
            continue
        lines.append(f"{part}: {count:,}, {count / (known * scale) - 1:+.1%}")
        if count > known * scale * (1 + bound):
            grown.append(part)
            lines.append(
                f"    more than {bound:.0%}: make it cheaper, or say why in CHANGELOG.md and with"
                ' scripts/count-instructions --write "WHY"'
            )
        elif count < known * scale * (1 - bound):
            lines.append('    cheaper: keep it with scripts/count-instructions --write "WHY"')
    return lines, grown


def lesser(one: Counts, two: Counts) -> Counts:
    """Of two counts of the same: what is more in one of them is not of the path."""
    parts = {part: min(count, two.parts.get(part, count)) for part, count in one.parts.items()}
    return replace(one, parts=parts)


def read(path: Path) -> Counts:
    """What is checked in."""
    text = tomllib.loads(path.read_text())
    return Counts(text["programs"], text["reference"], text["instructions"], text["why"])


def written(counts: Counts) -> str:
    """As the file has it."""
    why = "\n".join(f"# {line}" for line in textwrap.wrap(counts.why, 94))
    return "\n".join(
        (
            "# Written by scripts/count-instructions --write; read by it in .ci/run.",
            why,
            f"why = {_quoted(counts.why)}",
            f"reference = {counts.reference}",
            "\n[instructions]",
            *(f"{_quoted(part)} = {count}" for part, count in counts.parts.items()),
            "\n[programs]",
            *(f"{_quoted(name)} = {_quoted(found)}" for name, found in counts.programs.items()),
            "",
        )
    )


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


# --- counting


def programs() -> dict[str, str]:
    """What counts depend on, beside the agent."""
    from edge_agent.wasm.engine_selection import select_engine

    engine, _ = select_engine("auto")
    cpu = Path("/proc/cpuinfo").read_text()
    said = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True)
    return {
        "machine": platform.machine() + " with AVX2" * (" avx2 " in cpu),
        "python": sys.version,
        "libc": " ".join(platform.libc_ver()),
        "valgrind": said.stdout.strip(),
        "engine": f"{engine.name} {engine.version}",
        **{name: version(name) for name in ("protobuf", "msgpack", "paho-mqtt", "wasmtime")},
    }


def count_events(kind: str, burden: int = 0) -> dict[str, int]:
    """Instructions for each event, and what else is counted with this kind."""
    with tempfile.TemporaryDirectory(prefix="edge-count-") as name:
        folder = Path(name)
        marks, found = folder / "marks.so", folder / "counts"
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", marks, _MARKS], check=True)
        command = [
            *("valgrind", "--tool=callgrind", "--instr-atstart=no", "--vgdb=no"),
            *("-q", f"--callgrind-out-file={found}"),
            *(sys.executable, "-m", "scripts.benchmarks.counted_agent"),
            *(str(folder), str(marks), kind, str(burden)),
        ]
        done = subprocess.run(
            command, cwd=ROOT, env=_environment(), capture_output=True, text=True, timeout=WAIT_S
        )
        if done.returncode:
            log = folder / "log"
            said = log.read_text()[-2000:] if log.exists() else ""
            raise RuntimeError(f"{kind}: {done.stderr[-4000:]}\n{said}")
        return differences([each.read_text() for each in folder.glob("counts.*")])


_NAMED = re.compile(r"^desc: Trigger: Client Request: (.+) (\d+)$", re.MULTILINE)
_TOTALS = re.compile(r"^totals: (\d+)$", re.MULTILINE)


def differences(dumps: list[str]) -> dict[str, int]:
    """Files of callgrind -> instructions of a round: between FEW and MANY of them, of the least
    that any series had."""
    least: dict[str, dict[int, int]] = {}
    for text in dumps:
        named, total = _NAMED.search(text), _TOTALS.search(text)
        if named is not None and total is not None:
            rounds, counts = int(named[2]), least.setdefault(named[1], {})
            counts[rounds] = min(int(total[1]), counts.get(rounds, int(total[1])))
    return {
        name: round((counts[MANY] - counts[FEW]) / (MANY - FEW)) for name, counts in least.items()
    }


def count_start() -> int:
    """Instructions of the agent and its compilers, until all plugins are registered."""
    with tempfile.TemporaryDirectory(prefix="edge-count-") as name:
        folder = Path(name)
        config = _fresh(folder)
        command = [
            *("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"),
            *("--trace-children=yes", "--vgdb=no", f"--log-file={folder}/counts.%p"),
            *(sys.executable, "-m", "edge_agent", "run", "-c", str(config)),
        ]
        with (
            NriService(folder / "nri.sock", request_timeout_s=WAIT_S) as runtime,
            (folder / "log").open("ab") as log,
        ):
            # Python writes its compiled modules at the first import, whenever that was.
            subprocess.run(
                [sys.executable, "-m", "compileall", "-q", ROOT / "edge_agent"], check=True
            )
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            try:
                _wait_for(runtime, process, folder / "log")
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(WAIT_S)
        return sum(_refs(each.read_text()) for each in folder.glob("counts.*"))


def _fresh(folder: Path) -> Path:
    plugins = folder / "plugins"
    plugins.mkdir()
    for identity, module in guests.c_plugins(_START_PLUGINS).items():
        # Or a placeholder would be registered first while the module is compiled.
        (plugins / f"{identity}.toml").write_text('failure_policy = "Ignore"\n')
        (plugins / f"{identity}.wasm").write_bytes(module)
    config = folder / "agent.toml"
    config.write_text(
        f'node = "counted"\nplugin_dir = "{plugins}"\nstate_dir = "{folder}/state"\n'
        f'control_socket = "{folder}/control.sock"\n[nri]\nsockets = ["{folder}/nri.sock"]\n'
    )
    return config


def _wait_for(runtime: NriService, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + WAIT_S
    while len(runtime.plugins()) < _START_PLUGINS:
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"the plugins do not start: {log.read_text()[-4000:]}")
        time.sleep(0.05)


def _refs(text: str) -> int:
    """Of one process, cachegrind's log."""
    found = re.search(r"I +refs: +([\d,]+)", text)
    if found is None:
        raise RuntimeError(f"cachegrind counted nothing: {text[-2000:]}")
    return int(found[1].replace(",", ""))


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, **_ENVIRONMENT}


def count(parts: list[str], burden: int = 0) -> Counts:
    """Count these parts, two processes at a time."""
    wanted = {C if part == LINE else part for part in parts}
    kinds = [kind for kind in KINDS if kind in wanted] or [EMPTY]
    with ThreadPoolExecutor(2) as pool:
        start = pool.submit(count_start) if START in parts else None
        found = dict[str, int]()
        for counted in pool.map(lambda kind: count_events(kind, burden), kinds):
            found |= counted
        if start is not None:
            found[START] = start.result()
    reference = found.pop(REFERENCE)
    return Counts(programs(), reference, {part: found[part] for part in parts})


def main() -> int:
    """0: nothing grew; 1: something did."""
    parser = argparse.ArgumentParser(prog="scripts/count-instructions", description=__doc__)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this; repeatable")
    parser.add_argument(
        "--write", metavar="WHY", help="write the counts down, and why they changed"
    )
    parser.add_argument(
        "--burden", type=int, default=0, metavar="N", help="a loop with each event, for the test"
    )
    arguments = parser.parse_args()
    began = time.monotonic()
    now = count(arguments.part or list(PARTS), arguments.burden)
    if arguments.write is not None:
        then = read(FILE).parts if FILE.exists() else {}
        parts = {part: {**then, **now.parts}[part] for part in PARTS}
        FILE.write_text(written(Counts(now.programs, now.reference, parts, arguments.write)))
    lines, grown = judge(read(FILE), now)
    if grown:
        lines.append(f"counted once more: {', '.join(grown)}")
        again, grown = judge(read(FILE), lesser(now, count(grown, arguments.burden)))
        lines += again
    print(*lines, f"counted in {time.monotonic() - began:.0f} s", sep="\n")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
