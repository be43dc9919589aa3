"""Makes a module count its own instructions, for `limits.fuel`: alike on every engine.

The module that comes out has one global more, an i64 that is exported as `engine.FUEL_EXPORT`.
Each function's entry and each turn of a loop lowers this counter by the number of instructions
that can run until the next such place; below zero the code traps as `unreachable`. What comes in
need not be valid: nothing here makes an invalid module valid, and the engine validates the result.
docs/adr/0021-fuel-is-in-the-code.md, docs/adr/0046-wasmi.md.

Pure Python, once for each module, in the compiler's process. Binary format: WebAssembly core
specification, chapter 5.
"""

from edge_agent.errors import ModuleError
from edge_agent.wasm.engine import FUEL_EXPORT
from edge_agent.wasm.module import CORE_VERSION, MAGIC, inspect

_IMPORT, _GLOBAL, _EXPORT, _CODE = 2, 6, 7, 10
# Sections stand in this order (5.5.16), not in that of their numbers.
_ORDER = (1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11)
_FUNCTION_KIND, _GLOBAL_KIND = 0, 3
_FULL = (1 << 63) - 1

# What follows an opcode: nothing, a number, two numbers, a memory's access (two), a
# global's number, 4 or 8 bytes; or what is looked at one by one.
_NONE, _NUMBER, _TWO, _GLOBAL_NUMBER, _FOUR, _EIGHT, _SPECIAL, _UNKNOWN = range(8)
_PREFIX, _VECTOR = 0xFC, 0xFD
_BLOCK, _LOOP, _IF, _ELSE, _END = 0x02, 0x03, 0x04, 0x05, 0x0B
_UNREACHABLE, _BR, _BR_TABLE, _RETURN, _SELECT = 0x00, 0x0C, 0x0E, 0x0F, 0x1C
# return_call, return_call_indirect: they leave the function too.
_LEAVES = frozenset((_UNREACHABLE, _BR, _BR_TABLE, _RETURN, 0x12, 0x13))
# 0xFC and these have two numbers; up to 7 they are conversions and have none (5.4.8, 5.4.7).
_PREFIXED_TWO, _PREFIXED_LAST = frozenset((8, 10, 12, 14)), 17
_MULTIPLE_MEMORIES = 0x40  # a bit of an alignment, of a proposal that is not taken


def _table() -> bytes:
    table = bytearray([_UNKNOWN]) * 256
    for first, last, form in (
        (0x01, 0x01, _NONE),
        (0x0D, 0x0D, _NUMBER),  # br_if
        (0x10, 0x10, _NUMBER),  # call
        (0x11, 0x11, _TWO),  # call_indirect
        (0x1A, 0x1B, _NONE),
        (0x20, 0x22, _NUMBER),  # local.*
        (0x23, 0x24, _GLOBAL_NUMBER),
        (0x25, 0x26, _NUMBER),  # table.get, table.set
        (0x28, 0x3E, _TWO),  # loads and stores
        (0x3F, 0x42, _NUMBER),  # memory.size, memory.grow, constants
        (0x43, 0x43, _FOUR),
        (0x44, 0x44, _EIGHT),
        (0x45, 0xC4, _NONE),
        (0xD0, 0xD0, _NUMBER),  # ref.null
        (0xD1, 0xD1, _NONE),
        (0xD2, 0xD2, _NUMBER),
    ):
        for opcode in range(first, last + 1):
            table[opcode] = form
    for opcode in (_BLOCK, _LOOP, _IF, _ELSE, _END, *_LEAVES, _SELECT, _PREFIX, _VECTOR):
        table[opcode] = _SPECIAL
    return bytes(table)


_FORMS = _table()


def meter(wasm: bytes) -> bytes:
    """The module, counting. ModuleError: it is damaged, or has what cannot be counted."""
    inspect(wasm)  # the order of the sections, and that each ends where it says
    try:
        return _Module(wasm).metered()
    except IndexError:
        raise ModuleError("not valid Wasm: it is cut short") from None


def _check_custom(section: bytes) -> None:
    """ModuleError for a name that is no text: without the section the module would be valid."""
    size, start = read_u32(section, 0)
    name = section[start : start + size]
    try:
        name.decode()
    except UnicodeDecodeError:
        raise ModuleError("not valid Wasm: the name of a custom section is no UTF-8") from None
    if len(name) < size:
        raise IndexError


