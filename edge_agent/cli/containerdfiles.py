"""containerd's configuration as containerd reads it: the main file and all that it imports.

From containerd's cmd/containerd/server/config (LoadConfig, resolveImports, mergeConfig): the
main file first, then its `imports` in their order, then theirs; a later file overrides an
earlier one. Lists are joined. Of a plugin's section containerd 2 overrides single keys, and
1.7 replaces the section by that of the later file.
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_agent.config.document import MAX_FILE_BYTES

MAX_FILES = 200  # ours: more drop-ins than this are not looked at, and that is said


@dataclass(frozen=True)
class ContainerdFiles:
    """What all files together say. `replaced` is as containerd 1.7 understands them."""

    version: int  # of the main file; 0: it says none, or there is no file
    disabled_plugins: frozenset[str]
    plugins: dict[str, object]  # as containerd 2 understands them
    replaced: dict[str, object]
    sources: dict[str, Path]  # plugin's name -> the last file that has a section of it


def read(root: Path, main: Path, *, required: bool = False) -> ContainerdFiles:
    """The files from `main` on, all below `root`.

    ValueError: containerd would not start with them, or they cannot be understood. OSError: one
    cannot be read. Without a main file all is as containerd's defaults, unless it is `required`.
    """
    version = 0
    disabled: set[str] = set()
    plugins: dict[str, object] = {}
    replaced: dict[str, object] = {}
    sources: dict[str, Path] = {}
    for path, values in _files(root, main, required=required):
        if path == main:
            said = values.get("version")
            version = said if isinstance(said, int) else 0
        words = values.get("disabled_plugins")
        if isinstance(words, list):
            disabled.update(each for each in words if isinstance(each, str))
        sections = values.get("plugins")
        if isinstance(sections, dict):
            _override(plugins, sections)
            replaced.update(sections)
            sources.update(dict.fromkeys(sections, path))
    return ContainerdFiles(version, frozenset(disabled), plugins, replaced, sources)


def _files(root: Path, main: Path, *, required: bool) -> Iterator[tuple[Path, dict[str, object]]]:
    pending = [main]
    seen: set[Path] = set()
    while pending:
        path = pending.pop(0)
        if path in seen:
            continue
        if len(seen) == MAX_FILES:
            raise ValueError(f"{main} imports more than {MAX_FILES} files; the rest was not read")
        seen.add(path)
        try:
            with below(root, path).open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            if path == main and not required:
                return
            raise ValueError(
                f"{path} is named and is not there: containerd would not start"
            ) from None
        if len(content) > MAX_FILE_BYTES:
            raise ValueError(f"{path} has more than {MAX_FILE_BYTES} bytes")
        try:
            values = tomllib.loads(content.decode())
        except ValueError as error:  # not UTF-8, or not TOML
            raise ValueError(f"{path}: {error}") from error
        yield path, values
        pending += _imports(root, path, values.get("imports"))


def _imports(root: Path, parent: Path, imports: object) -> Iterator[Path]:
    for word in imports if isinstance(imports, list) else ():
        if not isinstance(word, str):
            continue
        path = os.path.normpath(parent.parent / word)
        if "*" not in path:
            yield Path(path)
            continue
        # Go's patterns: a class is negated by ^, and two stars are one.
        pattern = re.sub(r"\*+", "*", str(Path(path).relative_to("/"))).replace("[^", "[!")
        for found in sorted(root.glob(pattern)):
            yield Path("/") / found.relative_to(root)


def _override(into: dict[str, object], later: dict[str, object]) -> None:
    for key, value in later.items():
        before = into.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            copy = dict(before)
            _override(copy, value)
            into[key] = copy
        else:
            into[key] = value


def below(root: Path, path: Path) -> Path:
    """An absolute path of the machine whose root is `root`."""
    return root / path.relative_to("/") if path.is_absolute() else root / path


def required(nri: Mapping[str, object]) -> frozenset[str]:
    """The plugins that containerd's section on NRI requires: names, or NN-name."""
    validator = nri.get("default_validator")
    if not isinstance(validator, Mapping) or validator.get("enable") is not True:
        return frozenset()
    names = validator.get("required_plugins")
    return frozenset(map(str, names)) if isinstance(names, list) else frozenset()
