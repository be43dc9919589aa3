"""`edge-agent plugin inspect`: shows the parts of a module, without running it.

Sections, the "name" and "producers" custom sections: WebAssembly core specification, appendix
"Custom Sections", and WebAssembly/tool-conventions ProducersSection.md.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from edge_agent.authors import manifest
from edge_agent.authors.tryout import PluginFile
from edge_agent.config.units import format_size
from edge_agent.errors import ConfigError, ModuleError
from edge_agent.nri import events
from edge_agent.wasm import abi, wasi
from edge_agent.wasm.metering import read_u32
from edge_agent.wasm.module import CORE_VERSION, MAGIC, inspect

SHOWN_FUNCTIONS = 10
MAX_NAME_BYTES = 512  # of a function, shown: mangled ones of C++ and Rust are longer
MAX_PRODUCERS = 64  # entries
_CUSTOM, _EXPORT, _CODE = 0, 7, 10
_SECTIONS = {
    1: "type",
    2: "import",
    3: "function",
    4: "table",
    5: "memory",
    6: "global",
    7: "export",
    8: "start",
    9: "element",
    10: "code",
    11: "data",
    12: "data count",
    13: "tag",
}
_NAMES_OF_FUNCTIONS = 1  # subsection of "name"


@dataclass(frozen=True)
class Size:
    """A section or a function, and its bytes in the file."""

    name: str
    bytes: int


@dataclass(frozen=True)
class Anatomy:
    """Sizes in bytes, the largest first; custom sections are "custom NAME"."""

    sections: list[Size]
    functions: list[Size]
    producers: dict[str, list[str]]  # field -> "name version", such as language: ["C11 "]


def anatomy(wasm: bytes) -> Anatomy:
    """ModuleError: not a module, or damaged. The content of damaged custom sections is left out:
    no engine reads them."""
    info = inspect(wasm)
    sections: list[Size] = []
    names: dict[int, str] = {}
    producers: dict[str, list[str]] = {}
    bodies: list[int] = []
    for number, content in sections_of(wasm):
        name = _SECTIONS.get(number, f"section {number}")
        if number == _CUSTOM:
            title, rest = custom_section(content)
            name = f"custom {title}"
            try:
                if title == "name":
                    names = function_names(rest)
                elif title == "producers":
                    producers = _producers(rest)
            except (IndexError, ModuleError):
                name += " (damaged)"
        elif number == _CODE:
            bodies = _bodies(content)
        sections.append(Size(name, len(content)))
    imported = sum(each.kind == "func" for each in info.imports)
    exported = {} if names else exported_names(wasm)
    functions = []
    for number, size in enumerate(bodies, imported):
        functions.append(Size(names.get(number) or exported.get(number) or f"#{number}", size))
    functions.sort(key=lambda each: -each.bytes)
    sections.sort(key=lambda each: -each.bytes)
    return Anatomy(sections, functions, producers)


def facts(plugin: PluginFile) -> dict[str, Any]:
    """For tools. ModuleError: it is no plugin's module."""
    info, found = inspect(plugin.wasm), anatomy(plugin.wasm)
    methods = sorted(abi.methods(info))
    by_export = {export: method for method, export in events.ALL_EXPORTS.items()}
    return {
        "file": str(plugin.path),
        "size": info.size,
        "sha256": plugin.digest.hex,
        "methods": [by_export[each] for each in methods if each in by_export],
        "unknown_methods": [each for each in methods if each not in by_export],
        "imports": [
            {"module": each.module, "name": each.name, "type": str(each.type)}
            for each in info.imports
        ],
        "memory": {"start": info.memory_bytes, "max": info.memory_max_bytes},
        "sections": [asdict(each) for each in found.sections],
        "functions": {
            "count": len(found.functions),
            "largest": [asdict(each) for each in found.functions[:SHOWN_FUNCTIONS]],
        },
        "producers": found.producers,
        "plugin": _said(plugin),
    }


def _said(plugin: PluginFile) -> dict[str, Any] | None:
    try:
        said = manifest.embedded(plugin.path, plugin.wasm)
    except ConfigError as error:
        return {"problem": str(error)}
    return said.as_json() if said is not None else None


