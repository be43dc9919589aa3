"""The published versions, as files of the fleet's folder: `releases/NAME/VERSION.toml`.

A release in `deployment.toml` names only a version; the file has its digest and its parts at the
broker.
"""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_agent.errors import OperatorError
from edge_agent.fleet_protocol.form import (
    NAME_FORM,
    NAME_PATTERN,
    VERSION_FORM,
    VERSION_PATTERN,
    Blob,
    CodeFile,
)
from edge_agent.operator.folder import FleetFolder
from edge_agent.store.digest import Digest
from edge_agent.store.release import Code

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
    folder: FleetFolder, name: str, version: str, blob: Blob, codes: Sequence[CodeFile] = ()
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


def find_codes(folder: FleetFolder, name: str, version: str) -> list[CodeFile]:
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
        found.append(CodeFile(code, blob, (_MQTT,)))
    return found


def as_values(file: CodeFile) -> dict[str, object]:
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
    """KeyError, TypeError, ValueError: it is none."""
    told = {field: _of(values[field], kind) for field, kind in FIELDS.items()}
    return Blob(**{**told, "digest": Digest(told["digest"])})


def _values(path: Path) -> dict[str, Any]:
    """The values of the file; empty if there is none. OperatorError."""
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
