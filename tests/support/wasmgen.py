"""Random Wasm modules that are valid: structured code over typed values.

`module(seed)` exports "run" (i32) -> i64, its memory and all its functions' helpers. Code
may loop and recurse for ever, trap, branch out of anything, and go on where it never gets.
"""

import random
import struct

from tests.support.assembler import Assembly, i32, i64, section, unsigned

LETTERS = "iIfF"
_BYTES = {"i": b"\x7f", "I": b"\x7e", "f": b"\x7d", "F": b"\x7c"}
_FLOATS_FROM = 32768  # below lie integers, so that no float is read that no float operation made
_TRICKY = (0, 1, 2, 3, 7, 31, 63, 64, 255, 65535, 65536, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


_Effect = tuple[str, int, str]
"""(what is on top of the stack before, how many that are, what is in its place after)"""


def _numeric() -> list[_Effect | None]:
    table: list[_Effect | None] = [None] * 256
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


_NUMERIC = _numeric()

# 0xFC and these: conversions that saturate.
_SATURATING: list[_Effect] = [
    (before, 1, after) for after in "iI" for before in "fF" for _signed in range(2)
]


def _operations() -> dict[str, list[tuple[str, bytes]]]:
    """By what they leave: what they take, and their bytes."""
    table: dict[str, list[tuple[str, bytes]]] = {letter: [] for letter in LETTERS}
    for code, effect in enumerate(_NUMERIC):
        # Not the bits of any integer as a float: a signalling NaN is not moved as it is by
        # an interpreter that keeps floats in registers of doubles (docs/adr/0010).
        if effect is not None and code not in (0xBE, 0xBF):
            table[effect[2]].append((effect[0], bytes([code])))
    for number, (before, _, after) in enumerate(_SATURATING):
        table[after].append((before, bytes([0xFC, number])))
    return table


_OPERATIONS = _operations()
_LOADS = {"i": (0x28, 0x2C, 0x2D, 0x2E, 0x2F), "I": (0x29, *range(0x30, 0x36))}
_STORES = {"i": (0x36, 0x3A, 0x3B), "I": (0x37, 0x3C, 0x3D, 0x3E), "f": (0x38,), "F": (0x39,)}


class _Function:
    """Code of one function. A label is what a branch to it takes along."""

    def __init__(self, chance: random.Random, kind: str, functions: list[str], size: int) -> None:
        self._chance = chance
        self._functions = functions
        self._left = size  # how many more instructions may have operands
        self._labels = [kind[-1].strip("-")]
        self.locals = [*kind[:-1], *chance.choices(LETTERS, k=chance.randrange(6))]
        self.code = b"".join(self._statement() for _ in range(chance.randrange(1, 6)))
        self.code += self._value(kind[-1]) if kind[-1] != "-" else b""

    def _pick(self, *ways: str) -> str:
        self._left -= 1
        return self._chance.choice(ways)

    def _value(self, kind: str) -> bytes:
        """Code that leaves one value."""
        chance = self._chance
        simple = ["constant", "local", "global"]
        more = ["operation"] * 4 + ["load", "block", "if", "call", "select", "tee", "indirect"]
        way = self._pick(*simple, *more) if self._left > 0 else chance.choice(simple)
        if way == "local" and kind in self.locals:
            return b"\x20" + unsigned(self._local(kind))
        if way == "global":
            return b"\x23" + unsigned(LETTERS.index(kind))
        if way == "operation":
            before, code = chance.choice(_OPERATIONS[kind])
            return b"".join(map(self._value, before)) + code
        if way == "load":
            if kind in "fF":
                return self._address(True) + (b"\x2a\x00\x00" if kind == "f" else b"\x2b\x00\x00")
            if chance.random() < 0.1 and kind == "i":
                return self._value("i") + (
                    b"\x40\x00" if chance.random() < 0.5 else b"\x1a\x3f\x00"
                )
            return self._address(False) + bytes([chance.choice(_LOADS[kind]), 0, 0])
        if way == "block":
            return self._within(b"\x02" + _BYTES[kind], kind, kind)
        if way == "if":
            then = self._within(b"\x04" + _BYTES[kind], kind, kind)[:-1]
            return self._value("i") + then + self._within(b"\x05", kind, kind)
        if way == "select":
            code = b"\x1b" if chance.random() < 0.7 else b"\x1c\x01" + _BYTES[kind]
            return self._value(kind) + self._value(kind) + self._value("i") + code
        if way == "tee" and kind in self.locals:
            return self._value(kind) + b"\x22" + unsigned(self._local(kind))
        if way in ("call", "indirect"):
            fitting = [at for at, one in enumerate(self._functions) if one[-1] == kind]
            if fitting:
                return self._call(chance.choice(fitting), way == "indirect")
        return self._constant(kind)

    def _statement(self) -> bytes:
        """Code that leaves nothing."""
        chance = self._chance
        if self._left <= 0:
            return b"\x01"
        way = self._pick(
            *("set", "store", "global", "block", "loop", "if", "drop", "branch if", "branch"),
            *("table", "copy", "return", "unreachable", "call", "set", "store"),
        )
        if way == "set" and self.locals:
            number = chance.randrange(len(self.locals))
            return self._value(self.locals[number]) + b"\x21" + unsigned(number)
        if way == "store":
            kind = chance.choice(LETTERS)
            code = bytes([chance.choice(_STORES[kind]), 0, 0])
            return self._address(kind in "fF") + self._value(kind) + code
        if way == "global":
            kind = chance.choice(LETTERS)
            return self._value(kind) + b"\x24" + unsigned(LETTERS.index(kind))
        if way == "block":
            return self._within(b"\x02\x40", "", "")
        if way == "loop":
            return self._within(b"\x03\x40", "", "")
        if way == "if":
            then = self._within(b"\x04\x40", "", "")
            if chance.random() < 0.5:
                then = then[:-1] + self._within(b"\x05", "", "")
            return self._value("i") + then
        if way == "branch if":
            number = chance.randrange(len(self._labels))
            code = self._carried(number) + self._value("i") + b"\x0d" + unsigned(number)
            return code + b"\x1a" * len(self._labels[-1 - number])
        if way in ("branch", "table", "return", "unreachable"):
            if chance.random() < 0.3:
                return self._leave(way)  # and what follows is never reached
            condition = self._value("i")
            self._labels.append("")
            leave = self._leave(way)
            self._labels.pop()
            return condition + b"\x04\x40" + leave + b"\x0b"
        if way == "copy":
            operands = i32(chance.randrange(4096)) + i32(chance.randrange(256))
            code = b"\xfc\x0a\x00\x00" if chance.random() < 0.5 else b"\xfc\x0b\x00"
            return operands + i32(chance.randrange(512)) + code
        if way == "call":
            number = chance.randrange(len(self._functions))
            dropped = b"\x1a" if self._functions[number][-1] != "-" else b""
            return self._call(number, chance.random() < 0.3) + dropped
        return self._value(chance.choice(LETTERS)) + b"\x1a"

    def _leave(self, way: str) -> bytes:
        chance = self._chance
        if way == "unreachable":
            return b"\x00"
        if way == "return":
            return self._carried(len(self._labels) - 1) + b"\x0f"
        number = chance.randrange(len(self._labels))
        if way == "branch":
            return self._carried(number) + b"\x0c" + unsigned(number)
        label = self._labels[-1 - number]
        alike = [at for at in range(len(self._labels)) if self._labels[-1 - at] == label]
        targets = chance.choices(alike, k=chance.randrange(1, 4))
        numbers = unsigned(len(targets) - 1) + b"".join(map(unsigned, targets))
        return self._carried(number) + self._value("i") + b"\x0e" + numbers

    def _within(self, opening: bytes, label: str, result: str) -> bytes:
        self._labels.append("" if opening[0] == 0x03 else label)
        inside = b"".join(self._statement() for _ in range(self._chance.randrange(4)))
        if result:
            inside += self._value(result)
        if opening[0] == 0x03 and self._chance.random() < 0.7:
            inside += self._value("i") + b"\x0d\x00"
        self._labels.pop()
        return opening + inside + b"\x0b"

    def _carried(self, number: int) -> bytes:
        return b"".join(map(self._value, self._labels[-1 - number]))

    def _call(self, number: int, indirect: bool) -> bytes:
        kind = self._functions[number]
        arguments = b"".join(map(self._value, kind[:-1]))
        if not indirect:
            return arguments + b"\x10" + unsigned(number)
        # The table has each function at its number and one that is empty.
        at = number if self._chance.random() < 0.9 else self._chance.randrange(10)
        types = list(dict.fromkeys(self._functions))
        return arguments + i32(at) + b"\x11" + unsigned(types.index(kind)) + b"\x80\x80\x00"

    def _address(self, floats: bool) -> bytes:
        """Mostly within the memory, of one page."""
        start = _FLOATS_FROM if floats else 0
        if self._chance.random() < 0.05:
            return i32(65536 + self._chance.randrange(-16, 70000))
        mask = 0x3FF8 if floats else 0x3FFF
        return self._value("i") + i32(mask) + b"\x71" + i32(start) + b"\x6a"

    def _local(self, kind: str) -> int:
        return self._chance.choice([at for at, one in enumerate(self.locals) if one == kind])

    def _constant(self, kind: str) -> bytes:
        chance = self._chance
        if kind == "f":
            return b"\x43" + struct.pack("<f", chance.choice((0.0, -0.0, 1.5, -1e30, 1e38)))
        if kind == "F":
            return b"\x44" + struct.pack("<d", chance.choice((0.0, -0.0, 0.1, -1e300, 5e-324)))
        if chance.random() < 0.5:
            return i32(chance.choice(_TRICKY)) if kind == "i" else i64(chance.choice(_TRICKY) << 7)
        return i32(chance.getrandbits(32)) if kind == "i" else i64(chance.getrandbits(64))


def module(seed: int, size: int = 60, *, plugin: bool = False) -> bytes:
    """A module; about `size` instructions in each function.

    As a `plugin`, its plugin_create_container gives the request's size to `run` and answers
    the result, 8 bytes.
    """
    chance = random.Random(seed)
    functions = ["iI"]
    for _ in range(chance.randrange(5)):
        params = "".join(chance.choices(LETTERS, k=chance.randrange(4)))
        functions.append(params + chance.choice("iIfF-"))
    made = Assembly(1)
    for letter in LETTERS:
        zero = {"i": i32(7), "I": i64(-7), "f": b"\x43" + bytes(4), "F": b"\x44" + bytes(8)}
        made.entries[6].append(_BYTES[letter] + b"\x01" + zero[letter] + b"\x0b")
    for number, kind in enumerate(functions):
        body = _Function(chance, kind, functions, size)
        own = body.locals[len(kind) - 1 :]
        groups = unsigned(len(own)) + b"".join(b"\x01" + _BYTES[one] for one in own)
        export = "run" if number == 0 else ""
        made.function(kind, body.code, export=export, local_types=groups)
    if plugin:
        _add_abi(made)
    made.entries[4].append(b"\x70\0" + unsigned(len(functions) + 1))
    numbers = b"".join(map(unsigned, range(len(functions))))
    made.entries[9].append(b"\0" + i32(0) + b"\x0b" + unsigned(len(functions)) + numbers)
    made.data(16, chance.randbytes(200))
    # What producers leave in a module, and no engine needs.
    return made.build() + section(0, b"\x04name" + chance.randbytes(9))


def _add_abi(made: Assembly) -> None:
    request, reply = 40_000, 50_000
    made.function("I", i64(1), export="plugin_api_version")
    made.function("ii", i32(request), export="malloc")
    made.function("i-", b"", export="free")
    result = i32(reply) + b"\x20\x01" + b"\x10\x00" + b"\x37\x03\x00"
    made.function("iiI", result + i64(reply << 32 | 8), export="plugin_create_container")
