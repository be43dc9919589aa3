"""Logs: human lines on a terminal, JSON lines elsewhere, and no waiting for either.

The thread that logs only puts the message together and queues it; a thread of the
handler's own makes lines and writes them, some at a time. A reader of stderr that is
stuck (a full pipe, a stopped terminal) costs lines, which are counted and reported, and
never costs a runtime its answer.

Whatever stands in a record may come from a plugin or a peer, so every line is made
safe to print (edge_agent.text): nobody can forge a line or drive the terminal.
"""

import functools
import logging
import os
import select
import threading
import time
from collections import deque
from json.encoder import encode_basestring_ascii as _quoted

from edge_agent import process
from edge_agent.config.model import LogConfig
from edge_agent.text import printable

# Bytes waiting to be written: some hundred lines at least, little beside one plugin.
MAX_QUEUED_BYTES = 256 * 1024
# Kept free for errors, so that a flood of small talk cannot drown them.
RESERVED_FOR_ERRORS_BYTES = 32 * 1024
# Characters of a message, beyond which it is cut; a plugin's own limit is lower.
MAX_MESSAGE_CHARS = 16 * 1024
# Bytes handed to one write: what a pipe takes at once.
MAX_WRITE_BYTES = 64 * 1024
# What a record takes in memory beside its message, and with a traceback; measured, rounded.
RECORD_BYTES = 512
TRACEBACK_BYTES = 4096
# How long the writer lets lines gather: waking it for each would slow each answer.
GATHER_SECONDS = 0.02
# How long the end of the process waits for what is still queued.
FLUSH_SECONDS = 1.0
STACK_BYTES = 512 * 1024  # of the writer's thread

PLUGIN_LOGGER = "edge_agent.plugin"

