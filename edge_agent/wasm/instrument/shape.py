"""What the functions of one module refer to, as they are checked and written again."""

from typing import NamedTuple


class Type(NamedTuple):
    """A function's parameters and results, as letters."""

    params: str
    results: str


class Surroundings(NamedTuple):
    """What the functions of one module refer to, and how they are to be written.

    `fuel` and `grow` are the numbers of a global and of a function. A function that
    calls others gets a frame of at least `frame_bytes` (parameters, results and locals, of
    8 bytes each), and `loop_bytes` more for each loop within a loop.
    """

    types: list[Type]
    functions: list[Type]
    globals: list[tuple[str, bool]]
    memory: bool
    table: bool
    fuel: int
    grow: int
    frame_bytes: int
    loop_bytes: int
