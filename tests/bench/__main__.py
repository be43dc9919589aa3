"""`scripts/bench`: measure, print tables, write JSON."""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench import engine, latency, memory, report, start
from tests.bench.machine import machine, versions
from tests.support.gobuild import GO_MISSING, go_is_installed

PARTS = {"latency": latency, "engine": engine, "memory": memory, "start": start}


def main() -> int:
    """0: measured, whatever the figures; 1: it could not be."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a first look")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this; repeatable")
    arguments = parser.parse_args()
    if not go_is_installed():
        print(f"{GO_MISSING}: upstream's runtime side cannot be built", file=sys.stderr)
        return 1
    began = time.time()
    result: dict[str, Any] = {"machine": machine(), "quick": arguments.quick, "parts": {}}
    for name in arguments.part or PARTS:
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
    result["versions"] = versions()
    result["seconds"] = round(time.time() - began)
    for name in ("machine", "versions"):
        print(f"{name}: {', '.join(f'{key} {value}' for key, value in result[name].items())}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def _say(text: str) -> None:
    """What is going on, for somebody who waits."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
