"""A whole module, written again: see `instrument`."""

from typing import NamedTuple

from edge_agent.wasm.instrument import opcodes
from edge_agent.wasm.instrument.binary import (
    BYTES,
    MAXIMUM_BYTES,
    Cursor,
    InvalidError,
    UnsupportedError,
    letter,
    named,
    section,
    signed,
    unsigned,
)
from edge_agent.wasm.instrument.body import Body
from edge_agent.wasm.instrument.shape import Surroundings, Type
from edge_agent.wasm.module import CORE_VERSION, MAGIC, inspect

FUEL = "edge-agent:fuel"  # the name under which the global is exported
MAX_PAGES = 65536
_MAX_TABLE = 100_000  # elements, as much as one list may have; and all that wasm3 takes
# An engine's own limit is 3; the others become functions that call the first.
_NAMES_OF_A_FUNCTION = 3

_TYPE, _IMPORT, _FUNCTION, _TABLE, _MEMORY, _GLOBAL, _EXPORT, _START, _ELEMENT, _CODE, _DATA = (
    range(1, 12)
)
_DATA_COUNT, _TAG = 12, 13
_GROW = Type("i", "i")
# memory.grow of more than there can be is refused here: an engine may add first.
_GROW_BODY = bytes.fromhex("00 2000 41ffff03 4b 047f 417f 05 2000 4000 0b 0b".replace(" ", ""))
_CONSTANTS = {0x41: "i", 0x42: "I", 0x43: "f", 0x44: "F"}


class Instrumented(NamedTuple):
    """A module that counts its fuel. `maximum_at`: where its memory's maximum is written."""

    wasm: bytes
    maximum_at: int


class _Export(NamedTuple):
    name: bytes
    kind: int
    number: int


