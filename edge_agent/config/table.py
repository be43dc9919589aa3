"""Reads the tables of a configuration file key by key.

Each getter names one known key; `end` then reports the keys that nobody asked for. A
getter that finds a problem notes it in the document and returns the default, so one
pass sees everything that is wrong.
"""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar, get_args

from edge_agent.config.document import MAX_VALUE_SHOWN, Document, KeyPath, dotted, show
from edge_agent.config.units import (
    DURATION_FORM,
    SIZE_FORM,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

# Linux's sockaddr_un holds 108 bytes with the final zero.
MAX_SOCKET_PATH_BYTES = 107
# Entries of a list or of a map of the operator's own: far above any real use.
MAX_ENTRIES = 100
TEXT_PATTERN = r"[^\x00-\x1f\x7f-\x9f]{1,255}"
PATH_PATTERN = r"[^\x00-\x1f\x7f-\x9f]{1,4095}"  # Linux's PATH_MAX
TEXT_FORM = "a string of 1 to 255 characters, none of them a control character"

T = TypeVar("T")
N = TypeVar("N", int, float)


class Table:
    """One table. Each getter returns its key's value, or `default` if absent or wrong."""

    def __init__(
        self, document: Document, path: KeyPath = (), values: dict[str, object] | None = None
    ) -> None:
        """The root of `document`, or the table `values` at `path`."""
        self._document = document
        self._path = path
        self._values = document.values if values is None else values
        self._known: set[str] = set()

    def table(self, key: str) -> "Table":
        """The table below `key`; an absent one is empty."""
        value = self._value(key, {})
        if not isinstance(value, dict):
            self.problem(key, f"must be a table, [{dotted((*self._path, key))}], not {show(value)}")
            value = {}
        return Table(self._document, (*self._path, key), value)

    def tables(self, key: str, *, at_least: int, at_most: int) -> "list[Table]":
        """The tables in the list at `key`; an absent list is empty."""
        value = self._value(key, [])
        if not isinstance(value, list) or not at_least <= len(value) <= at_most:
            shown = f"{show(value)} of {len(value)}" if isinstance(value, list) else show(value)
            self.problem(key, f"must be a list of {at_least} to {at_most} tables, not {shown}")
            return []
        found = []
        for number, item in enumerate(value):
            path = (*self._path, key, str(number))
            if isinstance(item, dict):
                found.append(Table(self._document, path, item))
            else:
                self._document.problem(path, f"must be a table, not {show(item)}")
        return found

    def text(
        self, key: str, default: T, *, pattern: str = TEXT_PATTERN, form: str = TEXT_FORM
    ) -> str | T:
        """A string that `pattern` matches wholly; `form` says what that means."""
        value = self._value(key, None)
        if value is None:
            return default
        if isinstance(value, str) and re.fullmatch(pattern, value):
            return value
        self.problem(key, f"must be {form}, not {show(value)}")
        return default

    def raw(self, key: str) -> object:
        """Whatever is there, for a caller that checks it; None: nothing."""
        return self._value(key, None)

    def choice(self, key: str, choices: object, default: T, *, earlier: object = None) -> T:
        """One of the words of a `Literal` type. Those of `earlier` are taken, but not offered."""
        words = get_args(choices)
        value = self._value(key, default)
        if value in (*words, *get_args(earlier)):
            return value  # type: ignore[return-value]
        near = self._document.nearest(value, words)
        hint = f"; did you mean {_quote(near)}?" if near else ""
        self.problem(key, f"must be one of {_listed(words)}, not {show(value)}{hint}")
        return default

    def flag(self, key: str, default: bool | None) -> bool | None:
        """True or false."""
        value = self._value(key, default)
        if value is None or isinstance(value, bool):
            return value
        self.problem(key, f"must be true or false, not {show(value)}")
        return default

    def count(self, key: str, default: int, *, at_least: int, at_most: int) -> int:
        """A whole number."""
        value = self._value(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            self.problem(key, f"must be a whole number, not {show(value)}")
            return default
        return self._within(key, value, default, at_least, at_most, str)

    def size(self, key: str, default: int, *, at_least: int, at_most: int) -> int:
        """Bytes."""
        value = self._value(key, default)
        size = parse_size(value)
        if size is None:
            self.problem(key, f"must be {SIZE_FORM}, not {show(value)}")
            return default
        return self._within(key, size, default, at_least, at_most, format_size)

    def seconds(self, key: str, default: float, *, at_least: float, at_most: float) -> float:
        """A duration, in seconds."""
        value = self._value(key, None)
        if value is None:
            return default
        seconds = parse_duration(value)
        if seconds is None:
            self.problem(key, f"must be {DURATION_FORM}, not {show(value)}")
            return default
        return self._within(key, seconds, default, at_least, at_most, format_duration)

    def milliseconds(self, key: str, default: int, *, at_least: int, at_most: int) -> int:
        """A duration, in whole milliseconds."""
        seconds = self.seconds(
            key, default / 1000, at_least=at_least / 1000, at_most=at_most / 1000
        )
        return round(seconds * 1000)

    def path(self, key: str, default: T) -> Path | T:
        """A path; a relative one starts at the folder of the configuration file."""
        value = self._value(key, None)
        if value is None:
            return default
        return self._as_path(key, value) or default

    def socket(self, key: str, default: Path) -> Path:
        """The path of a Unix socket."""
        path = self.path(key, default)
        return path if self._socket_fits(key, path) else default

    def sockets(self, key: str, default: tuple[Path, ...]) -> tuple[Path, ...]:
        """A list of at least one socket path, none twice."""
        value = self._value(key, None)
        if value is None:
            return default
        paths = [self._as_path(key, item) for item in self._items(key, value)]
        found = tuple(path for path in paths if path and self._socket_fits(key, path))
        if len(set(found)) < len(found):
            self.problem(key, "names a socket twice")
        return found or default

    def texts(
        self,
        key: str,
        default: T,
        *,
        pattern: str = TEXT_PATTERN,
        form: str = TEXT_FORM,
    ) -> tuple[str, ...] | T:
        """A list of strings, each of which `pattern` matches wholly."""
        value = self._value(key, None)
        if value is None:
            return default
        items = self._items(key, value, at_least=0)
        texts = tuple(
            item for item in items if isinstance(item, str) and re.fullmatch(pattern, item)
        )
        if len(texts) < len(items):
            wrong = next(item for item in items if item not in texts)
            self.problem(key, f"must be a list; {show(wrong)} in it must be {form}")
        return texts

    def words(self, key: str, choices: object, default: T, *, at_least: int = 1) -> T:
        """A list of words of a `Literal` type, none twice, as a tuple."""
        value = self._value(key, None)
        if value is None:
            return default
        items = self._items(key, value, at_least)
        wrong = [item for item in items if item not in get_args(choices)]
        if wrong:
            self.unknown_word(key, wrong[0], get_args(choices))
            return default
        if len(set(items)) < len(items):
            self.problem(key, "names a word twice")
        return tuple(items) if len(items) >= at_least else default  # type: ignore[return-value]

    def string_map(self, *, pattern: str, form: str) -> dict[str, str]:
        """This whole table as keys and strings of the operator's choosing."""
        if len(self._values) > MAX_ENTRIES:
            self._document.problem(self._path, f"must have at most {MAX_ENTRIES} entries")
            return {}
        for key in self._values:
            if not re.fullmatch(pattern, key):
                self.problem(key, f"is not a name here; a name is {form}")
        return {key: self.text(key, "") for key in self._values}

    def problem(self, key: str, message: str) -> None:
        """Note what is wrong at a key of this table."""
        self._document.problem((*self._path, key), message)

    def unknown_word(self, key: str, word: object, words: Iterable[str]) -> None:
        """Note that `word`, in the list at `key`, is none of `words`."""
        near = self._document.nearest(word, words)
        hint = f"did you mean {_quote(near)}?" if near else f"known are {_listed(words)}"
        self.problem(key, f"{show(word)} is unknown; {hint}")

    def end(self) -> None:
        """Report every key that no getter named."""
        for key in sorted(self._values.keys() - self._known):
            near = self._document.nearest(key, self._known)
            known = ", ".join(sorted(self._known))
            hint = f"did you mean {near}?" if near else f"known here: {known}"
            self.problem(key, f"unknown key; {hint}")

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def _value(self, key: str, default: object) -> object:
        self._known.add(key)
        self._document.asked.add((*self._path, key))
        return self._values.get(key, default)

    def _within(
        self, key: str, value: N, default: N, at_least: N, at_most: N, form: Callable[[N], str]
    ) -> N:
        if at_least <= value <= at_most:
            return value
        written = form(value)[:MAX_VALUE_SHOWN]
        self.problem(key, f"must be between {form(at_least)} and {form(at_most)}, not {written}")
        return default

    def _items(self, key: str, value: object, at_least: int = 1) -> list[object]:
        if isinstance(value, list) and at_least <= len(value) <= MAX_ENTRIES:
            return value
        shown = f"{show(value)} of {len(value)}" if isinstance(value, list) else show(value)
        self.problem(key, f"must be a list of {at_least} to {MAX_ENTRIES} entries, not {shown}")
        return []

    def _as_path(self, key: str, value: object) -> Path | None:
        if isinstance(value, str) and re.fullmatch(PATH_PATTERN, value):
            return self._document.path.parent / value
        self.problem(key, f"must be a path, not {show(value)}")
        return None

    def _socket_fits(self, key: str, path: Path) -> bool:
        if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
            return True
        self.problem(key, f"is longer than the {MAX_SOCKET_PATH_BYTES} bytes of a socket's path")
        return False


def _quote(word: str) -> str:
    return f'"{word}"'


def _listed(words: Iterable[str]) -> str:
    return ", ".join(_quote(word) for word in words)
