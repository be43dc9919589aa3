"""What was published, as files of the fleet's folder: `releases/NAME/VERSION.toml`.

They make a release in `deployment.toml` short: a version, behind which stand a digest and the
parts at the broker.
"""

import re
import tomllib
from pathlib import Path

from edge_agent.errors import OperatorError
from edge_agent.fleet.form import (
    NAME_FORM,
    NAME_PATTERN,
    VERSION_FORM,
    VERSION_PATTERN,
    Blob,
)
from edge_agent.operator.folder import FleetFolder

_TEXT = """\
# Written by `edge-agent fleet publish`: which module this version is. Keep it under git.
digest = "{digest}"
size = {size}
encoding = "{encoding}"
parts = {parts}
part_size = {part_size}
"""
FIELDS = {"digest": str, "size": int, "encoding": str, "parts": int, "part_size": int}


def check_names(name: str, version: str) -> None:
    """OperatorError unless nodes take a plugin of this name and version."""
    for value, what, pattern, form in (
        (name, "a plugin", NAME_PATTERN, NAME_FORM),
        (version, "a version", VERSION_PATTERN, VERSION_FORM),
    ):
        if not re.fullmatch(pattern, value):
            raise OperatorError(f'"{value[:80]}" cannot name {what}: {form}')
    if name in (".", ".."):
        raise OperatorError(f'"{name}" cannot name a plugin')


def save(folder: FleetFolder, name: str, version: str, blob: Blob) -> Path:
    """Write the file. OperatorError."""
    path = folder.release_file(name, version)
    text = _TEXT.format(**{field: getattr(blob, field) for field in FIELDS})
    folder.write(path, text)
    return path


def load(folder: FleetFolder, name: str, version: str) -> Blob:
    """The blob behind a version. OperatorError if it was never published, or the file is wrong."""
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
    """The same, None if it was never published."""
    path = folder.release_file(name, version)
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise OperatorError(f"{path}: cannot be read: {error}") from error
    for field, kind in FIELDS.items():
        if type(values.get(field)) is not kind:
            raise OperatorError(f"{path}: {field} is missing or wrong; publish the version again")
    return Blob(**{field: values[field] for field in FIELDS})


def named(folder: FleetFolder) -> dict[str, str]:
    """By digest: `NAME VERSION` of all that was published from this folder."""
    found = {}
    for path in sorted(folder.releases_folder.glob("*/*.toml")):
        name, version = path.parent.name, path.stem
        blob = find(folder, name, version)
        if blob is not None:
            found[blob.digest] = f"{name} {version}"
    return found


def versions(folder: FleetFolder, name: str) -> list[str]:
    """The versions of `name` that were published from this folder."""
    return sorted(path.stem for path in (folder.releases_folder / name).glob("*.toml"))
