"""The published versions, as files in the folder of the fleet (`releases/NAME/VERSION.toml`), and
the compiler of their machine code.

A release in `deployment.toml` names only a version; its file has the digest and the parts at the
broker. The compiler gives the same bytes everywhere: a second signer can compile again and compare.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, cast

from edge_agent.errors import OperatorError
from edge_agent.fleet_protocol.form import (
    NAME_FORM,
    NAME_PATTERN,
    VERSION_FORM,
    VERSION_PATTERN,
    Blob,
    CodeOffer,
)
from edge_agent.operator.folder import FleetFolder
from edge_agent.operator.node_state import Node
from edge_agent.store.digest import Digest
from edge_agent.store.release import Code
from edge_agent.wasm import compiler
from edge_agent.wasm.compiler_process import Portably
from edge_agent.wasm.engine import Engine, Portable, metered_settings
from edge_agent.wasm.engine_selection import select_engine

ENGINE = "wasmer"  # the only engine that compiles for other processors
# Debian's names.
ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}
# Whether memories reserve 8 GiB of addresses each where nothing says otherwise: the 38 bits of most
# RISC-V boards (Sv39) are too few.
_WIDE = {"riscv64": False}
_TIMEOUT_S = 1800.0
_MEMORY_BYTES = 3 << 30


class Kind(NamedTuple):
    """One kind of nodes; each kind has one file of machine code."""

    target: str  # uname -m
    wide: bool
    metered: bool


class Made(NamedTuple):
    """Machine code, and what it requires of a node."""

    engine: str
    version: str
    target: str
    settings: str
    features: tuple[str, ...]
    data: bytes


class Maker:
    """The compiler of this machine. OperatorError: it cannot compile for other machines."""

    def __init__(self) -> None:
        engine, _ = select_engine(ENGINE)  # EngineError says what to install
        if not isinstance(engine, Portable) or engine.features() is None:
            raise OperatorError(
                "the edge-agent-engines that is installed here makes no code for other machines:"
                " install 0.2.1 or later"
            )
        self._engine: Engine = cast(Engine, engine)
        self._portable: Portable = engine
        self.targets = engine.targets()

    @property
    def version(self) -> str:
        """The engine's version: code is for nodes with the same one."""
        return self._engine.version

    def named(self, targets: str, nodes: Iterable[Node], metered: bool) -> list[Kind]:
        """The kinds for a list such as "arm64,riscv64": with such nodes' settings, or usual ones.

        OperatorError: there is no code for one of them.
        """
        known = self._reported(nodes, metered)
        found: list[Kind] = []
        for name in targets.split(","):
            target = ALIASES.get(name.strip(), name.strip())
            if target not in self.targets:
                there = ", ".join(sorted({*self.targets, *ALIASES}))
                raise OperatorError(
                    f"no code can be compiled for {name.strip()!r:.80}, only for {there}"
                )
            default = Kind(target, _WIDE.get(target, True), metered)
            found += [each for each in known if each.target == target] or [default]
        return list(dict.fromkeys(found))

    def reported(self, nodes: Sequence[Node], metered: bool) -> list[Kind]:
        """The kinds of the nodes that take machine code. OperatorError: there are none."""
        taking = [node for node in nodes if node.takes_code]
        found = self._reported(taking, metered)
        if not found:
            other = ", ".join(sorted({" ".join(node.engine[:2]) for node in taking}))
            reason = f"those that accept code run {other}" if other else "none accepts code"
            raise OperatorError(
                f"no node can use machine code of {ENGINE} {self.version}: {reason}. Nodes"
                ' accept it with compiled = "accept" below [updates]; --target names processors'
            )
        return found

    def make(self, wasm: bytes, kind: Kind) -> Made:
        """Compile a checked module in a process of its own."""
        with TemporaryDirectory(prefix="edge-agent-") as folder:
            module, output = Path(folder, "module.wasm"), Path(folder, "code")
            module.write_bytes(wasm)
            compiler.compile_module(
                ENGINE,
                module,
                Digest.of(wasm),
                output,
                metered=kind.metered,
                portably=Portably(kind.target, kind.wide),
                timeout_s=_TIMEOUT_S,
                memory_bytes=_MEMORY_BYTES,
            )
            data = output.read_bytes()
        return Made(
            engine=ENGINE,
            version=self.version,
            target=kind.target,
            settings=self._settings(kind.wide, kind.metered),
            features=self.targets[kind.target],
            data=data,
        )

    def _reported(self, nodes: Iterable[Node], metered: bool) -> list[Kind]:
        """The kinds of the nodes whose engine and settings this compiler supports."""
        wide = {self._settings(wide, False): wide for wide in (True, False)}
        found = {
            Kind(node.architecture, wide[settings], metered)
            for node in nodes
            for name, version, settings in [node.engine]
            if (name, version) == (ENGINE, self.version)
            and settings in wide
            and node.architecture in self.targets
        }
        return sorted(found)

    def _settings(self, wide: bool, metered: bool) -> str:
        settings = self._portable.settings_for(wide)
        return metered_settings(settings) if metered else settings


