"""Wasm that keeps its own limits: fuel that is counted, and memory with a maximum.

For engines that have no such limits, and for the same cut-off on every engine and
processor. Pure Python, once for each module, where it is compiled:

    made = instrument(wasm)
    wasm = capped(made, 32 << 20)

The module that comes out has one global more, exported as `engine.FUEL_EXPORT`: an i64 that each
function's entry and each round of a loop lowers by the number of instructions that can
run until the next such place. Where it falls below zero the code traps as `unreachable`.
Results of floating-point operations are canonical if they are NaN, as native engines are
set to make them here.

What comes in is checked as a validator does, since not every engine is one; only what the
smallest engine has is taken: 1.0, sign extension, saturating conversions, multiple values,
memory.copy and memory.fill, mutable globals. Custom sections are dropped.
"""

from typing import TYPE_CHECKING

from edge_agent.wasm.instrument.binary import (
    MAXIMUM_BYTES,
    InvalidError,
    UnsupportedError,
    unsigned,
)
from edge_agent.wasm.instrument.shape import MAX_PAGES
from edge_agent.wasm.module import PAGE_BYTES

if TYPE_CHECKING:
    from edge_agent.wasm.instrument.writing import Instrumented

__all__ = [
    "InvalidError",
    "UnsupportedError",
    "capped",
    "instrument",
    "maximum",
]


def instrument(wasm: bytes, *, frame_bytes: int = 0, loop_bytes: int = 0) -> "Instrumented":
    """Rewrite a module. InvalidError, UnsupportedError (ModuleError): it is not taken.

    `frame_bytes`, `loop_bytes`: see `body.Surroundings`; for an engine whose stack overflows
    natively before it notices.
    """
    # The agent itself only writes maxima.
    from edge_agent.wasm.instrument.sections import Reader
    from edge_agent.wasm.instrument.writing import write

    return write(Reader(wasm, frame_bytes, loop_bytes).read())


def maximum(memory_bytes: int) -> bytes:
    """The bytes to be written at `Instrumented.maximum_at` for a limit of memory."""
    return unsigned(min(memory_bytes // PAGE_BYTES, MAX_PAGES), MAXIMUM_BYTES)


def capped(made: "Instrumented", memory_bytes: int) -> bytes:
    """The module with its memory limited; whoever calls minds a lower maximum of its own."""
    at = made.maximum_at
    return made.wasm[:at] + maximum(memory_bytes) + made.wasm[at + MAXIMUM_BYTES :]
