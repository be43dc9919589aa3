"""A tree of named values, mostly a TOML file's: where its keys stand, and all that is wrong."""

import os
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

from edge_agent.config.units import format_size
from edge_agent.errors import ConfigError
from edge_agent.text import printable

# More than any person writes; a file in the plugin folder may be anything.
MAX_FILE_BYTES = 256 * 1024
# Problems kept of one file: more would not help the reader, and a hostile file could have many.
MAX_PROBLEMS = 50
# Characters of a wrong value shown in its problem.
MAX_VALUE_SHOWN = 60

_PLACE = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")
_HEADER = re.compile(r"\s*\[?(\[[^\[\]]+\])")
_KEY_PART = r"(?:[\w-]+|\"[^\"]*\"|'[^']*')"
_ASSIGNMENT = re.compile(rf"\s*({_KEY_PART}(?:\s*\.\s*{_KEY_PART})*)\s*=")

KeyPath = tuple[str, ...]


class Document:
    """A parsed file and its problems so far. The getters of `Table` fill it in."""

    def __init__(self, path: Path, text: str, values: dict[str, object] | None = None) -> None:
        """Raises ConfigError, with the line, when `text` is not TOML.

        `values` are taken as they are, where they come from something else than TOML:
        `path` is then the name to call that by.
        """
        self.path = path
        self.values: dict[str, object]
        self.asked: set[KeyPath] = set()  # every key that a getter named
        self._text = text
        self._lines: dict[KeyPath, int] | None = None
        self._problems: list[tuple[int, str]] = []
        self._more = 0
        if values is not None:
            self.values = values
            return
        if len(text) > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: larger than {format_size(MAX_FILE_BYTES)}; is it TOML?")
        try:
            self.values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(_syntax_problem(path, text, str(error))) from None
        except (RecursionError, ValueError):  # thousands of brackets or digits
            raise ConfigError(f"{path}: not valid TOML: a value is far too long or deep") from None

    def problem(self, key: KeyPath, message: str) -> None:
        """Note what is wrong at `key`."""
        if self.full:
            self._more += 1
            return
        line = self._line_of(key)
        where = f"{self.path}:{line}" if line else f"{self.path}"
        self._problems.append((line, f"{where}: {dotted(key)}: {message}"))

    @property
    def full(self) -> bool:
        """Whether further problems are only counted."""
        return len(self._problems) >= MAX_PROBLEMS

    def nearest(self, word: object, words: Iterable[str]) -> str | None:
        """The known word that `word` is probably a misspelling of."""
        if self.full or not isinstance(word, str) or len(word) > MAX_VALUE_SHOWN:
            return None
        import difflib  # only a file with a mistake needs it

        near = difflib.get_close_matches(word, sorted(words), 1)
        return near[0] if near else None

    def check(self) -> None:
        """Raise one ConfigError with every problem, in the order of the file."""
        if not self._problems:
            return
        lines = [text for _, text in sorted(self._problems, key=lambda item: item[0])]
        if self._more:
            lines.append(f"{self.path}: and {self._more} more")
        raise ConfigError("\n".join(lines))

    def _line_of(self, key: KeyPath) -> int:
        """The line that sets `key`, or that of the closest table around it; 0: none."""
        if self._lines is None:
            self._lines = _lines_of_keys(self._text)
        for depth in range(len(key), 0, -1):
            if line := self._lines.get(key[:depth]):
                return line
        return 0


def read_text(path: Path) -> str:
    """A configuration file's text; raises ConfigError that says why there is none."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {os.strerror(error.errno or 0)}") from error
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text, as TOML must be") from None


def dotted(path: KeyPath) -> str:
    """A key as TOML writes it, safe to print."""
    return ".".join(
        part if re.fullmatch(r"[A-Za-z0-9_-]{1,60}", part) else show(part) for part in path
    )


def show(value: object) -> str:
    """A value as TOML writes it, safe to print, cut to what fits a line."""
    if isinstance(value, str):
        cut = value[:MAX_VALUE_SHOWN] + ("..." if len(value) > MAX_VALUE_SHOWN else "")
        return f'"{printable(cut)}"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    return str(value) if not isinstance(value, int) or abs(value) < 1 << 63 else "a huge number"


def _syntax_problem(path: Path, text: str, message: str) -> str:
    place = _PLACE.search(message)
    said = _PLACE.sub("", message)
    if place is None or place[1] is None:
        last = text.count("\n") + 1
        return f"{path}:{last}: not valid TOML: {said} at the end of the file"
    return f"{path}:{place[1]}: not valid TOML: {said} (column {place[2]})"


def _lines_of_keys(text: str) -> dict[KeyPath, int]:
    """Where each key is first set.

    A search, not a parser: a line inside a multi-line string can mislead it, and the
    worst that follows is a wrong line number beside the right key.
    """
    lines: dict[KeyPath, int] = {}
    header: KeyPath = ()
    for number, line in enumerate(text.split("\n"), 1):
        if match := _HEADER.match(line):
            found = header = _path_in(match[1])
        elif match := _ASSIGNMENT.match(line):
            found = header + _path_in(f"{match[1]} = 0")
        else:
            continue
        lines.setdefault(found, number)
    return lines


def _path_in(statement: str) -> KeyPath:
    """The key path of one TOML header or assignment; () if it is neither."""
    try:
        value: object = tomllib.loads(statement)
    except (tomllib.TOMLDecodeError, RecursionError):
        return ()
    path: list[str] = []
    while isinstance(value, dict) and value:
        key, value = next(iter(value.items()))
        path.append(key)
    return tuple(path)
