"""The process that runs the inputs: it may die, and is watched by its parent.

On stdin an input after the other: a line of JSON (`size`, `seed`, `valid`), then the module. On
stdout a line of JSON for each: `findings`, `counts`.
"""

import json
import resource
import sys
import tempfile
import traceback
from pathlib import Path

from edge_agent.wasm.engine import Engine
from tests.fuzz.examine import Report, examine
from tests.support import engines

# Of private memory that can be written; the engines reserve far more addresses than they use.
_DATA_BYTES = 2 << 30


def main(names: list[str]) -> None:
    """Serve until stdin ends, on the engines of these names and their narrow kinds."""
    resource.setrlimit(resource.RLIMIT_DATA, (_DATA_BYTES, _DATA_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sides = [_side(names, narrow) for narrow in (False, True)]
    with tempfile.TemporaryDirectory() as folder:
        while line := sys.stdin.buffer.readline():
            task = json.loads(line)
            wasm = sys.stdin.buffer.read(task["size"])
            report = Report()
            try:
                examine(
                    wasm,
                    sides[task["seed"] % 2],
                    Path(folder),
                    valid=task["valid"],
                    report=report,
                )
            except Exception:
                report.findings.append(traceback.format_exc())
            answer = {"findings": report.findings, "counts": report.counts}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


def _side(names: list[str], narrow: bool) -> dict[str, Engine]:
    """The engines, with memories of one of both kinds."""
    made = {}
    for name in names:
        kind = f"{name}-narrow" if narrow and f"{name}-narrow" in engines.ENGINES else name
        engine = engines.make(kind)
        if isinstance(engine, str):
            raise SystemExit(engine)
        made[kind] = engine
    return made


if __name__ == "__main__":
    main(sys.argv[1:])