_COLOURS = {"DEBUG": "\x1b[2m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m"}
_RESET = "\x1b[0m"
# sd-daemon(3); anything else is information.
_PRIORITIES = {logging.DEBUG: 7, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class PluginRecord(logging.LogRecord):
    """A line of a plugin. It has what handlers and formatters here need and no more: where
    it was logged, by which thread and process, takes longer to find than all the rest."""

    def __init__(self, plugin: str, level: int, line: str) -> None:
        now = time.time()
        self.name = PLUGIN_LOGGER
        self.levelno = level
        self.levelname = logging.getLevelName(level)
        self.created = now
        self.msecs = now % 1 * 1000
        self.msg = line
        self.shown = _shown(line)
        self.args = self.exc_info = self.exc_text = self.stack_info = None
        self.lineno = 0
        self.plugin = plugin


def start(
    config: LogConfig, *, fd: int = 2, no_color: bool = False, journal: str = ""
) -> "LineHandler":
    """Send the log of the whole process to `fd`; `stop` what is returned at the end.

    `journal` is JOURNAL_STREAM (systemd.exec(5)): which file the journal reads, so that
    lines carry their level for it if that is `fd`.
    """
    terminal = os.isatty(fd)
    human = config.format == "human" or (config.format == "auto" and terminal)
    colour = terminal and not no_color
    # Of no use in a line; looking them up would take longer than all the rest.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    formatter = HumanFormatter(colour=colour) if human else JsonFormatter()
    handler = LineHandler(fd, JournalFormatter(formatter) if _is(fd, journal) else formatter)
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
    if isinstance(record, PluginRecord):
        return record.plugin
    plugin = getattr(record, "plugin", None)
    if plugin is None and record.name.startswith(f"{PLUGIN_LOGGER}."):
        plugin = record.name.removeprefix(f"{PLUGIN_LOGGER}.")
    return None if plugin is None else printable(str(plugin))


def message_of(record: logging.LogRecord) -> str:
    """The message on one line, safe to print, cut to a bearable length."""
    if isinstance(record, PluginRecord):
        return record.shown
    try:
        message = record.getMessage()
    except Exception as error:
        # In whatever was being done when it was logged, this must not be a failure too.
        message = f"a log record of {record.name}, line {record.lineno}, is wrong: {error!r}"
    return _shown(message)


def _shown(message: str) -> str:
    if len(message) > MAX_MESSAGE_CHARS:
        message = f"{message[:MAX_MESSAGE_CHARS]}... ({len(message)} characters)"
    return printable(message)


class HumanFormatter(logging.Formatter):
    """`14:03:59 warning 10-resource-guard: the message`; a traceback follows indented.

    Like the other one it takes what `LineHandler.emit` left in `record.message`.
    """

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        moment = _clock_time(int(record.created))
        source = plugin_of(record) or record.name.removeprefix("edge_agent.")
        line = f"{moment} {record.levelname.lower():7} {source}: {record.message}"
        if record.exc_info:
            trace = self.formatException(record.exc_info).split("\n")
            line += "".join(f"\n    {printable(each)}" for each in trace)
        colour = _COLOURS.get(record.levelname) if self._colour else None
        return f"{colour}{line}{_RESET}" if colour else line


class JsonFormatter(logging.Formatter):
    """One JSON object: time (UTC), level, logger, plugin?, message, traceback?."""

    def format(self, record: logging.LogRecord) -> str:
        # Put together by hand: a third of what json.dumps of a dictionary takes, and the
        # thread that answers the runtime waits for the interpreter meanwhile.
        line = (
            f'{{"time": "{_utc(int(record.created))}.{int(record.msecs):03d}Z", '
            f"{_source(record.levelname, record.name, plugin_of(record))}, "
            f'"message": {_quoted(record.message)}'
        )
        if record.exc_info:
            line += f', "traceback": {_quoted(self.formatException(record.exc_info))}'
        return line + "}"


class JournalFormatter(logging.Formatter):
    """Puts `<3>` and the like, which the journal takes off, before each line of another's."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_PRIORITIES.get(record.levelno, 6)}>"
        return prefix + self._inner.format(record).replace("\n", f"\n{prefix}")


def _is(fd: int, device_and_inode: str) -> bool:
    status = os.fstat(fd)
    return device_and_inode == f"{status.st_dev}:{status.st_ino}"


@functools.lru_cache(64)  # most lines are of a few plugins
def _source(level: str, name: str, plugin: str | None) -> str:
    """Whose line it is, as JsonFormatter writes it."""
    source = f'"level": "{level.lower()}", "logger": {_quoted(name)}'
    return f'{source}, "plugin": {_quoted(plugin)}' if plugin else source


@functools.lru_cache(1)
def _clock_time(second: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(second))


@functools.lru_cache(1)
def _utc(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


class LineHandler(logging.Handler):
    """Queues records within a limit of bytes; a daemon thread writes them to `fd`."""

    def __init__(self, fd: int, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.dropped = 0  # lines, since the start
        self.queued_bytes = 0  # by the estimate of `_cost`
        self._fd = fd
        self._line = formatter.format
        self._records: deque[tuple[logging.LogRecord, int]] = deque()
        self._dropped_unsaid = 0
        self._mutex = threading.Lock()
        self._changed = threading.Condition(self._mutex)
        self._idle = False  # the writer waits for a first record
        self._flush_now = False  # a thread waits for the writer
        self._closed = False
        process.start(self._write_all, name="log writer", stack_bytes=STACK_BYTES)

    def emit(self, record: logging.LogRecord) -> None:
        # Now, as the arguments may change; the rest is left to the writer.
        record.message = message_of(record)
        self._queue(record, _cost(record))

    def flush(self) -> None:
        """Wait a little for the reader to take what is queued."""
        with self._changed:
            self._flush_now = True
            self._changed.notify_all()
            self._changed.wait_for(self._all_written, FLUSH_SECONDS)
            self._flush_now = False

    def close(self) -> None:
        self.flush()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        super().close()

    def _all_written(self) -> bool:
        return (self._idle and not self._records) or self._closed

    def _queue(self, record: logging.LogRecord, cost: int) -> None:
        room = MAX_QUEUED_BYTES
        if record.levelno < logging.ERROR:
            room -= RESERVED_FOR_ERRORS_BYTES
        with self._mutex:
            if self._closed or self.queued_bytes + cost > room:
                self.dropped += 1
                self._dropped_unsaid += 1
                return
            self._records.append((record, cost))
            self.queued_bytes += cost
            if self._idle:
                self._idle = False
                self._changed.notify_all()

    def _write_all(self) -> None:
        while (lines := self._next_lines()) is not None:
            try:
                _write(self._fd, lines)
            except OSError:  # the reader is gone: what comes now only counts as dropped
                with self._changed:
                    self._closed = True
                    self._records.clear()
                    self._changed.notify_all()

    def _next_lines(self) -> bytes | None:
        """Wait for records and make lines of the oldest; None: there will be no more."""
        with self._changed:
            if not self._records:
                self._idle = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._records or self._closed)
                self._idle = False
                self._changed.wait_for(lambda: self._flush_now or self._closed, GATHER_SECONDS)
            if self._closed:
                return None
            taken = []
            size = 0
            while self._records and size <= MAX_WRITE_BYTES:
                record, cost = self._records.popleft()
                taken.append(record)
                size += cost
            self.queued_bytes -= size
            if self._dropped_unsaid and not self._records:
                text = f"{self._dropped_unsaid} log lines were dropped: nobody read them in time"
                taken.append(_own_record(text))
                self._dropped_unsaid = 0
        lines = "\n".join(map(self._line, taken)) + "\n"
        return lines.encode("utf-8", "backslashreplace")


def _cost(record: logging.LogRecord) -> int:
    """About what a queued record keeps in memory, in bytes."""
    size = RECORD_BYTES + len(record.message)
    return size + TRACEBACK_BYTES if record.exc_info else size


def _own_record(message: str) -> logging.LogRecord:
    record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, message, None, None)
    record.message = message_of(record)
    return record


def _write(fd: int, data: bytes) -> None:
    """Write all of `data`, also where another process made the shared descriptor non-blocking."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            select.select([], [fd], [])
