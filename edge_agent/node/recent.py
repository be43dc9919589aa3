"""The latest lines of the log, kept for whoever asks from afar; bounded in number and bytes."""

import logging
from collections import deque
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


class Recent(logging.Handler):
    """Attached to the root logger it forgets the oldest lines first."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[tuple[int, str | None, Line]] = deque()
        self._bytes = 0

    def emit(self, record: logging.LogRecord) -> None:
        message = message_of(record)[:MAX_LINE_CHARS]
        plugin = plugin_of(record)
        source = plugin or record.name.removeprefix("edge_agent.")
        line = Line(record.created, record.levelname.lower(), source, message)
        self._lines.append((record.levelno, plugin, line))
        self._bytes += len(message)
        while len(self._lines) > MAX_LINES or self._bytes > MAX_BYTES:
            self._bytes -= len(self._lines.popleft()[2].message)

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
            for number, about, line in reversed(self._lines):
                if number < least or (plugin is not None and about != plugin):
                    continue
                chars -= len(line.message)
                if len(found) == count or chars < 0:
                    break
                found.append(line)
        finally:
            self.release()
        return found[::-1]
