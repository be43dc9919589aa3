"""Logs: human lines on a terminal, JSON lines elsewhere, and no waiting for either.

The thread that logs only formats a line and queues it; a thread of the handler's own
writes. A reader of stderr that is stuck (a full pipe, a stopped terminal) costs lines,
which are counted and reported, and never costs a runtime its answer.

Whatever stands in a record may come from a plugin or a peer, so every line is made
safe to print (edge_agent.text): nobody can forge a line or drive the terminal.
"""

import json
import logging
import os
import select
import threading
import time
from collections import deque

from edge_agent.config.model import LogConfig
from edge_agent.text import printable

# Bytes waiting to be written: some thousands of lines, little beside one plugin.
MAX_QUEUED_BYTES = 256 * 1024
# Kept free for errors, so that a flood of small talk cannot drown them.
RESERVED_FOR_ERRORS_BYTES = 32 * 1024
# Characters of a message, beyond which it is cut; a plugin's own limit is lower.
MAX_MESSAGE_CHARS = 16 * 1024
# Bytes handed to one write: what a pipe takes at once.
MAX_WRITE_BYTES = 64 * 1024
# How long the end of the process waits for what is still queued.
FLUSH_SECONDS = 1.0

PLUGIN_LOGGER = "edge_agent.plugin"

_COLOURS = {"DEBUG": "\x1b[2m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m"}
_RESET = "\x1b[0m"


def plugin_logger(plugin: str) -> logging.LoggerAdapter[logging.Logger]:
    """Where the lines of the plugin `NN-name` go; each line carries that name."""
    return logging.LoggerAdapter(logging.getLogger(PLUGIN_LOGGER), {"plugin": plugin})


def start(config: LogConfig, *, fd: int = 2, no_color: bool = False) -> "LineHandler":
    """Send the log of the whole process to `fd`; `stop` what is returned at the end."""
    terminal = os.isatty(fd)
    human = config.format == "human" or (config.format == "auto" and terminal)
    colour = terminal and not no_color
    handler = LineHandler(fd, HumanFormatter(colour=colour) if human else JsonFormatter())
    logging.getLogger().addHandler(handler)
    set_level(config)
    return handler


def set_level(config: LogConfig) -> None:
    """The level of the project's own loggers; libraries speak from warning up."""
    logging.getLogger("edge_agent").setLevel(config.level.upper())


def stop(handler: "LineHandler") -> None:
    """Write what is queued, as far as the reader takes it, and end."""
    logging.getLogger().removeHandler(handler)
    handler.close()


def plugin_of(record: logging.LogRecord) -> str | None:
    """The plugin that a record is about or from."""
    plugin = getattr(record, "plugin", None)
    if plugin is None and record.name.startswith(f"{PLUGIN_LOGGER}."):
        plugin = record.name.removeprefix(f"{PLUGIN_LOGGER}.")
    return None if plugin is None else printable(str(plugin))


def message_of(record: logging.LogRecord) -> str:
    """The message on one line, safe to print, cut to a bearable length."""
    message = record.getMessage()
    if len(message) > MAX_MESSAGE_CHARS:
        message = f"{message[:MAX_MESSAGE_CHARS]}... ({len(message)} characters)"
    return printable(message)


class HumanFormatter(logging.Formatter):
    """`14:03:59 warning 10-resource-guard: the message`; a traceback follows indented."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%H:%M:%S", time.localtime(record.created))
        source = plugin_of(record) or record.name.removeprefix("edge_agent.")
        line = f"{moment} {record.levelname.lower():7} {source}: {message_of(record)}"
        if record.exc_info:
            trace = self.formatException(record.exc_info).split("\n")
            line += "".join(f"\n    {printable(each)}" for each in trace)
        colour = _COLOURS.get(record.levelname) if self._colour else None
        return f"{colour}{line}{_RESET}" if colour else line


class JsonFormatter(logging.Formatter):
    """One JSON object: time (UTC), level, logger, plugin?, message, traceback?."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if plugin := plugin_of(record):
            line["plugin"] = plugin
        line["message"] = message_of(record)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class LineHandler(logging.Handler):
    """Queues lines within a limit of bytes; a daemon thread writes them to `fd`."""

    def __init__(self, fd: int, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.dropped = 0  # lines, since the start
        self._fd = fd
        self._lines: deque[bytes] = deque()
        self.queued_bytes = 0
        self._dropped_unsaid = 0
        self._changed = threading.Condition()
        self._writing = False
        self._closing = False
        self._thread = threading.Thread(target=self._write_all, name="log writer", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as error:
            # The record's own fault; say so on a line that cannot fail in the same way.
            line = f"a log record of {record.name}, line {record.lineno}, is wrong: {error!r}"
            line = self.format(logging.makeLogRecord({"msg": line, "name": __name__}))
        self._queue(f"{line}\n".encode("utf-8", "backslashreplace"), record.levelno)

    def flush(self) -> None:
        """Wait a little for the reader to take what is queued."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lines and not self._writing, FLUSH_SECONDS)

    def close(self) -> None:
        self.flush()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        super().close()

    def _queue(self, line: bytes, level: int) -> None:
        room = MAX_QUEUED_BYTES
        if level < logging.ERROR:
            room -= RESERVED_FOR_ERRORS_BYTES
        with self._changed:
            if self._closing or self.queued_bytes + len(line) > room:
                self.dropped += 1
                self._dropped_unsaid += 1
                return
            self._lines.append(line)
            self.queued_bytes += len(line)
            self._changed.notify()

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._lines or self._closing)
                if self._closing:
                    return
                batch = self._next_batch()
                self._writing = True
            try:
                _write(self._fd, batch)
            except OSError:  # nobody reads any more: what comes now only counts as dropped
                with self._changed:
                    self._closing = True
                    self._writing = False
                    self._lines.clear()
                    self._changed.notify_all()
                return

    def _next_batch(self) -> bytes:
        """The oldest lines, as many as one write takes; what was lost is said after them."""
        batch = bytearray()
        while self._lines and (not batch or len(batch) + len(self._lines[0]) <= MAX_WRITE_BYTES):
            line = self._lines.popleft()
            self.queued_bytes -= len(line)
            batch += line
        if self._dropped_unsaid and not self._lines:
            text = f"{self._dropped_unsaid} log lines were dropped: nobody read them in time"
            said = {"msg": text, "name": __name__, "levelno": 30, "levelname": "WARNING"}
            batch += f"{self.format(logging.makeLogRecord(said))}\n".encode()
            self._dropped_unsaid = 0
        return bytes(batch)


def _write(fd: int, data: bytes) -> None:
    """Write all of `data`, also where somebody made the shared descriptor non-blocking."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            select.select([], [fd], [])
