"""The instructions without control flow, as a table: what they take and leave.

https://webassembly.github.io/spec/core/appendix/index-instructions.html
Types are letters: i is i32, I is i64, f is f32, F is f64.
"""

import struct

from edge_agent.wasm.instrument.binary import InvalidError

Effect = tuple[str, int, str]
"""(what is on top of the stack before, how many that are, what is in its place after)"""


def _numeric() -> list[Effect | None]:
    table: list[Effect | None] = [None] * 256
    rows = (
        (0x45, 1, "i", "i"),  # i32.eqz
        (0x46, 10, "ii", "i"),
        (0x50, 1, "I", "i"),  # i64.eqz
        (0x51, 10, "II", "i"),
        (0x5B, 6, "ff", "i"),
        (0x61, 6, "FF", "i"),
        (0x67, 3, "i", "i"),
        (0x6A, 15, "ii", "i"),
        (0x79, 3, "I", "I"),
        (0x7C, 15, "II", "I"),
        (0x8B, 7, "f", "f"),
        (0x92, 7, "ff", "f"),
        (0x99, 7, "F", "F"),
        (0xA0, 7, "FF", "F"),
    )
    for first, count, before, after in rows:
        for code in range(first, first + count):
            table[code] = (before, len(before), after)
    # From i32.wrap_i64 to f64.reinterpret_i64, then the sign extensions.
    conversions = {
        0xA7: "I>i f>i f>i F>i F>i i>I i>I f>I f>I F>I F>I i>f i>f I>f I>f F>f",
        0xB7: "i>F i>F I>F I>F f>F f>i F>I i>f I>F i>i i>i I>I I>I I>I",
    }
    for first, pairs in conversions.items():
        for at, pair in enumerate(pairs.split()):
            before, after = pair.split(">")
            table[first + at] = (before, 1, after)
    return table


NUMERIC = _numeric()

# 0xFC and these: conversions that saturate.
SATURATING: list[Effect] = [
    (before, 1, after) for after in "iI" for before in "fF" for _signed in range(2)
]

# Loads and stores, and the largest alignment (as a power of two) that each may claim.
MEMORY: list[tuple[Effect, int] | None] = [None] * 256
for _at, _loaded in enumerate("iIfFiiiiIIIIII"):
    MEMORY[0x28 + _at] = (("i", 1, _loaded), (2, 3, 2, 3, 0, 0, 1, 1, 0, 0, 1, 1, 2, 2)[_at])
for _at, _stored in enumerate("iIfFiiIII"):
    MEMORY[0x36 + _at] = (("i" + _stored, 2, ""), (2, 3, 2, 3, 0, 1, 0, 1, 2)[_at])

# How many bytes they have at most, and which bits of the last one repeat the sign.
CONSTANTS = {0x41: ("i", 5, 0x78), 0x42: ("I", 10, 0x7F)}
FLOATS = {0x43: ("f", 4), 0x44: ("F", 8)}

# Those whose result may be a NaN of which the specification leaves bits open.
NAN_OF_32 = frozenset([*range(0x8D, 0x98), 0xB6])
NAN_OF_64 = frozenset([*range(0x9B, 0xA6), 0xBB])
CANONICAL_32 = b"\x43" + struct.pack("<I", 0x7FC00000)
CANONICAL_64 = b"\x44" + struct.pack("<Q", 0x7FF8000000000000)
EQUAL_32, EQUAL_64 = b"\x5b", b"\x61"


def check_constant(data: bytes, most: int, spare: int) -> None:
    """InvalidError: these bytes are more than an integer of their size has."""
    if len(data) > most or data[-1] & spare not in (0, spare):
        raise InvalidError("a constant that is too large")