class Writer:
    """Reads the sections in their order and keeps what the module becomes."""

    def __init__(self, wasm: bytes, frame_bytes: int, loop_bytes: int) -> None:
        inspect(wasm)  # the order of the sections, and that each ends where it says
        self._wasm = wasm
        self._frame_bytes = frame_bytes
        self._loop_bytes = loop_bytes
        self._types: list[Type] = []
        self._imports = b""
        self._imported = 0
        self._functions: list[int] = []  # types, of the imported ones too
        self._table: int | None = None  # its size
        self._memory: tuple[int, int | None] | None = None
        self._globals: list[tuple[str, bool]] = []
        self._initial = b""  # the globals' entries
        self._exports: list[_Export] = []
        self._start: int | None = None
        self._elements = (0, b"")
        self._bodies: list[bytes] = []
        self._data = (0, b"")

    def write(self) -> Instrumented:
        readers = {
            _TYPE: self._read_types,
            _IMPORT: self._read_imports,
            _FUNCTION: self._read_functions,
            _TABLE: self._read_tables,
            _MEMORY: self._read_memories,
            _GLOBAL: self._read_globals,
            _EXPORT: self._read_exports,
            _START: self._read_start,
            _ELEMENT: self._read_elements,
            _CODE: self._read_code,
            _DATA: self._read_data,
        }
        cursor = Cursor(self._wasm, 8, len(self._wasm))
        while cursor.at < cursor.end:
            number = cursor.byte()
            size = cursor.u32()
            part = Cursor(self._wasm, cursor.at, cursor.at + size)
            cursor.at += size
            if number in readers:
                readers[number](part)
                part.close()
            elif number == _TAG:
                raise UnsupportedError("exceptions (build it without them)")
        if len(self._bodies) != len(self._functions) - self._imported:
            raise InvalidError("functions without code")
        return self._built()

    # ---- reading ----

    def _read_types(self, part: Cursor) -> None:
        for _ in range(part.count()):
            if part.byte() != 0x60:
                raise UnsupportedError("types other than those of functions")
            params = "".join(letter(part.byte()) for _ in range(part.count()))
            self._types.append(
                Type(params, "".join(letter(part.byte()) for _ in range(part.count())))
            )

    def _read_imports(self, part: Cursor) -> None:
        count = part.count()
        start = part.at
        for _ in range(count):
            where, field, kind = part.name(), part.name(), part.byte()
            if kind != 0:
                word = {1: "table", 2: "memory", 3: "global"}.get(kind, "thing")
                shown = f"{where.decode()}.{field.decode()}"
                raise UnsupportedError(f"an import that is no function: {shown} ({word})")
            self._functions.append(self._type_number(part))
        self._imported = count
        self._imports = section(_IMPORT, count, part.data[start : part.at])

    def _read_functions(self, part: Cursor) -> None:
        self._functions += [self._type_number(part) for _ in range(part.count())]

    def _type_number(self, part: Cursor) -> int:
        number = part.u32()
        if number >= len(self._types):
            raise InvalidError(f"there is no type {number}")
        return number

    def _read_tables(self, part: Cursor) -> None:
        count = part.count()
        for _ in range(count):
            if part.byte() != 0x70:
                raise UnsupportedError("a table of something else than functions")
            self._table, _ = part.limits()
            if self._table > _MAX_TABLE:
                raise UnsupportedError(f"a table of more than {_MAX_TABLE} elements")
        if count > 1:
            raise UnsupportedError("several tables")

    def _read_memories(self, part: Cursor) -> None:
        for _ in range(part.count()):
            self._memory = minimum, maximum = part.limits()
            if max(minimum, maximum or 0) > MAX_PAGES:
                raise InvalidError(f"a memory of more than {MAX_PAGES} pages")

    def _read_globals(self, part: Cursor) -> None:
        count = part.count()
        start = part.at
        for _ in range(count):
            kind, mutable = letter(part.byte()), part.byte()
            if mutable > 1:
                raise InvalidError("a global that is neither constant nor variable")
            if self._constant(part)[0] != kind:
                raise InvalidError("a global that begins with a value of another type")
            self._globals.append((kind, bool(mutable)))
        self._initial = part.data[start : part.at]

    def _constant(self, part: Cursor) -> tuple[str, int]:
        """An expression that is one constant: its type, and its value if it is an i32."""
        op, value = part.byte(), 0
        if op not in _CONSTANTS:
            raise UnsupportedError("initial values that are not constants")
        kind = _CONSTANTS[op]
        if kind in "fF":
            part.take(4 if kind == "f" else 8)
        else:
            start, byte = part.at, 0x80
            while byte >= 0x80:
                byte = part.byte()
                value |= (byte & 0x7F) << 7 * (part.at - start - 1)
            _, most, spare = opcodes.CONSTANTS[op]
            if part.at - start >= most:
                opcodes.check_constant(part.data[start : part.at], most, spare)
            if byte & 0x40:
                value -= 1 << 7 * (part.at - start)
        if part.byte() != 0x0B:
            raise UnsupportedError("initial values that are not constants")
        return kind, value & 0xFFFFFFFF

    def _read_exports(self, part: Cursor) -> None:
        many = (
            len(self._functions),
            0 if self._table is None else 1,
            0 if self._memory is None else 1,
            len(self._globals),
        )
        seen = set()
        for _ in range(part.count()):
            name, kind, number = part.name(), part.byte(), part.u32()
            if kind > 3 or number >= many[kind]:
                raise InvalidError("an export of what is not there")
            if name in seen:
                raise InvalidError(f"two exports called {name.decode()!r}")
            if name == FUEL.encode():
                raise UnsupportedError(f"an export called {FUEL!r}")
            seen.add(name)
            if kind in (0, 2):  # a host has no use for the others
                self._exports.append(_Export(name, kind, number))

    def _read_start(self, part: Cursor) -> None:
        self._start = part.u32()
        if self._start >= len(self._functions) or self._type_of(self._start) != ("", ""):
            raise InvalidError("a start function that is none")

    def _type_of(self, function: int) -> Type:
        return self._types[self._functions[function]]

    def _read_elements(self, part: Cursor) -> None:
        """Active ones in their simplest form; passive ones, which nothing can use, go."""
        kept, entries = 0, b""
        for _ in range(part.count()):
            flags = part.u32()
            if flags > 7:
                raise InvalidError("elements of an unknown kind")
            active, explicit, expressions = not flags & 1, flags & 2, flags & 4
            offset = 0
            if active:
                if (part.u32() if explicit else 0) != 0 or self._table is None:
                    raise InvalidError("elements of no table")
                kind, offset = self._constant(part)
                if kind != "i":
                    raise InvalidError("elements at no place")
            if flags & 3 and part.byte() != (0x70 if expressions else 0):
                raise UnsupportedError("elements that are no functions")
            functions = [self._element(part, bool(expressions)) for _ in range(part.count())]
            if active:
                if offset + len(functions) > (self._table or 0):
                    raise InvalidError("elements beyond the end of their table")
                entries += b"\0\x41" + signed(offset) + b"\x0b" + unsigned(len(functions))
                entries += b"".join(map(unsigned, functions))
                kept += 1
        self._elements = (kept, entries)

    def _element(self, part: Cursor, expression: bool) -> int:
        if expression and part.byte() != 0xD2:
            raise UnsupportedError("elements that are not simply functions")
        number = part.u32()
        if expression and part.byte() != 0x0B:
            raise UnsupportedError("elements that are not simply functions")
        if number >= len(self._functions):
            raise InvalidError(f"there is no function {number}")
        return number

    def _read_code(self, part: Cursor) -> None:
        count = part.count()
        if count != len(self._functions) - self._imported:
            raise InvalidError("another number of functions than of bodies")
        around = Surroundings(
            types=self._types,
            functions=[self._types[number] for number in self._functions],
            globals=self._globals,
            memory=self._memory is not None,
            table=self._table is not None,
            fuel=len(self._globals),
            grow=len(self._functions),
            frame_bytes=self._frame_bytes,
            loop_bytes=self._loop_bytes,
        )
        for at in range(count):
            body = Body(around, around.functions[self._imported + at], part.take(part.u32()))
            try:
                self._bodies.append(body.write())
            except (InvalidError, UnsupportedError) as error:
                error.args = (f"{error} (in function {self._imported + at})",)
                raise

    def _read_data(self, part: Cursor) -> None:
        """Active ones; passive ones, which no instruction that is taken can use, go."""
        kept, entries = 0, []
        for _ in range(part.count()):
            flags = part.u32()
            if flags > 2:
                raise InvalidError("data of an unknown kind")
            if flags == 2 and part.u32() != 0:
                raise InvalidError("data of no memory")
            place = b""
            if flags != 1:
                if self._memory is None:
                    raise InvalidError("data of no memory")
                kind, offset = self._constant(part)
                if kind != "i":
                    raise InvalidError("data at no place")
                place = b"\0\x41" + signed((offset ^ 1 << 31) - (1 << 31)) + b"\x0b"
            content = part.take(part.u32())
            if flags != 1:
                entries += [place, unsigned(len(content)), content]
                kept += 1
        self._data = (kept, b"".join(entries))

    # ---- writing ----

    def _built(self) -> Instrumented:
        # Behind all others, so that no number changes: globals, types and functions.
        fuel_entry = b"\x7e\x01\x42" + signed((1 << 63) - 1) + b"\x0b"
        grow_type = len(self._types)
        functions = [*self._functions[self._imported :], grow_type]
        bodies = [*self._bodies, _GROW_BODY if self._memory else b"\0\x00\x0b"]
        exports = self._forwarded(functions, bodies)
        exports.append(_Export(FUEL.encode(), 3, len(self._globals)))
        minimum, maximum = self._memory or (0, 1)
        limit = MAX_PAGES if maximum is None else maximum
        memory = b"\x01" + unsigned(minimum) + unsigned(limit, MAXIMUM_BYTES)

        before = [
            MAGIC + CORE_VERSION,
            self._type_section(),
            self._imports,
            section(_FUNCTION, len(functions), b"".join(map(unsigned, functions))),
        ]
        if self._table is not None:
            before.append(section(_TABLE, 1, b"\x70\0" + unsigned(self._table)))
        before.append(section(_MEMORY, 1, memory))
        after = [
            section(_GLOBAL, len(self._globals) + 1, self._initial + fuel_entry),
            section(
                _EXPORT,
                len(exports),
                b"".join(
                    named(one.name) + bytes([one.kind]) + unsigned(one.number) for one in exports
                ),
            ),
        ]
        if self._start is not None:
            number = unsigned(self._start)
            after.append(bytes([_START]) + unsigned(len(number)) + number)
        after += [
            section(_ELEMENT, *self._elements),
            section(_CODE, len(bodies), b"".join(unsigned(len(one)) + one for one in bodies)),
            section(_DATA, *self._data),
        ]
        maximum_at = sum(map(len, before)) - MAXIMUM_BYTES
        return Instrumented(b"".join([*before, *after]), maximum_at)

    def _type_section(self) -> bytes:
        def encoded(letters: str) -> bytes:
            return unsigned(len(letters)) + b"".join(BYTES[one] for one in letters)

        types = [*self._types, _GROW]
        entries = [b"\x60" + encoded(kind.params) + encoded(kind.results) for kind in types]
        return section(_TYPE, len(types), b"".join(entries))

    def _forwarded(self, functions: list[int], bodies: list[bytes]) -> list[_Export]:
        """The exports, with functions added where one has more names than an engine takes."""
        names: dict[int, int] = {}
        exports = []
        for one in self._exports:
            if one.kind == 0:
                names[one.number] = names.get(one.number, 0) + 1
                if names[one.number] > _NAMES_OF_A_FUNCTION or one.number < self._imported:
                    kind = self._functions[one.number]
                    params = range(len(self._types[kind].params))
                    call = b"\x10" + unsigned(one.number) + b"\x0b"
                    bodies.append(b"\0" + b"".join(b"\x20" + unsigned(at) for at in params) + call)
                    functions.append(kind)
                    one = one._replace(number=self._imported + len(functions) - 1)
            exports.append(one)
        return exports
