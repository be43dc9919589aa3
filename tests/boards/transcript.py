"""What a person reads while a board is tested: steps, what was seen in each, what was checked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MAX_LINES = 12  # of one thing that was seen: the whole log shall stay readable
MAX_COLUMNS = 150


class Transcript:
    """`failed` says where it stopped."""

    def __init__(self, name: str, write: Callable[[str], object] = print) -> None:
        self.name = name
        self.seconds: dict[str, float] = {}
        self.checks = 0
        self._write = write

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Everything in the block; the time it took stands at its end."""
        self._write(f"\n== {self.name}: {title}")
        begin = time.monotonic()
        try:
            yield
        except BaseException as error:
            self._write(f"  FAILED after {time.monotonic() - begin:.0f} s: {error}")
            raise
        self.seconds[title] = time.monotonic() - begin
        self._write(f"  {self.seconds[title]:.0f} s")

    def saw(self, text: str, lines: int = MAX_LINES) -> None:
        """What a person would see."""
        rows = text.rstrip().splitlines()
        for row in rows[:lines]:
            self._write(f"  | {row[:MAX_COLUMNS]}".rstrip())
        if len(rows) > lines:
            self._write(f"  | ... and {len(rows) - lines} lines more")

    def check(self, truth: object, what: str, seen: object = "") -> None:
        """AssertionError, with what was seen, unless `truth`."""
        assert truth, f"not so: {what}; {seen}" if seen != "" else f"not so: {what}"
        self.checks += 1
        self._write(f"  ok: {what}")

    def summary(self) -> str:
        total = sum(self.seconds.values())
        return f"{self.name}: {len(self.seconds)} steps, {self.checks} checks in {total:.0f} s"
