"""What a Wasm module says about itself, read from its binary form.

Pure; reads section headers, types, imports, memories and exports, and skips code and
data, so that 8 MB take a moment. https://webassembly.github.io/spec/core/binary/modules.html
"""

from dataclasses import dataclass

from edge_agent.errors import ModuleError

MAGIC = b"\0asm"
CORE_VERSION = b"\x01\0\0\0"
PAGE_BYTES = 65536
MAX_MODULE_BYTES = 64 << 20  # ours: eight times the largest plugin seen
MAX_ENTRIES = 100_000  # of one section, ours: Go's largest modules have some 10,000 functions

_VALUE_TYPES = {0x7F: "i32", 0x7E: "i64", 0x7D: "f32", 0x7C: "f64", 0x7B: "v128", 0x70: "funcref"}
_VALUE_TYPES[0x6F] = "externref"
_KINDS = ("func", "table", "memory", "global", "tag")
_TYPE, _IMPORT, _FUNCTION, _MEMORY, _EXPORT = 1, 2, 3, 5, 7


@dataclass(frozen=True, slots=True)
class FuncType:
    """The parameters and results of a function, as names such as "i32"."""

    params: tuple[str, ...]
    results: tuple[str, ...]

    def __str__(self) -> str:
        return f"({', '.join(self.params)}) -> ({', '.join(self.results)})"


@dataclass(frozen=True, slots=True)
class Import:
    """One import; `type` is None unless it is a function."""

    module: str
    name: str
    kind: str
    type: FuncType | None

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """Imports, exported functions, memory (bytes at start, declared maximum) of a module."""

    size: int
    imports: tuple[Import, ...]
    functions: dict[str, FuncType]
    exports_memory: bool
    memory_bytes: int
    memory_max_bytes: int | None


def inspect(wasm: bytes) -> ModuleInfo:
    """Read a module. ModuleError: not a core module, truncated, or over a limit."""
    if len(wasm) > MAX_MODULE_BYTES:
        raise ModuleError(f"the module has {len(wasm)} bytes; at most {MAX_MODULE_BYTES} are taken")
    if wasm[:4] != MAGIC:
        raise ModuleError("not a Wasm module: it does not begin with \\0asm")
    if wasm[4:8] != CORE_VERSION:
        raise ModuleError(
            "not a core Wasm module of version 1 (a component?): build for wasip1, not wasip2"
        )
    return _Reader(wasm).module()


class _Reader:
    """A cursor over the module; every read is checked against the end of its section."""

    def __init__(self, wasm: bytes) -> None:
        self._wasm = wasm
        self._at = 8
        self._end = len(wasm)

    def module(self) -> ModuleInfo:
        types: list[FuncType] = []
        imports: list[Import] = []
        declared: list[int] = []
        memories: list[tuple[int, int | None]] = []
        exports: list[tuple[str, int, int]] = []
        while self._at < len(self._wasm):
            self._end = len(self._wasm)
            section = self._byte()
            size = self._u32()
            if size > len(self._wasm) - self._at:
                raise ModuleError(f"section {section} is longer than the module: a cut file?")
            start, self._end = self._at, self._at + size
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
            self._at = start + size
        return self._summary(types, imports, declared, memories, exports)

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
                    raise ModuleError(f"export {name!r} names function {index}, which is missing")
                functions[name] = signatures[index]
        minimum, maximum = memories[0] if memories else (0, None)
        return ModuleInfo(
            size=len(self._wasm),
            imports=tuple(imports),
            functions=functions,
            exports_memory=any(
                name == "memory" and kind == _KINDS.index("memory") for name, kind, _ in exports
            ),
            memory_bytes=minimum * PAGE_BYTES,
            memory_max_bytes=None if maximum is None else maximum * PAGE_BYTES,
        )

    def _byte(self) -> int:
        if self._at >= self._end:
            raise ModuleError(f"the module ends early, at byte {self._at}: a cut file?")
        value = self._wasm[self._at]
        self._at += 1
        return value

    def _u32(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ModuleError(f"a number at byte {self._at} is too long")

    def _count(self) -> int:
        count = self._u32()
        if count > MAX_ENTRIES:
            raise ModuleError(f"a section has {count} entries; at most {MAX_ENTRIES} are taken")
        return count

    def _name(self) -> str:
        size = self._u32()
        if size > self._end - self._at:
            raise ModuleError(f"a name at byte {self._at} is longer than its section")
        raw = self._wasm[self._at : self._at + size]
        self._at += size
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise ModuleError(f"a name at byte {self._at - size} is not UTF-8") from error

    def _value_type(self) -> str:
        code = self._byte()
        return _VALUE_TYPES.get(code, f"0x{code:02x}")

    def _func_type(self) -> FuncType:
        form = self._byte()
        if form != 0x60:
            raise ModuleError(f"a type of form 0x{form:02x}: only function types are taken")
        params = tuple(self._value_type() for _ in range(self._count()))
        return FuncType(params, tuple(self._value_type() for _ in range(self._count())))

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
                raise ModuleError(f"import {module}.{name} has type {index}, which is missing")
            signature = types[index]
        elif kind == 1:
            self._byte()
            self._limits()
        elif kind == 2:
            memories.append(self._limits())
        elif kind == 3:
            self._value_type()
            self._byte()
        else:
            raise ModuleError(f"import {module}.{name} is of a kind ({kind}) that no plugin needs")
        return Import(module, name, _KINDS[kind], signature)

    def _export(self) -> tuple[str, int, int]:
        return self._name(), self._byte(), self._u32()
