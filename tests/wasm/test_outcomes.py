"""What random modules compute, written down on one architecture and looked up on the others.

Where only wasm3 runs there is nothing to compare it with, and it was made elsewhere.
`python -m tests.wasm.test_outcomes` writes the file anew, by Wasmtime.
"""

import hashlib
from functools import cache

import pytest

from edge_agent.wasm.instrument import capped, instrument
from tests.support import wasmgen
from tests.support.metered import Metered, Outcome, Wasm3Metered
from tests.wasm.lab import ROOT

# seed, digest of the module, digest of what it computes; a line for each
WRITTEN = ROOT / "tests" / "data" / "random-modules.txt"
SEEDS = range(400)
PAGES = 8
FUEL = 5000


@cache
def module(seed: int) -> bytes:
    instrumented = instrument(wasmgen.module(seed), frame_bytes=176, loop_bytes=64)
    return capped(instrumented, PAGES << 16)


def line(seed: int, outcome: Outcome) -> str:
    said = [short(module(seed)), short(repr(tuple(outcome)).encode())]
    return " ".join([str(seed), *said])


def short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def lines(engine: Metered | Wasm3Metered) -> list[str]:
    return [line(seed, engine.run(module(seed), seed & 0xFFFF, FUEL)) for seed in SEEDS]


def test_the_modules_are_those_that_were_written_down() -> None:
    # Else the next tests compare nothing: the generator changed, or Python's random numbers.
    written = [each.split()[:2] for each in WRITTEN.read_text().splitlines()]
    assert [[str(seed), short(module(seed))] for seed in SEEDS] == written


def test_wasm3_computes_here_what_was_written_down() -> None:
    assert lines(Wasm3Metered()) == WRITTEN.read_text().splitlines()


@pytest.mark.not_emulated("QEMU notes each page that was ever reserved, here 4 GiB for each module")
def test_wasmtime_computes_here_what_was_written_down() -> None:
    assert lines(Metered()) == WRITTEN.read_text().splitlines()


if __name__ == "__main__":
    WRITTEN.write_text("".join(f"{each}\n" for each in lines(Metered())))
