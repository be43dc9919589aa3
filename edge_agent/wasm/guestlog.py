"""A guest's log: env.log and its output, in whole lines, bounded in rate and size."""

import logging
import re
import time
from collections.abc import Callable

from edge_agent.logs import PLUGIN_LOGGER, PluginRecord
from edge_agent.pacing import TokenBucket
from edge_agent.text import printable

DEBUG, INFO, WARN, ERROR = 1, 2, 3, 4  # LogRequest.Level
_TELL_S = 5.0  # a flood that lasts is told this often
_REQUEST_OVERHEAD = 16  # bytes of a LogRequest around its text: tags, length, level

# What a line begins with that says its own level: logfmt, as Go's logrus and slog write it.
_LEVEL = re.compile(rb'(?:time=(?:"[^"]{1,64}"|[^" ]{1,64}) )?level="?([A-Za-z]{4,7})\b')
_LEVELS = {
    **dict.fromkeys((b"trace", b"debug"), DEBUG),
    b"info": INFO,
    **dict.fromkeys((b"warn", b"warning"), WARN),
    **dict.fromkeys((b"error", b"fatal", b"panic"), ERROR),
}

# Of a call's lines: what comes before an answer may have to wait for it. Few, and as long as the
# writer of the log lets lines gather: a call that ends the process loses hardly more than before.
MAX_HELD, HOLD_S = 16, 0.02

_NUMBERS = {DEBUG: logging.DEBUG, INFO: logging.INFO, WARN: logging.WARNING, ERROR: logging.ERROR}

Sink = Callable[[int, str], None]
"""Takes a level (1 debug .. 4 error) and a line. Must not block."""


class AgentLog:
    """A Sink: the lines of one plugin go to the agent's log.

    The log's handlers take longer than a small guest's answer, so between `hold` and `release`
    lines wait for them: MAX_HELD at most, and not when the first has waited HOLD_S.
    """

    def __init__(self, identity: str) -> None:
        self._identity = printable(identity)
        self._logger = logging.getLogger(PLUGIN_LOGGER)
        self._held: list[PluginRecord] | None = None

    def __call__(self, level: int, line: str) -> None:
        number = _NUMBERS[level]
        if not self._logger.isEnabledFor(number):
            return
        record, held = PluginRecord(self._identity, number, line), self._held
        if held is None:
            self._logger.handle(record)
            return
        held.append(record)
        if len(held) >= MAX_HELD or record.created - held[0].created >= HOLD_S:
            self.release()

    def hold(self) -> None:
        """From now on."""
        if self._held is None:
            self._held = []

    def release(self) -> None:
        """Pass on what was held, in its order and with its time, and hold nothing."""
        held, self._held = self._held, None
        for record in held or ():
            self._logger.handle(record)


class GuestLog:
    """Lines of one plugin on their way to `sink`.

    A token bucket holds one second's worth: a burst passes, a flood is counted and
    told now and then. A line longer than `line_bytes` is cut and says so.
    """

    def __init__(
        self,
        sink: Sink,
        lines_per_s: int,
        line_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sink = sink
        self._agent_log = sink if isinstance(sink, AgentLog) else None
        self._rate = lines_per_s
        self._line_bytes = line_bytes
        self._clock = clock
        self._lines = TokenBucket(lines_per_s, lines_per_s)
        self._unsaid = 0
        self._told = -_TELL_S
        self._partial: dict[int, tuple[bytes, int]] = {}  # by stream; bytes lost after them
        self.dropped = 0  # lines, in all
        self.muted = False  # what it says was said before

    @property
    def request_bytes(self) -> int:
        """How many bytes of a LogRequest to read out of the guest."""
        return self._line_bytes + _REQUEST_OVERHEAD

    def request(self, raw: bytes, size: int) -> None:
        """The first bytes of a serialized LogRequest of `size`. Bad bytes are a line too."""
        if self._admit():
            text, level, cut = _decode(raw, size)
            self._emit(level or INFO, text, cut)

    def say(self, level: int, text: str) -> None:
        """Log a line of the host about the guest."""
        if self._admit():
            self._emit(level, text.encode(), 0)

    def stream(self, fd: int, data: bytes, cut: int = 0) -> None:
        """Bytes printed to stdout (1) or stderr (2), and how many came after them unread.

        Lines end at a newline; empty ones are left out. A line is information from stdout and a
        warning from stderr, unless it begins with a level of its own.
        """
        level = WARN if fd == 2 else INFO
        kept, lost = self._partial.pop(fd, (b"", 0))
        *lines, rest = data.split(b"\n")
        for at, line in enumerate(lines):
            line = (kept + line).removesuffix(b"\r")
            if line or lost:
                if not self._admit():
                    later = lines[at + 1 :]  # at once: they may be many thousands
                    self._drop(len(later) - later.count(b""))
                    kept, lost = b"", 0
                    break
                self._emit(_own_level(line) or level, line, lost)
            kept, lost = b"", 0
        kept += rest
        lost += max(0, len(kept) - self._line_bytes) + cut
        if kept or lost:
            self._partial[fd] = kept[: self._line_bytes], lost

    def hold(self) -> None:
        """A call begins whose answer goes before its lines: see AgentLog."""
        if self._agent_log is not None:
            self._agent_log.hold()

    def release(self) -> None:
        """The answer is out."""
        if self._agent_log is not None:
            self._agent_log.release()

    def flush(self) -> None:
        """The guest is gone: what it printed without a newline is a line now."""
        self.release()
        for fd in list(self._partial):
            self.stream(fd, b"\n")
        if self._unsaid:
            self._tell(self._clock())

    def _admit(self) -> bool:
        if self.muted:
            return False
        now = self._clock()
        if not self._lines.take(now):
            self._drop(1)
            return False
        if self._unsaid and now - self._told >= _TELL_S:
            self._tell(now)
        return True

    def _drop(self, lines: int) -> None:
        self.dropped += lines
        self._unsaid += lines

    def _tell(self, now: float) -> None:
        self._sink(WARN, f"{self._unsaid} log lines dropped: more than {self._rate} a second")
        self._unsaid, self._told = 0, now

    def _emit(self, level: int, line: bytes, cut: int) -> None:
        if len(line) > self._line_bytes:
            cut += len(line) - self._line_bytes
            line = line[: self._line_bytes]
        text = line.decode(errors="backslashreplace")
        self._sink(level, f"{text} [cut, {cut} bytes more]" if cut else text)


def _own_level(line: bytes) -> int | None:
    found = _LEVEL.match(line)
    return _LEVELS.get(found[1].lower()) if found is not None else None


def _decode(raw: bytes, size: int) -> tuple[bytes, int, int]:
    """(msg, level, bytes missing of msg) of LogRequest { msg = 1; level = 2 }, cut anywhere.

    By hand: the library refuses cut messages, and two fields need no library.
    """
    text, level, cut, at, end = b"", 0, 0, 0, len(raw)
    while at < end:
        tag = raw[at]
        if at + 1 < end and (value := raw[at + 1]) < 0x80:  # as most are
            at += 2
        else:
            value, at = _varint(raw, at + 1)
        if tag == 0x0A:
            text = raw[at : at + value]
            at += value
            if at > end:
                cut = max(0, min(at, size) - end)
        elif tag == 0x10:
            level = value if value <= ERROR else INFO
        else:
            return raw, WARN, size - len(raw)
    return text, level, cut


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(raw) and shift < 64:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return value, at
