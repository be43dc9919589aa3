"""What a plugin says of itself: plugin.toml beside its source, and in the module that is built.

The module has the file's text in a custom section (WebAssembly core specification, 5.5.3). No
engine reads it; it is hostile text like all of a module.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from edge_agent.config.document import Document, read_text
from edge_agent.config.model import PERMISSIONS
from edge_agent.config.table import TEXT_PATTERN, Table
from edge_agent.errors import ConfigError, ModuleError
from edge_agent.nri import events
from edge_agent.wasm.metering import read_u32
from edge_agent.wasm.module import CORE_VERSION, MAGIC

FILE = "plugin.toml"
SECTION = "edge-agent.plugin"
MAX_BYTES = 16 << 10  # of the text in a module
NAME_PATTERN = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
NAME_FORM = "1 to 63 small letters, digits and hyphens, such as gpio-guard"
Language = Literal["c", "go", "rust", "zig"]
_CUSTOM = 0


@dataclass(frozen=True)
class Manifest:
    """A plugin's name, what it is, the events that it takes and the permissions that it needs."""

    name: str
    index: str
    version: str
    description: str
    license: str
    language: Language
    events: tuple[str, ...]
    permissions: tuple[str, ...]

    @property
    def module_name(self) -> str:
        """NN-name.wasm."""
        return f"{self.index}-{self.name}.wasm"

    def as_json(self) -> dict[str, Any]:
        """For tools."""
        return asdict(self)


def read(path: Path) -> Manifest:
    """The file plugin.toml. ConfigError, with the line of each problem."""
    return parse(path, read_text(path))


def parse(path: Path, text: str) -> Manifest:
    """Its text. ConfigError."""
    if len(text.encode(errors="replace")) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES} bytes")
    document = Document(path, text)
    root = Table(document)
    name = root.text("name", "", pattern=NAME_PATTERN, form=NAME_FORM)
    if "name" not in root:
        root.problem("name", f"is missing; it is {NAME_FORM}")
    found = Manifest(
        name,
        root.text("index", "50", pattern=r"\d\d", form='two digits, such as "50"'),
        root.text("version", "0.0.0", pattern=r"[0-9A-Za-z.+-]{1,64}", form='such as "1.2.0"'),
        root.text("description", "", pattern=TEXT_PATTERN),
        root.text("license", "", pattern=TEXT_PATTERN),
        root.choice("language", Language, "c"),
        _events(root),
        _permissions(root),
    )
    root.end()
    document.check()
    return found


def embed(wasm: bytes, text: str) -> bytes:
    """The module with this text, and without another that it had. ModuleError: it is no module."""
    kept = [wasm[begin:end] for begin, end, title, _ in _sections(wasm) if title != SECTION]
    content = _sized(SECTION.encode()) + text.encode()
    added = bytes([_CUSTOM]) + _sized(content)
    return b"".join((wasm[: len(MAGIC + CORE_VERSION)], *kept, added))


def embedded(path: Path, wasm: bytes) -> Manifest | None:
    """What the module says of itself; None: nothing. ConfigError: it is no such text.
    ModuleError: it is no module."""
    for _, _, title, content in _sections(wasm):
        if title == SECTION:
            if len(content) > MAX_BYTES:
                raise ConfigError(f"{path}: {SECTION} is larger than {MAX_BYTES} bytes")
            try:
                text = content.decode()
            except UnicodeDecodeError:
                raise ConfigError(f"{path}: {SECTION} is not UTF-8 text") from None
            return parse(path / FILE, text)
    return None


def _events(root: Table) -> tuple[str, ...]:
    known = {events.export_name(each).removeprefix("plugin_"): each for each in events.BY_METHOD}
    found = root.texts("events", ())
    for word in found:
        if word not in known:
            root.unknown_word("events", word, known)
    return found


def _permissions(root: Table) -> tuple[str, ...]:
    found = root.texts("permissions", ())
    for word in found:
        if word not in PERMISSIONS:
            root.unknown_word("permissions", word, PERMISSIONS)
    return found


def _sections(wasm: bytes) -> Iterator[tuple[int, int, str, bytes]]:
    """Where each section begins and ends; of custom ones the title and what follows it."""
    at = len(MAGIC + CORE_VERSION)
    if not wasm.startswith(MAGIC + CORE_VERSION):
        raise ModuleError("not a WebAssembly module")
    while at < len(wasm):
        title, content = "", b""
        try:
            size, start = read_u32(wasm, at + 1)
            end = start + size
            if end > len(wasm):
                raise IndexError
            if wasm[at] == _CUSTOM:
                length, begin = read_u32(wasm, start)
                title = wasm[begin : min(begin + length, end)].decode(errors="replace")
                content = wasm[min(begin + length, end) : end]
        except IndexError:
            raise ModuleError("a section is cut short") from None
        yield at, end, title, content
        at = end


def _sized(content: bytes) -> bytes:
    """With its length in front, as LEB128."""
    size, head = len(content), bytearray()
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*head, size]) + content