_TEXT = """\
# Written by `edge-agent fleet publish`: which module this version is. Keep it under git.
digest = "{digest}"
size = {size}
encoding = "{encoding}"
parts = {parts}
part_size = {part_size}
"""
_MQTT = "mqtt"
FIELDS = {"digest": str, "size": int, "encoding": str, "parts": int, "part_size": int}
# Keys of machine code: what it requires of a node.
_ASSUMED = ("engine", "version", "target", "settings")


def check_names(name: str, version: str) -> None:
    """OperatorError: nodes would refuse this name or version."""
    for value, what, pattern, form in (
        (name, "a plugin", NAME_PATTERN, NAME_FORM),
        (version, "a version", VERSION_PATTERN, VERSION_FORM),
    ):
        if not re.fullmatch(pattern, value):
            raise OperatorError(f'"{value[:80]}" cannot name {what}: {form}')
    if name in (".", ".."):
        raise OperatorError(f'"{name}" cannot name a plugin')


def save(
    folder: FleetFolder, name: str, version: str, blob: Blob, codes: Sequence[CodeOffer] = ()
) -> Path:
    """Write the file; keeps machine code of the same module. OperatorError."""
    path = folder.release_file(name, version)
    before = find(folder, name, version)
    kept = find_codes(folder, name, version) if before == blob else []
    new = [each.code for each in codes]
    kept = [each for each in kept if not any(_for_the_same(each.code, code) for code in new)]
    parts = [_TEXT.format(**{field: getattr(blob, field) for field in FIELDS})]
    for each in (*kept, *codes):
        lines = [f"{key} = {json.dumps(getattr(each.code, key))}" for key in _ASSUMED]
        lines.append(f"features = {json.dumps(list(each.code.features))}")
        lines += [f"{key} = {json.dumps(getattr(each.blob, key))}" for key in FIELDS]
        parts.append("\n".join(["", "[[code]]", *lines, ""]))
    folder.write(path, "".join(parts))
    return path


def find_codes(folder: FleetFolder, name: str, version: str) -> list[CodeOffer]:
    """The machine code that was published with a version. OperatorError: the file is wrong."""
    path = folder.release_file(name, version)
    wrong = OperatorError(f"{path}: [[code]] is wrong; publish the version again, with --code")
    found = []
    for table in _values(path).get("code", []):
        try:
            blob = _blob(table)
            assumed = {key: _of(table[key], str) for key in _ASSUMED}
            features = tuple(_of(each, str) for each in table["features"])
        except (KeyError, TypeError, ValueError) as error:
            raise wrong from error
        code = Code(**assumed, features=features, digest=blob.digest, size=blob.size)
        found.append(CodeOffer(code, blob, (_MQTT,)))
    return found


def as_values(file: CodeOffer) -> dict[str, object]:
    """Machine code as a value of a deployment."""
    code = file.code
    return {
        **{key: getattr(code, key) for key in _ASSUMED},
        "features": list(code.features),
        "blob": {field: getattr(file.blob, field) for field in FIELDS},
    }


def _for_the_same(one: Code, other: Code) -> bool:
    return replace(one, digest=other.digest, size=other.size) == other


def _of(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError
    return value


def load(folder: FleetFolder, name: str, version: str) -> Blob:
    """The blob of a version. OperatorError: never published, or the file is wrong."""
    found = find(folder, name, version)
    if found is None:
        known = versions(folder, name)
        hint = f" (published are {', '.join(known)})" if known else ""
        raise OperatorError(
            f"{name} {version} was not published from this folder{hint}; do it with: edge-agent"
            f" fleet publish FILE.wasm --name {name} --version {version}"
        )
    return found


def find(folder: FleetFolder, name: str, version: str) -> Blob | None:
    """The blob of a version; None if it was never published. OperatorError."""
    path = folder.release_file(name, version)
    values = _values(path)
    if not values:
        return None
    for field, kind in FIELDS.items():
        if type(values.get(field)) is not kind:
            raise OperatorError(f"{path}: {field} is missing or wrong; publish the version again")
    try:
        return _blob(values)
    except ValueError as error:
        raise OperatorError(f"{path}: {error}; publish the version again") from error


def _blob(values: Mapping[str, Any]) -> Blob:
    """A blob from the values of a table. KeyError, TypeError, ValueError: invalid."""
    told = {field: _of(values[field], kind) for field, kind in FIELDS.items()}
    return Blob(**{**told, "digest": Digest(told["digest"])})


def _values(path: Path) -> dict[str, Any]:
    """The values of the file; empty if it is absent. OperatorError."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise OperatorError(f"{path}: cannot be read: {error}") from error


def named(folder: FleetFolder) -> dict[str, str]:
    """By digest: `NAME VERSION` of all versions published from this folder."""
    found: dict[str, str] = {}
    for path in sorted(folder.releases_folder.glob("*/*.toml")):
        name, version = path.parent.name, path.stem
        blob = find(folder, name, version)
        if blob is not None:
            found[blob.digest] = f"{name} {version}"
    return found


def versions(folder: FleetFolder, name: str) -> list[str]:
    """The versions of `name` that were published from this folder."""
    return sorted(path.stem for path in (folder.releases_folder / name).glob("*.toml"))
