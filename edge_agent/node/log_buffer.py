"""The latest lines of the log, kept for requests of the fleet; bounded in number and bytes.

What plugins say below a warning has a part of its own: however much that is, the agent's lines
and everybody's warnings stay.
"""

import logging
from collections import deque
from heapq import merge
from typing import NamedTuple

from edge_agent.logs import message_of, plugin_of

MAX_LINES = 500
MAX_BYTES = 128 * 1024  # what a board can spare for looking back
MAX_LINE_CHARS = 1000


class Line(NamedTuple):
    """One line; `time` in seconds since 1970."""

    time: float
    level: str
    source: str  # a plugin's NN-name, or a part of the agent
    message: str


class _Kept(NamedTuple):
    number: int  # in the order of logging
    level: int
    plugin: str | None
    line: Line


class _Part:
    """Half of the memory; the oldest lines go first."""

    def __init__(self) -> None:
        self.lines: deque[_Kept] = deque()
        self._bytes = 0

    def add(self, kept: _Kept) -> None:
        self.lines.append(kept)
        self._bytes += len(kept.line.message)
        while len(self.lines) > MAX_LINES // 2 or self._bytes > MAX_BYTES // 2:
            self._bytes -= len(self.lines.popleft().line.message)


class LogBuffer(logging.Handler):
    """Attached to the root logger it forgets the oldest lines of each part first."""

    def __init__(self) -> None:
        super().__init__()
        self._talk, self._rest = _Part(), _Part()  # of plugins, below a warning; all else
        self._count = 0

    def emit(self, record: logging.LogRecord) -> None:
        message = message_of(record)[:MAX_LINE_CHARS]
        plugin = plugin_of(record)
        source = plugin or record.name.removeprefix("edge_agent.")
        line = Line(record.created, record.levelname.lower(), source, message)
        self._count += 1
        talk = plugin is not None and record.levelno < logging.WARNING
        kept = _Kept(self._count, record.levelno, plugin, line)
        (self._talk if talk else self._rest).add(kept)

    def latest(
        self, count: int, level: str = "debug", plugin: str | None = None, chars: int = MAX_BYTES
    ) -> list[Line]:
        """At most `count` lines, of at least `level`, of `plugin` if named, oldest first.

        Together at most `chars` characters of message: the newest ones.
        """
        least = getattr(logging, level.upper())
        found: list[Line] = []
        self.acquire()
        try:
            parts = (reversed(self._talk.lines), reversed(self._rest.lines))
            for kept in merge(*parts, key=lambda each: each.number, reverse=True):
                line = kept.line
                if kept.level < least or (plugin is not None and kept.plugin != plugin):
                    continue
                chars -= len(line.message)
                if len(found) == count or chars < 0:
                    break
                found.append(line)
        finally:
            self.release()
        return found[::-1]