def as_text(plugin: PluginFile) -> Iterator[tuple[str, str]]:
    """(subject, text) of each line. ModuleError: it is no plugin's module."""
    told = facts(plugin)
    yield "module", f"{told['size']} bytes, {plugin.digest}"
    for field, value in (told["plugin"] or {}).items():
        if value:
            yield field, value if isinstance(value, str) else ", ".join(value)
    for field, values in told["producers"].items():
        yield field, ", ".join(values)
    yield "methods", ", ".join([*told["methods"], *told["unknown_methods"]]) or "none"
    yield from _imports(told["imports"])
    most = told["memory"]["max"]
    grows = "grows as it likes" if most is None else f"grows to {format_size(most)} at most"
    yield "memory", f"begins with {format_size(told['memory']['start'])}, {grows}"
    for each in told["sections"]:
        yield "section", _part(each, told["size"])
    yield "functions", str(told["functions"]["count"])
    for each in told["functions"]["largest"]:
        yield "function", _part(each, told["size"])


def _part(size: dict[str, Any], whole: int) -> str:
    return f"{size['bytes']:>10}  {100 * size['bytes'] / whole:4.1f} %  {size['name']}"


def _imports(imports: list[dict[str, str]]) -> Iterator[tuple[str, str]]:
    """One line for each module of imports; WASI's are many, and said by their number first."""
    named: dict[str, Counter[str]] = {}
    for each in imports:
        named.setdefault(each["module"], Counter())[each["name"]] += 1
    for module, names in named.items():
        more = f"{names.total()} functions: " if module == wasi.MODULE else ""
        yield "imports", f"{module}: {more}{', '.join(sorted(names))}"
    if not named:
        yield "imports", "none"


def sections_of(wasm: bytes) -> Iterator[tuple[int, bytes]]:
    """Each section's number and content, of a module that `inspect` took."""
    at = len(MAGIC + CORE_VERSION)
    while at < len(wasm):
        size, start = read_u32(wasm, at + 1)
        yield wasm[at], wasm[start : start + size]
        at = start + size


def _text(content: bytes, at: int) -> tuple[str, int]:
    """A name, at most MAX_NAME_BYTES of it, and where it ends. IndexError: cut."""
    size, start = read_u32(content, at)
    if size > len(content) - start:
        raise IndexError
    return content[start : start + min(size, MAX_NAME_BYTES)].decode(errors="replace"), start + size


def custom_section(content: bytes) -> tuple[str, bytes]:
    """The name of a custom section, and what follows it."""
    try:
        title, at = _text(content, 0)
    except (IndexError, ModuleError):
        return "(damaged)", b""
    return title, content[at:]


def function_names(content: bytes) -> dict[int, str]:
    """By index, of the custom section "name". IndexError, ModuleError: it is damaged."""
    at = 0
    while at < len(content):
        kind = content[at]
        size, start = read_u32(content, at + 1)
        at = start + size
        if kind != _NAMES_OF_FUNCTIONS:
            continue
        names, part, place = {}, content[start:at], 0
        count, place = read_u32(part, 0)
        for _ in range(count):
            number, place = read_u32(part, place)
            names[number], place = _text(part, place)
        return names
    return {}


def _producers(content: bytes) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    fields, at = read_u32(content, 0)
    for _ in range(fields):
        field, at = _text(content, at)
        values, at = read_u32(content, at)
        for _ in range(values):
            name, at = _text(content, at)
            version, at = _text(content, at)
            found.setdefault(field, []).append(f"{name} {version}".strip())
            if sum(map(len, found.values())) > MAX_PRODUCERS:
                raise IndexError
    return found


def _bodies(content: bytes) -> list[int]:
    """Bytes of each function's body. ModuleError: they do not fill the section."""
    sizes = []
    try:
        count, at = read_u32(content, 0)
        for _ in range(count):
            size, at = read_u32(content, at)
            at += size
            if at > len(content):
                raise IndexError
            sizes.append(size)
    except IndexError:
        raise ModuleError("the section of code is cut short") from None
    return sizes


def exported_names(wasm: bytes) -> dict[int, str]:
    """Function -> the name under which it is exported, for a module without names."""
    content = next((content for number, content in sections_of(wasm) if number == _EXPORT), b"\0")
    found: dict[int, str] = {}
    count, at = read_u32(content, 0)
    for _ in range(count):
        name, at = _text(content, at)
        kind = content[at]
        number, at = read_u32(content, at + 1)
        if kind == 0:
            found.setdefault(number, name)
    return found
