"""What random modules compute, written down on one architecture and looked up on the others.

Where there is one engine only there is nothing to compare it with on that board.
`python -m tests.wasm.test_outcomes` writes the file anew, by Wasmtime.
"""

import hashlib
import tempfile
from functools import cache
from pathlib import Path

from edge_agent.errors import GuestFault
from edge_agent.wasm.engine import Engine
from tests.support import engines, wasmgen
from tests.wasm.lab import ROOT, Bench, Lab

# seed, digest of the module, digest of what it computes; a line for each
WRITTEN = ROOT / "tests" / "data" / "random-modules.txt"
SEEDS = range(400)
PAGES = 8
FUEL = 5000
STACK_BYTES = 2 << 20  # enough for any recursion that the fuel pays for


@cache
def module(seed: int) -> bytes:
    return wasmgen.module(seed, plugin=True)


def short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def line(lab: Lab, seed: int) -> str:
    """What a call comes to, the fuel that it took, and all that it left in memory."""
    running = lab.start(module(seed), fuel=FUEL, stack_bytes=STACK_BYTES, memory_bytes=PAGES << 16)
    instance = running.instance
    result: object
    try:
        result = running.call("create_container", bytes(seed % 97 + 1))
    except GuestFault as fault:
        result = fault.kind
    memory = instance.read(0, instance.memory_bytes)  # type: ignore[attr-defined]
    outcome = repr((result, instance.fuel_used, short(memory)))
    instance.close()
    lab.forget(running)
    lab.bench.module(module(seed), STACK_BYTES, True)[0].close()
    return f"{seed} {short(module(seed))} {short(outcome.encode())}"


def lines(engine: Engine, folder: Path) -> list[str]:
    lab = Lab(Bench(engine, folder))
    return [line(lab, seed) for seed in SEEDS]


def test_the_modules_are_those_that_were_written_down() -> None:
    # Else the next test compares nothing: the generator changed, or Python's random numbers.
    written = [each.split()[:2] for each in WRITTEN.read_text().splitlines()]
    assert [[str(seed), short(module(seed))] for seed in SEEDS] == written


def test_each_engine_computes_here_what_was_written_down(engine: Engine, tmp_path: Path) -> None:
    assert lines(engine, tmp_path) == WRITTEN.read_text().splitlines()


if __name__ == "__main__":
    made = engines.make("wasmtime")
    if isinstance(made, str):
        raise SystemExit(made)
    with tempfile.TemporaryDirectory() as place:
        WRITTEN.write_text("".join(f"{each}\n" for each in lines(made, Path(place))))
