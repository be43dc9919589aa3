"""`scripts/bench`: measure, print tables, write JSON."""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scripts.benchmarks import (
    board,
    deadline,
    engine,
    fleet,
    imports,
    latency,
    memory,
    outbox,
    plot,
    report,
    restart,
    start,
    summary,
    swap,
)
from scripts.benchmarks.machine import load, machine, versions
from tests.support.gobuild import GO_MISSING, ROOT, go_is_installed

BEGIN, END = "<!-- written by scripts/bench --docs -->", "<!-- end -->"  # in the README
DRAWING = "benchmark-latency.svg"  # in docs/
PARTS = {
    "latency": latency,
    "engine": engine,
    "deadline": deadline,
    "memory": memory,
    "imports": imports,
    "start": start,
    "board": board,
    "swap": swap,
    "restart": restart,
    "fleet": fleet,
    "outbox": outbox,
}


def main() -> int:
    """0: measured, whatever the figures; 1: it could not be."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a first look")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--docs", action="store_true", help="write the tables into docs/")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this; repeatable")
    parser.add_argument(
        "--with",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        dest="kept",
        help="the other parts from there, written by --json with the same versions; repeatable",
    )
    arguments = parser.parse_args()
    if not go_is_installed():
        print(f"{GO_MISSING}: upstream's runtime side cannot be built", file=sys.stderr)
        return 1
    began = time.time()
    kept = [json.loads(file.read_text()) for file in arguments.kept]
    result: dict[str, Any] = {"machine": machine(), "quick": arguments.quick, "parts": {}}
    there = {name for run in kept for name in run["parts"]}
    for name in arguments.part or [name for name in PARTS if name not in there]:
        with tempfile.TemporaryDirectory(prefix="edge-bench-") as folder:
            found = PARTS[name].measure(Path(folder), arguments.quick, _say)
        found["aims"] = [
            {**asdict(aim), "met": aim.met, "text": str(aim)} for aim in PARTS[name].aims(found)
        ]
        result["parts"][name] = found
        print(f"\n{report.part(name, found)}\n")
        for aim in found["aims"]:
            print(f"- {aim['text']}")
        print(flush=True)
    result["machine"]["load_after"] = load()
    result["versions"] = versions()
    result["seconds"] = round(time.time() - began)
    for run in kept:
        join(result, run)
    print(summary.described(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    if arguments.docs:
        _write_docs(result, ROOT / "docs")
    return 0


def join(result: dict[str, Any], kept: Mapping[str, Any]) -> None:
    """Take the parts of another run that are not there. ValueError: it is not of the same kind.

    The machine was as busy as in the busier of both.
    """
    for key, now, then in (
        ("quick", result["quick"], kept["quick"]),
        ("cpu", result["machine"]["cpu"], kept["machine"]["cpu"]),
        ("versions", result["versions"], kept["versions"]),
    ):
        if now != then:
            raise ValueError(f"the runs differ in {key}: {now}, {then}")
    for key in ("load", "load_after"):
        result["machine"][key] = max(result["machine"][key], kept["machine"][key])
    for name in PARTS:  # in their order
        found = result["parts"].pop(name, kept["parts"].get(name))
        if found is not None:
            result["parts"][name] = found
    result["seconds"] += kept["seconds"]


def _write_docs(result: dict[str, Any], docs: Path) -> None:
    parts = result["parts"]
    aims = "\n".join(f"- {aim['text']}" for found in parts.values() for aim in found["aims"])
    about = "\n".join(f"    {line}" for line in summary.described(result).split("\n"))
    tables = "\n\n".join(f"## {report.part(name, found)}" for name, found in parts.items())
    drawing = ""
    if "latency" in parts:
        bars = [
            plot.Bar(name, found["median_us"], found["p99_us"])
            for name, found in parts["latency"]["contestants"].items()
        ]
        (docs / DRAWING).write_text(plot.bars("CreateContainer at the runtime, us", bars))
        drawing = f"![median and 99th percentile of each host]({DRAWING})\n\n"
    (docs / "benchmark-figures.md").write_text(
        "# Figures\n\nWritten by `scripts/bench --docs`; [benchmark.md](benchmark.md) tells what"
        f" they mean.\n\n{about}\n\n## Aims\n\n{aims}\n\n{drawing}{tables}\n"
    )
    if parts.keys() == PARTS.keys():
        shown = (summary.summary(result), summary.board(result), summary.fleet(result), about)
        text = "\n\n".join(shown) + "\n"
        (docs / "benchmark-table.md").write_text(text)
        _into_readme(summary.headline(result), docs.parent / "README.md")


def _into_readme(text: str, readme: Path) -> None:
    """In the place of what the last run wrote there."""
    before, _, rest = readme.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise RuntimeError(f"{readme} has no place for the table: {BEGIN} ... {END}")
    readme.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")


def _say(text: str) -> None:
    """What is going on, for somebody who waits."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
