"""Imports, exports and limits of a Wasm module, read from its binary form.

Pure; reads section headers, types, imports, memories and exports, and skips code and
data, so that 8 MB take a moment. https://webassembly.github.io/spec/core/binary/modules.html
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from edge_agent.errors import ModuleError
from edge_agent.text import printable

MAGIC = b"\0asm"
CORE_VERSION = b"\x01\0\0\0"
PAGE_BYTES = 65536
MAX_MODULE_BYTES = 64 << 20  # ours: eight times the largest plugin seen
MAX_ENTRIES = 100_000  # of one section, ours: Go's largest modules have some 10,000 functions
MAX_SECTION_BYTES = 256 << 10  # of those that are read, ours: 100,000 functions take 200 KB
MAX_SECTIONS = 1000  # ours, of which most would be custom ones
MAX_VALUES = 1000  # parameters or results of a function, as in browsers
_MAX_SHOWN = 120  # characters of a name or a type in a message

_VALUE_TYPES = {0x7F: "i32", 0x7E: "i64", 0x7D: "f32", 0x7C: "f64", 0x7B: "v128", 0x70: "funcref"}
_VALUE_TYPES[0x6F] = "externref"
_KINDS = ("func", "table", "memory", "global", "tag")
_CUSTOM, _TYPE, _IMPORT, _FUNCTION, _MEMORY, _EXPORT, _CODE = 0, 1, 2, 3, 5, 7, 10
_ORDER = (1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11)  # of the sections, each at most once


@dataclass(frozen=True, slots=True)
class FuncType:
    """The parameters and results of a function, as names such as "i32"."""

    params: tuple[str, ...]
    results: tuple[str, ...]

    def __str__(self) -> str:
        return _shown(f"({', '.join(self.params)}) -> ({', '.join(self.results)})")


@dataclass(frozen=True, slots=True)
class Import:
    """One import; `type` is None unless it is a function."""

    module: str
    name: str
    kind: str
    type: FuncType | None

    def __str__(self) -> str:
        return _shown(f"{self.module}.{self.name}")


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """Imports, exported functions, memory (bytes at start, declared maximum) of a module."""

    size: int
    imports: tuple[Import, ...]
    functions: dict[str, FuncType]
    exports_memory: bool
    memory_bytes: int
    memory_max_bytes: int | None


class Stream(Protocol):
    """A module that is read once, from its beginning to its end."""

    def read(self, size: int, /) -> bytes:
        """The next bytes; fewer only at the end."""

    def skip(self, size: int, /) -> None:
        """Go on behind them."""


def inspect(wasm: bytes) -> ModuleInfo:
    """Read a module. ModuleError: not a core module, truncated, or over a limit."""
    return inspect_stream(_InMemory(wasm), len(wasm))


def inspect_stream(stream: Stream, size: int) -> ModuleInfo:
    """The same of a module of `size` bytes, of which no more than a section is held at a time."""
    if size > MAX_MODULE_BYTES:
        raise ModuleError(f"the module has {size} bytes; at most {MAX_MODULE_BYTES} are taken")
    head = stream.read(8)
    if head[:4] != MAGIC:
        raise ModuleError("not a Wasm module: it does not begin with \\0asm")
    if head[4:] != CORE_VERSION:
        raise ModuleError(
            "not a core Wasm module of version 1 (a component?): build for wasip1, not wasip2"
        )
    return _Reader(stream, size).module()


class _InMemory:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def read(self, size: int) -> bytes:
        part = self._data[self._at : self._at + size]
        self._at += size
        return part

    def skip(self, size: int) -> None:
        self._at += size


class _Reader:
    """A cursor over one section after the other; every read is checked against its end."""

    def __init__(self, stream: Stream, size: int) -> None:
        self._stream = stream
        self._size = size
        self._place = 8  # in the module, of what comes next from the stream
        self._section = b""
        self._at = 0  # in the section
        self._code = False

    def module(self) -> ModuleInfo:
        types: list[FuncType] = []
        imports: list[Import] = []
        declared: list[int] = []
        memories: list[tuple[int, int | None]] = []
        exports: list[tuple[str, int, int]] = []
        for section in self._sections():
            if section == _TYPE:
                types = [self._func_type() for _ in range(self._count())]
            elif section == _IMPORT:
                imports = [self._import(types, memories) for _ in range(self._count())]
            elif section == _FUNCTION:
                declared = [self._u32() for _ in range(self._count())]
            elif section == _MEMORY:
                memories += [self._limits() for _ in range(self._count())]
            elif section == _EXPORT:
                exports = [self._export() for _ in range(self._count())]
        if declared and not self._code:
            raise ModuleError("the module has functions without code: a cut file?")
        return self._summary(types, imports, declared, memories, exports)

    def _sections(self) -> Iterator[int]:
        """The sections that are read; the cursor stands at the content of each in turn."""
        last = -1
        for _ in range(MAX_SECTIONS):
            if self._place == self._size:
                return
            section = self._next()
            size = _number(self._next, lambda: self._place)
            if size > self._size - self._place:
                raise ModuleError(f"section {section} is longer than the module: a cut file?")
            if section != _CUSTOM:
                if section not in _ORDER:
                    raise ModuleError(f"section {section} is not known")
                if _ORDER.index(section) <= last:
                    raise ModuleError(f"section {section} stands twice or too late")
                last = _ORDER.index(section)
            self._code |= section == _CODE
            if section not in (_TYPE, _IMPORT, _FUNCTION, _MEMORY, _EXPORT):
                self._stream.skip(size)
                self._place += size
                continue
            if size > MAX_SECTION_BYTES:
                raise ModuleError(
                    f"section {section} has {size} bytes; at most {MAX_SECTION_BYTES} are taken"
                )
            self._section, self._at = self._stream.read(size), 0
            yield section
            if self._at != len(self._section):
                raise ModuleError(f"section {section} does not end where it says")
            self._place += size
        raise ModuleError(f"the module has more than {MAX_SECTIONS} sections")

    def _next(self) -> int:
        """The next byte outside of a section's content."""
        if self._place >= self._size:
            raise ModuleError(f"byte {self._place} is missing from the module: a cut file?")
        self._place += 1
        return self._stream.read(1)[0]

    def _summary(
        self,
        types: list[FuncType],
        imports: list[Import],
        declared: list[int],
        memories: list[tuple[int, int | None]],
        exports: list[tuple[str, int, int]],
    ) -> ModuleInfo:
        if len(memories) > 1:
            raise ModuleError("the module has several memories; plugins have one")
        signatures = [entry.type for entry in imports if entry.type is not None]
        for index in declared:
            if index >= len(types):
                raise ModuleError(f"a function has type {index}, which the module does not define")
            signatures.append(types[index])
        functions = {}
        for name, kind, index in exports:
            if kind == _KINDS.index("func"):
                if index >= len(signatures):
                    raise ModuleError(
                        f"the export {_shown(name)} is function {index}, which is missing"
                    )
                functions[name] = signatures[index]
        minimum, maximum = memories[0] if memories else (0, None)
        return ModuleInfo(
            size=self._size,
            imports=tuple(imports),
            functions=functions,
            exports_memory=any(
                name == "memory" and kind == _KINDS.index("memory") for name, kind, _ in exports
            ),
            memory_bytes=minimum * PAGE_BYTES,
            memory_max_bytes=None if maximum is None else maximum * PAGE_BYTES,
        )

    def _byte(self) -> int:
        if self._at >= len(self._section):
            raise ModuleError(f"byte {self._here()} is missing from its section: a cut file?")
        value = self._section[self._at]
        self._at += 1
        return value

    def _here(self) -> int:
        """The cursor's position in the module, for messages."""
        return self._place + self._at

    def _u32(self) -> int:
        return _number(self._byte, self._here)

    def _count(self, most: int = MAX_ENTRIES) -> int:
        count = self._u32()
        if count > most:
            raise ModuleError(
                f"a list of {count} before byte {self._here()}; at most {most} are taken"
            )
        return count

    def _name(self) -> str:
        size = self._u32()
        if size > len(self._section) - self._at:
            raise ModuleError(f"a name at byte {self._here()} is longer than its section")
        raw = self._section[self._at : self._at + size]
        self._at += size
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise ModuleError(f"a name at byte {self._here() - size} is not UTF-8") from error

    def _value_type(self) -> str:
        code = self._byte()
        if code not in _VALUE_TYPES:  # and who knows how many bytes belong to it
            raise ModuleError(f"a value of type 0x{code:02x}, which no plugin needs")
        return _VALUE_TYPES[code]

    def _func_type(self) -> FuncType:
        form = self._byte()
        if form != 0x60:
            raise ModuleError(f"a type of form 0x{form:02x}: only function types are taken")
        params = tuple(self._value_type() for _ in range(self._count(MAX_VALUES)))
        return FuncType(params, tuple(self._value_type() for _ in range(self._count(MAX_VALUES))))

    def _limits(self) -> tuple[int, int | None]:
        flags = self._byte()
        if flags & ~1:
            raise ModuleError("a shared or 64-bit memory or table: plugins have plain 32-bit ones")
        minimum = self._u32()
        return minimum, self._u32() if flags else None

    def _import(self, types: list[FuncType], memories: list[tuple[int, int | None]]) -> Import:
        module, name = self._name(), self._name()
        kind = self._byte()
        signature = None
        if kind == 0:
            index = self._u32()
            if index >= len(types):
                raise ModuleError(f"an import has type {index}, which the module does not define")
            signature = types[index]
        elif kind == 1:
            self._value_type()
            self._limits()
        elif kind == 2:
            memories.append(self._limits())
        elif kind == 3:
            self._value_type()
            self._byte()
        else:
            raise ModuleError(f"an import is of kind {kind}, which no plugin needs")
        return Import(module, name, _KINDS[kind], signature)

    def _export(self) -> tuple[str, int, int]:
        return self._name(), self._byte(), self._u32()


def _number(byte: Callable[[], int], here: Callable[[], int]) -> int:
    """LEB128 of 32 bits."""
    value = shift = 0
    while True:
        one = byte()
        value |= (one & 0x7F) << shift
        if value > 0xFFFFFFFF or (one >= 0x80 and shift == 28):
            raise ModuleError(f"the number before byte {here()} has more than 32 bits")
        if one < 0x80:
            return value
        shift += 7


def _shown(text: str) -> str:
    """Text out of a module, for a message."""
    return printable(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}...")
