"""Numbers and lists of Wasm's binary form, read and written."""

from edge_agent.errors import ModuleError
from edge_agent.wasm.module import MAX_ENTRIES

# Value types by their byte, as letters: what a stack of them is made of.
LETTERS = {0x7F: "i", 0x7E: "I", 0x7D: "f", 0x7C: "F"}
BYTES = {letter: bytes([code]) for code, letter in LETTERS.items()}
FOREIGN = {0x7B: "a v128", 0x70: "a funcref", 0x6F: "an externref"}
MAXIMUM_BYTES = 5  # of a number that is written so that another one fits in its place


class InvalidError(ModuleError):
    """The bytes are no module that a validator would take."""

    def __init__(self, what: str) -> None:
        super().__init__(f"not valid Wasm: {what}")


class UnsupportedError(ModuleError):
    """Valid, but more than the smallest engine has."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the module has {what}, which is not on every engine of this agent")


def unsigned(value: int, size: int = 1) -> bytes:
    """LEB128, of at least `size` bytes."""
    out = bytearray()
    while value > 0x7F or len(out) < size - 1:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def signed(value: int) -> bytes:
    """LEB128 of a number that may be negative."""
    out = bytearray()
    while not -64 <= value < 64:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value & 0x7F)
    return bytes(out)


def u32(data: bytes, at: int) -> tuple[int, int]:
    """(the number at `at`, where it ends). IndexError: cut."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 28:
            raise InvalidError("a number of more than 32 bits")
    if value > 0xFFFFFFFF:
        raise InvalidError("a number of more than 32 bits")
    return value, at


def letter(code: int) -> str:
    """A value type by its byte."""
    if code in FOREIGN:
        raise UnsupportedError(FOREIGN[code])
    if code not in LETTERS:
        raise InvalidError(f"0x{code:02x} is no type of a value")
    return LETTERS[code]


class Cursor:
    """Reads a section from its beginning to its end; `at` is where it stands."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data = data
        self.at = at
        self.end = end

    def byte(self) -> int:
        return self.take(1)[0]

    def u32(self) -> int:
        try:
            value, self.at = u32(self.data, self.at)
        except IndexError:
            raise InvalidError("it is cut short") from None
        if self.at > self.end:
            raise InvalidError("a number reaches over the end of its section")
        return value

    def count(self) -> int:
        count = self.u32()
        if count > MAX_ENTRIES:
            raise InvalidError(f"a list of {count}; at most {MAX_ENTRIES} are taken")
        return count

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        start, self.at = self.at, self.at + size
        if self.at > self.end:
            raise InvalidError("a section is shorter than what is in it")
        return self.data[start : self.at]

    def name(self) -> bytes:
        """UTF-8, as it is. Without NUL: a C engine would take what is before it for the name."""
        raw = self.take(self.u32())
        if b"\0" in raw:
            raise UnsupportedError("a name with a NUL in it")
        try:
            raw.decode()
        except UnicodeDecodeError:
            raise InvalidError("a name that is not UTF-8") from None
        return raw

    def limits(self) -> tuple[int, int | None]:
        flags = self.byte()
        if flags > 1:
            raise UnsupportedError("a shared or 64-bit memory or table")
        minimum = self.u32()
        maximum = self.u32() if flags else None
        if maximum is not None and maximum < minimum:
            raise InvalidError(f"a maximum of {maximum} below the minimum of {minimum}")
        return minimum, maximum

    def close(self) -> None:
        if self.at != self.end:
            raise InvalidError("a section is longer than what is in it")


def section(number: int, count: int, entries: bytes) -> bytes:
    """A section that is a list; nothing if it is empty."""
    if not count:
        return b""
    content = unsigned(count) + entries
    return bytes([number]) + unsigned(len(content)) + content


def named(name: bytes) -> bytes:
    """A name with its length."""
    return unsigned(len(name)) + name