class _Module:
    """The sections of one module. IndexError from all methods: something is cut short."""

    def __init__(self, wasm: bytes) -> None:
        self._sections: dict[int, bytes] = {}
        at = len(MAGIC + CORE_VERSION)
        while at < len(wasm):
            size, start = read_u32(wasm, at + 1)
            section = wasm[start : start + size]
            if wasm[at]:
                self._sections[wasm[at]] = section
            else:
                _check_custom(section)  # for people, and left out
            at = start + size
        self._check_imports()
        self._fuel = read_u32(self._sections.get(_GLOBAL, b"\0"), 0)[0]  # behind the module's own

    def metered(self) -> bytes:
        number = _unsigned(self._fuel)
        entry = b"\x7e\x01\x42" + _signed(_FULL) + b"\x0b"
        export = _name(FUEL_EXPORT) + bytes([_GLOBAL_KIND]) + number
        if self._exports_fuel():
            raise ModuleError(f"the module exports {FUEL_EXPORT!r}, a name of the agent's own")
        self._sections[_GLOBAL] = _with(self._sections.get(_GLOBAL, b"\0"), entry)
        self._sections[_EXPORT] = _with(self._sections.get(_EXPORT, b"\0"), export)
        if _CODE in self._sections:
            self._sections[_CODE] = self._code(self._sections[_CODE])
        parts = [MAGIC + CORE_VERSION]
        for section in _ORDER:
            content = self._sections.get(section)
            if content is not None:
                parts += [bytes([section]), _unsigned(len(content)), content]
        return b"".join(parts)

    def _check_imports(self) -> None:
        """ModuleError: a global among them would move the numbers; none is offered anyway."""
        content = self._sections.get(_IMPORT, b"\0")
        count, at = read_u32(content, 0)
        for _ in range(count):
            for _ in range(2):
                size, at = read_u32(content, at)
                at += size
            if content[at] != _FUNCTION_KIND:
                raise ModuleError("the module imports something that is no function")
            _, at = read_u32(content, at + 1)

    def _exports_fuel(self) -> bool:
        content = self._sections.get(_EXPORT, b"\0")
        count, at = read_u32(content, 0)
        for _ in range(count):
            size, at = read_u32(content, at)
            if content[at : at + size] == FUEL_EXPORT.encode():
                return True
            kind = content[at + size]
            number, at = read_u32(content, at + size + 1)
            if kind == _GLOBAL_KIND and number >= self._fuel:
                raise ModuleError(f"not valid Wasm: there is no global {number}")
        return False

    def _code(self, content: bytes) -> bytes:
        count, at = read_u32(content, 0)
        parts = [content[:at]]
        for number in range(count):
            size, start = read_u32(content, at)
            at = start + size
            if at > len(content):
                raise IndexError
            try:
                body = _Body(content[start:at], self._fuel).metered()
            except ModuleError as error:
                raise ModuleError(f"{error} (in function {number})") from None
            parts += [_unsigned(len(body)), body]
        if at != len(content):
            raise ModuleError("not valid Wasm: the section of code goes on after its end")
        return b"".join(parts)


