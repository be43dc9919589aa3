"""A whole module, section by section: checked, and made ready to be written again."""

from collections.abc import Callable

from edge_agent.text import printable
from edge_agent.wasm.engine import FUEL_EXPORT
from edge_agent.wasm.instrument import opcodes
from edge_agent.wasm.instrument.binary import (
    Cursor,
    InvalidError,
    UnsupportedError,
    letter,
    section,
    signed,
    unsigned,
)
from edge_agent.wasm.instrument.body import Body
from edge_agent.wasm.instrument.shape import (
    MAX_PAGES,
    Export,
    Parts,
    Section,
    Surroundings,
    Type,
)
from edge_agent.wasm.module import inspect

_MAX_SHOWN = 120  # characters of a name in a message
_MAX_TABLE = 100_000  # elements, as much as one list may have; and all that wasm3 takes
_CONSTANTS = {0x41: "i", 0x42: "I", 0x43: "f", 0x44: "F"}


class Reader:
    """Reads the sections in their order, checks them, and keeps what the module becomes."""

    def __init__(self, wasm: bytes, frame_bytes: int, loop_bytes: int) -> None:
        inspect(wasm)  # the order of the sections, and that each ends where it says
        self._wasm = wasm
        self._frame_bytes = frame_bytes
        self._loop_bytes = loop_bytes
        self._parts = Parts()

    def read(self) -> Parts:
        readers: dict[int, Callable[[Cursor], None]] = {
            Section.TYPE: self._read_types,
            Section.IMPORT: self._read_imports,
            Section.FUNCTION: self._read_functions,
            Section.TABLE: self._read_tables,
            Section.MEMORY: self._read_memories,
            Section.GLOBAL: self._read_globals,
            Section.EXPORT: self._read_exports,
            Section.START: self._read_start,
            Section.ELEMENT: self._read_elements,
            Section.CODE: self._read_code,
            Section.DATA: self._read_data,
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
            elif number == Section.TAG:
                raise UnsupportedError("exceptions (build it without them)")
        if len(self._parts.bodies) != len(self._parts.functions) - self._parts.imported:
            raise InvalidError("functions without code")
        return self._parts

    def _read_types(self, part: Cursor) -> None:
        for _ in range(part.count()):
            if part.byte() != 0x60:
                raise UnsupportedError("types other than those of functions")
            params = "".join(letter(part.byte()) for _ in range(part.count()))
            self._parts.types.append(
                Type(params, "".join(letter(part.byte()) for _ in range(part.count())))
            )

    def _read_imports(self, part: Cursor) -> None:
        count = part.count()
        start = part.at
        for _ in range(count):
            where, field, kind = part.name(), part.name(), part.byte()
            if kind != 0:
                word = {1: "table", 2: "memory", 3: "global"}.get(kind, "thing")
                shown = printable(f"{where.decode()}.{field.decode()}"[:_MAX_SHOWN])
                raise UnsupportedError(f"an import that is no function: {shown} ({word})")
            self._parts.functions.append(self._type_number(part))
        self._parts.imported = count
        self._parts.imports = section(Section.IMPORT, count, part.data[start : part.at])

    def _read_functions(self, part: Cursor) -> None:
        self._parts.functions += [self._type_number(part) for _ in range(part.count())]

    def _type_number(self, part: Cursor) -> int:
        number = part.u32()
        if number >= len(self._parts.types):
            raise InvalidError(f"there is no type {number}")
        return number

    def _read_tables(self, part: Cursor) -> None:
        count = part.count()
        for _ in range(count):
            if part.byte() != 0x70:
                raise UnsupportedError("a table of something else than functions")
            self._parts.table, _ = part.limits()
            if self._parts.table > _MAX_TABLE:
                raise UnsupportedError(f"a table of more than {_MAX_TABLE} elements")
        if count > 1:
            raise UnsupportedError("several tables")

    def _read_memories(self, part: Cursor) -> None:
        for _ in range(part.count()):
            self._parts.memory = minimum, maximum = part.limits()
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
            self._parts.globals.append((kind, bool(mutable)))
        self._parts.initial = part.data[start : part.at]

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
            len(self._parts.functions),
            0 if self._parts.table is None else 1,
            0 if self._parts.memory is None else 1,
            len(self._parts.globals),
        )
        seen = set()
        for _ in range(part.count()):
            name, kind, number = part.name(), part.byte(), part.u32()
            if kind > 3 or number >= many[kind]:
                raise InvalidError("an export of what is not there")
            if name in seen:
                raise InvalidError(f"two exports called {name.decode()[:_MAX_SHOWN]!r}")
            if name == FUEL_EXPORT.encode():
                raise UnsupportedError(f"an export called {FUEL_EXPORT!r}")
            seen.add(name)
            if kind in (0, 2):  # a host has no use for the others
                self._parts.exports.append(Export(name, kind, number))

    def _read_start(self, part: Cursor) -> None:
        self._parts.start = part.u32()
        if self._parts.start >= len(self._parts.functions) or self._type_of(self._parts.start) != (
            "",
            "",
        ):
            raise InvalidError("a start function that is none")

    def _type_of(self, function: int) -> Type:
        return self._parts.types[self._parts.functions[function]]

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
                if (part.u32() if explicit else 0) != 0 or self._parts.table is None:
                    raise InvalidError("elements of no table")
                kind, offset = self._constant(part)
                if kind != "i":
                    raise InvalidError("elements at no place")
            if flags & 3 and part.byte() != (0x70 if expressions else 0):
                raise UnsupportedError("elements that are no functions")
            functions = [self._element(part, bool(expressions)) for _ in range(part.count())]
            if active:
                if offset + len(functions) > (self._parts.table or 0):
                    raise InvalidError("elements beyond the end of their table")
                entries += b"\0\x41" + signed(offset) + b"\x0b" + unsigned(len(functions))
                entries += b"".join(map(unsigned, functions))
                kept += 1
        self._parts.elements = (kept, entries)

    def _element(self, part: Cursor, expression: bool) -> int:
        if expression and part.byte() != 0xD2:
            raise UnsupportedError("elements that are not simply functions")
        number = part.u32()
        if expression and part.byte() != 0x0B:
            raise UnsupportedError("elements that are not simply functions")
        if number >= len(self._parts.functions):
            raise InvalidError(f"there is no function {number}")
        return number

    def _read_code(self, part: Cursor) -> None:
        count = part.count()
        if count != len(self._parts.functions) - self._parts.imported:
            raise InvalidError("another number of functions than of bodies")
        around = Surroundings(
            types=self._parts.types,
            functions=[self._parts.types[number] for number in self._parts.functions],
            globals=self._parts.globals,
            memory=self._parts.memory is not None,
            table=self._parts.table is not None,
            fuel=len(self._parts.globals),
            grow=len(self._parts.functions),
            frame_bytes=self._frame_bytes,
            loop_bytes=self._loop_bytes,
        )
        for at in range(count):
            body = Body(around, around.functions[self._parts.imported + at], part.take(part.u32()))
            try:
                self._parts.bodies.append(body.write())
            except (InvalidError, UnsupportedError) as error:
                error.args = (f"{error} (in function {self._parts.imported + at})",)
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
                if self._parts.memory is None:
                    raise InvalidError("data of no memory")
                kind, offset = self._constant(part)
                if kind != "i":
                    raise InvalidError("data at no place")
                place = b"\0\x41" + signed((offset ^ 1 << 31) - (1 << 31)) + b"\x0b"
            content = part.take(part.u32())
            if flags != 1:
                entries += [place, unsigned(len(content)), content]
                kept += 1
        self._parts.data = (kept, b"".join(entries))
