"""A small assembler: Wasm modules from a few lines of Python, where no compiler is at hand.

    module = Assembly()
    log = module.imported("env", "log", "iiI")
    module.function("iiI", get(0) + get(1) + call(log), export="plugin_configure")
    wasm = module.build()

A type is its letters, the result last: i is i32, I is i64, f is f32, F is f64; "-" is none.
"""

from collections import defaultdict

_TYPES = {"i": b"\x7f", "I": b"\x7e", "f": b"\x7d", "F": b"\x7c"}
_TYPE, _IMPORT, _FUNCTION, _MEMORY, _GLOBAL, _EXPORT, _START, _CODE, _DATA = (
    1,
    2,
    3,
    5,
    6,
    7,
    8,
    10,
    11,
)

UNREACHABLE, DROP, END = b"\x00", b"\x1a", b"\x0b"
ADD, EQZ = b"\x6a", b"\x45"  # of i32
SHL64, OR64, EXTEND = b"\x86", b"\x84", b"\xad"
LOAD, STORE, STORE64 = b"\x28\x02\x00", b"\x36\x02\x00", b"\x37\x03\x00"
MEMORY_SIZE, MEMORY_GROW = b"\x3f\x00", b"\x40\x00"
FOREVER = b"\x03\x40\x0c\x00\x0b"  # loop, br 0, end


def unsigned(value: int) -> bytes:
    """LEB128."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def signed(value: int) -> bytes:
    out = bytearray()
    while not -64 <= value < 64:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value & 0x7F])


def i32(value: int) -> bytes:
    """A constant, given signed or unsigned."""
    return b"\x41" + signed((value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000)


def i64(value: int) -> bytes:
    return b"\x42" + signed((value & (1 << 64) - 1 ^ 1 << 63) - (1 << 63))


def get(local: int) -> bytes:
    return b"\x20" + unsigned(local)


def get_global(number: int) -> bytes:
    return b"\x23" + unsigned(number)


def put_global(number: int) -> bytes:
    return b"\x24" + unsigned(number)


def call(function: int) -> bytes:
    return b"\x10" + unsigned(function)


def repeat(body: bytes) -> bytes:
    """`body`, which leaves one i32, again until that is zero."""
    return b"\x03\x40" + body + b"\x0d\x00" + END


def name(text: str) -> bytes:
    return unsigned(len(text.encode())) + text.encode()


def section(number: int, content: bytes) -> bytes:
    return bytes([number]) + unsigned(len(content)) + content


class Assembly:
    """Import before defining functions: both are numbered in one row."""

    def __init__(self, pages: int | None = 1) -> None:
        self.entries: defaultdict[int, list[bytes]] = defaultdict(list)  # by section
        self._functions = 0
        if pages is not None:
            self.entries[_MEMORY].append(b"\0" + unsigned(pages))
            self.entries[_EXPORT].append(name("memory") + b"\x02\x00")

    def imported(self, module: str, field: str, kind: str) -> int:
        self.imported_other(module, field, b"\0" + self._type(kind))
        self._functions += 1
        return self._functions - 1

    def imported_other(self, module: str, field: str, kind: bytes) -> None:
        """`kind`: the byte of the kind and what follows it."""
        self.entries[_IMPORT].append(name(module) + name(field) + kind)

    def function(
        self,
        kind: str,
        code: bytes,
        *,
        export: str = "",
        start: bool = False,
        local_types: bytes = b"\0",
    ) -> int:
        number, self._functions = self._functions, self._functions + 1
        self.entries[_FUNCTION].append(self._type(kind))
        body = local_types + code + END
        self.entries[_CODE].append(unsigned(len(body)) + body)
        if export:
            self.entries[_EXPORT].append(name(export) + b"\0" + unsigned(number))
        if start:
            self.entries[_START].append(unsigned(number))
        return number

    def global_i32(self, value: int) -> int:
        self.entries[_GLOBAL].append(b"\x7f\x01" + i32(value) + END)
        return len(self.entries[_GLOBAL]) - 1

    def data(self, offset: int, content: bytes) -> None:
        self.entries[_DATA].append(b"\0" + i32(offset) + END + unsigned(len(content)) + content)

    def build(self) -> bytes:
        parts = [b"\0asm\1\0\0\0"]
        for number in sorted(self.entries):
            entries = self.entries[number]
            count = b"" if number == _START else unsigned(len(entries))
            parts.append(section(number, count + b"".join(entries)))
        return b"".join(parts)

    def _type(self, kind: str) -> bytes:
        params, result = kind[:-1], kind[-1]
        results = b"\0" if result == "-" else b"\x01" + _TYPES[result]
        encoded = b"\x60" + unsigned(len(params)) + b"".join(_TYPES[one] for one in params)
        if encoded + results not in self.entries[_TYPE]:
            self.entries[_TYPE].append(encoded + results)
        return unsigned(self.entries[_TYPE].index(encoded + results))