class _Body:
    """One function: its code, cut at the places where the counter is lowered."""

    def __init__(self, code: bytes, fuel: int) -> None:
        self._code = code
        self._fuel = fuel
        self._lowered = _unsigned(fuel)

    def metered(self) -> bytes:
        """The body without its length. IndexError: it is cut short. ModuleError."""
        code = self._code
        start = self._locals()
        # Where the counter is lowered, and by how much: at the entry and at each loop's head.
        places, costs = [start], [0]
        # Around each block: the place that its instructions are charged at, whether they run.
        blocks: list[tuple[int, bool]] = []
        place, runs, at = 0, True, start
        while True:
            opcode = code[at]
            form = _FORMS[opcode]
            at += 1
            if runs:
                costs[place] += 1
            if form == _NUMBER:
                while code[at] > 127:
                    at += 1
                at += 1
            elif form == _TWO:
                if 0x28 <= opcode <= 0x3E and code[at] & _MULTIPLE_MEMORIES:
                    raise ModuleError("not valid Wasm: a memory access of too large an alignment")
                for _ in range(2):
                    while code[at] > 127:
                        at += 1
                    at += 1
            elif form == _GLOBAL_NUMBER:
                number, at = read_u32(code, at)
                if number >= self._fuel:
                    raise ModuleError(f"not valid Wasm: there is no global {number}")
            elif form == _FOUR:
                at += 4
            elif form == _EIGHT:
                at += 8
            elif form == _UNKNOWN:
                raise ModuleError(f"the module has the instruction 0x{opcode:02x}: not counted")
            elif form == _SPECIAL:
                if opcode in (_BLOCK, _IF, _LOOP):
                    while code[at] > 127:
                        at += 1
                    at += 1
                    blocks.append((place, runs))
                    if opcode == _LOOP and runs:
                        place = len(places)
                        places.append(at)
                        costs.append(0)
                elif opcode == _ELSE:
                    if not blocks:
                        raise ModuleError("not valid Wasm: an else without its if")
                    runs = blocks[-1][1]
                elif opcode == _END:
                    if not blocks:
                        break
                    place, runs = blocks.pop()
                else:
                    at = self._rest(opcode, at)
                    if opcode in _LEAVES:
                        runs = False
        if at != len(code):
            raise ModuleError("not valid Wasm: code goes on after its end")
        out = [code[:start]]
        for begin, end, cost in zip(places, [*places[1:], at], costs, strict=True):
            out += [self._check(cost), code[begin:end]]
        return b"".join(out)

    def _locals(self) -> int:
        """The position of the first instruction, after the locals."""
        count, at = read_u32(self._code, 0)
        for _ in range(count):
            _, at = read_u32(self._code, at)
            if self._code[at] in (0x63, 0x64):  # a reference to a type, of a later proposal
                raise ModuleError("the module has typed references: not counted")
            at += 1
        return at

    def _rest(self, opcode: int, at: int) -> int:
        """The end of the instruction whose opcode ends at `at`."""
        code = self._code
        if opcode in (_BR, 0x12):
            return read_u32(code, at)[1]
        if opcode == 0x13:
            return read_u32(code, read_u32(code, at)[1])[1]
        if opcode == _BR_TABLE:
            count, at = read_u32(code, at)
            for _ in range(count + 1):
                _, at = read_u32(code, at)
            return at
        if opcode == _SELECT:
            count, at = read_u32(code, at)
            return at + count
        if opcode == _PREFIX:
            number, at = read_u32(code, at)
            if number > _PREFIXED_LAST:
                raise ModuleError(f"the module has the instruction 0xfc {number}: not counted")
            for _ in range(0 if number < 8 else 2 if number in _PREFIXED_TWO else 1):
                _, at = read_u32(code, at)
            return at
        if opcode == _VECTOR:
            return self._vector(at)
        return at

    def _vector(self, at: int) -> int:
        """An instruction of SIMD (5.4.9)."""
        number, at = read_u32(self._code, at)
        if number <= 11 or 84 <= number <= 93:  # loads and stores
            for _ in range(2):
                _, at = read_u32(self._code, at)
            return at + (84 <= number <= 91)  # and a lane
        if number in (12, 13):  # v128.const, i8x16.shuffle
            return at + 16
        if 21 <= number <= 34:  # a lane
            return at + 1
        if number > 255:
            raise ModuleError(f"the module has the instruction 0xfd {number}: not counted")
        return at

    def _check(self, cost: int) -> bytes:
        """fuel -= cost; if fuel < 0: unreachable"""
        lower = b"\x23" + self._lowered + b"\x42" + _signed(cost) + b"\x7d\x24" + self._lowered
        return lower + b"\x23" + self._lowered + b"\x42\x00\x53\x04\x40\x00\x0b"


def read_u32(data: bytes, at: int) -> tuple[int, int]:
    """(the LEB128 at `at`, where it ends). IndexError: cut. ModuleError: over 32 bits."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 28:
            raise ModuleError("not valid Wasm: a number of more than 32 bits")
    return value, at


def _unsigned(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _signed(value: int) -> bytes:
    out = bytearray()
    while not -64 <= value < 64:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value & 0x7F)
    return bytes(out)


def _name(name: str) -> bytes:
    raw = name.encode()
    return _unsigned(len(raw)) + raw


def _with(content: bytes, entry: bytes) -> bytes:
    """A section's list with one entry more."""
    count, at = read_u32(content, 0)
    return _unsigned(count + 1) + content[at:] + entry
