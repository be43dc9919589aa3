"""What a module consists of, between being read and being written again."""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

MAX_PAGES = 65536


class Section(IntEnum):
    """The sections by their numbers."""

    TYPE = 1
    IMPORT = 2
    FUNCTION = 3
    TABLE = 4
    MEMORY = 5
    GLOBAL = 6
    EXPORT = 7
    START = 8
    ELEMENT = 9
    CODE = 10
    DATA = 11
    TAG = 13


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


class Export(NamedTuple):
    """`kind` is 0 for a function, 1 table, 2 memory, 3 global."""

    name: bytes
    kind: int
    number: int


@dataclass(slots=True)
class Parts:
    """What is read of a module, and the code that was written again.

    `functions` are types, of the imported ones first; a table is its size, a memory its
    limits in pages. `imports`, `initial` (the globals'), `elements` and `data` are kept as
    they are to be written, the last two with how many they are.
    """

    types: list[Type] = field(default_factory=list)
    imports: bytes = b""
    imported: int = 0
    functions: list[int] = field(default_factory=list)
    table: int | None = None
    memory: tuple[int, int | None] | None = None
    globals: list[tuple[str, bool]] = field(default_factory=list)
    initial: bytes = b""
    exports: list[Export] = field(default_factory=list)
    start: int | None = None
    elements: tuple[int, bytes] = (0, b"")
    bodies: list[bytes] = field(default_factory=list)
    data: tuple[int, bytes] = (0, b"")
