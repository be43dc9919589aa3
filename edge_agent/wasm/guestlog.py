"""A guest's log: env.log and what it prints, in whole lines, within a rate and a size."""

import time
from collections.abc import Callable

DEBUG, INFO, WARN, ERROR = 1, 2, 3, 4  # LogRequest.Level
_TELL_S = 5.0  # a flood that lasts is told this often
_REQUEST_OVERHEAD = 16  # bytes of a LogRequest around its text: tags, length, level

Sink = Callable[[int, str], None]
"""Takes a level (1 debug .. 4 error) and a line. Must not block."""


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
        self._rate = lines_per_s
        self._line_bytes = line_bytes
        self._clock = clock
        self._tokens = float(lines_per_s)
        self._refilled = clock()
        self._unsaid = 0
        self._told = -_TELL_S
        self._partial: dict[int, bytes] = {}
        self.dropped = 0  # lines, in all

    @property
    def request_bytes(self) -> int:
        """How much of a LogRequest is worth reading out of the guest."""
        return self._line_bytes + _REQUEST_OVERHEAD

    def request(self, raw: bytes, cut: int) -> None:
        """A serialized LogRequest, without its last `cut` bytes. Bad bytes are a line too."""
        if not self._admit():
            return
        text, level = _decode(raw)
        self._emit(level or INFO, text, cut)

    def stream(self, fd: int, data: bytes) -> None:
        """Bytes printed to stdout (1) or stderr (2); lines end at a newline."""
        level = WARN if fd == 2 else INFO
        *lines, rest = (self._partial.pop(fd, b"") + data).split(b"\n")
        for line in lines:
            if self._admit():
                self._emit(level, line, 0)
        if rest:
            self._partial[fd] = rest[: self._line_bytes + 1]

    def flush(self) -> None:
        """The guest is gone: what it printed without a newline is a line now."""
        for fd in list(self._partial):
            self.stream(fd, b"\n")
        if self._unsaid:
            self._tell(self._clock())

    def _admit(self) -> bool:
        now = self._clock()
        self._tokens = min(self._rate, self._tokens + (now - self._refilled) * self._rate)
        self._refilled = now
        if self._tokens < 1:
            self.dropped += 1
            self._unsaid += 1
            return False
        self._tokens -= 1
        if self._unsaid and now - self._told >= _TELL_S:
            self._tell(now)
        return True

    def _tell(self, now: float) -> None:
        self._sink(WARN, f"{self._unsaid} log lines dropped: more than {self._rate} a second")
        self._unsaid, self._told = 0, now

    def _emit(self, level: int, line: bytes, cut: int) -> None:
        over = max(0, len(line) - self._line_bytes)
        text = line[: self._line_bytes].decode(errors="backslashreplace")
        if over or cut:
            text += f" [cut, {over + cut} bytes more]"
        self._sink(level, text)


def _decode(raw: bytes) -> tuple[bytes, int]:
    """(msg, level) of a LogRequest { msg = 1; level = 2 } that may be cut anywhere.

    By hand: the library refuses cut messages, and two fields need no library.
    """
    text, level, at = b"", 0, 0
    while at < len(raw):
        tag = raw[at]
        value, at = _varint(raw, at + 1)
        if tag == 0x0A:
            text, at = raw[at : at + value], at + value
        elif tag == 0x10:
            level = value if value <= ERROR else INFO
        else:
            return raw, WARN
    return text, level


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
