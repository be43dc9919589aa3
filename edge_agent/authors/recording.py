"""Files of recorded events, NAME.edgerec: what plugins were asked and what they answered.

gzip of lines of JSON. The first is {"format": "edge-agent recording 1", ...}; each further one is
an event, as `edge_agent.node.recorder` tells it. A reader takes a file as hostile input, also one
that came from a node of a fleet.
"""

import binascii
import fnmatch
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from google.protobuf.message import DecodeError, Message

from edge_agent.config.model import REDACTABLE
from edge_agent.errors import ConfigError
from edge_agent.nri import events
from edge_agent.nri.difference import message_types
from edge_agent.nri.events import message_type

FORMAT = "edge-agent recording 1"
# Of an event with 256 KiB, the most that an agent records, whose every value became longer.
MAX_LINE_BYTES = 4 << 20
MAX_FILE_BYTES = 256 << 20  # decompressed
MAX_EVENTS = 100_000
HIDDEN = "redacted"


@dataclass(frozen=True)
class Recorded:
    """One event. `request` and `reply` as they went over the wire, but for what was redacted."""

    plugin: str
    digest: str
    runtime: str
    event: str
    export: str
    kind: str
    error: str
    time_ns: int
    duration_us: int
    request: bytes
    reply: bytes

    def message(self) -> Message:
        """The request. ConfigError: it is none."""
        try:
            found: Message = message_type(self.export, self.event).FromString(self.request)
        except (DecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"the request of an event {self.event} is none") from error
        return found

    def answer(self) -> Message:
        """The reply. ConfigError: it is none."""
        try:
            return message_types(self.event)[1].FromString(self.reply)
        except (DecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"the reply to an event {self.event} is none") from error


# --- redaction


class Redaction:
    """Rules such as "env", "annotations:secret*": KIND or KIND:GLOB of names.

    The value of what fits becomes "redacted"; of args all but the first. ConfigError: a wrong rule.
    """

    def __init__(self, rules: Iterable[str]) -> None:
        self.rules = tuple(rules)
        self._globs: dict[str, list[str]] = {}
        for rule in self.rules:
            kind, _, glob = rule.partition(":")
            if kind not in REDACTABLE:
                raise ConfigError(f"--redact {rule}: can be {', '.join(REDACTABLE)}, or KIND:GLOB")
            self._globs.setdefault(kind, []).append(glob or "*")

    def clean(self, message: Message) -> None:
        """Redact a request or a reply in its place, whatever is in it."""
        for field, value in message.ListFields():
            if field.name in self._globs:
                self._hide(field, value, self._globs[field.name])
            elif field.message_type is None or field.message_type.GetOptions().map_entry:
                continue
            elif field.is_repeated:
                for each in value:
                    self.clean(each)
            else:
                self.clean(value)

    def _hide(self, field: Any, value: Any, globs: Sequence[str]) -> None:
        def fits(name: str) -> bool:
            return any(fnmatch.fnmatchcase(name, glob) for glob in globs)

        if field.message_type is None:  # env of a container, args
            for place, text in enumerate(value):
                name, equals, _ = text.partition("=")
                if field.name == "args":
                    value[place] = HIDDEN if place and fits(text) else text
                elif fits(name):
                    value[place] = f"{name}={HIDDEN}" if equals else name
        elif field.message_type.GetOptions().map_entry:
            for name in list(value):
                if fits(name):
                    value[name] = HIDDEN
        else:  # env of an adjustment
            for each in value:
                if fits(each.key):
                    each.value = HIDDEN


def redacted(event: Recorded, redaction: Redaction) -> Recorded | None:
    """The event without what is to be hidden; None: it could not be decoded, so not be cleaned."""
    try:
        request, reply = event.message(), event.answer()
    except ConfigError:
        return None
    for message in (request, reply):
        message.DiscardUnknownFields()  # of a newer runtime: nobody knows what they hold
        redaction.clean(message)
    # What a plugin refused with may quote what it refused.
    error = HIDDEN if event.error and redaction.rules else event.error
    return replace(
        event, request=request.SerializeToString(), reply=reply.SerializeToString(), error=error
    )


# --- the file


def from_json(told: object) -> Recorded:
    """An event as the agent or a file tells it. ConfigError: it is none."""
    damaged = ConfigError("an event in it is damaged")
    if not isinstance(told, dict):
        raise damaged
    texts = [told.get(name) for name in _TEXTS]
    numbers = [told.get(name) for name in ("time_ns", "duration_us")]
    if (
        not all(isinstance(each, str) for each in texts)
        or not all(isinstance(each, int) for each in numbers)
        or told["event"] not in events.BY_METHOD
        or told["export"] not in events.EXPORTS.values()
    ):
        raise damaged
    try:
        raw = [binascii.a2b_base64(told[name], strict_mode=True) for name in ("request", "reply")]
    except (KeyError, TypeError, ValueError):
        raise damaged from None
    return Recorded(*texts, *numbers, *raw)  # type: ignore[arg-type]  # looked at above


_TEXTS = ("plugin", "digest", "runtime", "event", "export", "kind", "error")


def as_json(event: Recorded) -> dict[str, object]:
    """As `from_json` reads it."""
    return {
        **{name: getattr(event, name) for name in _TEXTS},
        "time_ns": event.time_ns,
        "duration_us": event.duration_us,
        "request": binascii.b2a_base64(event.request, newline=False).decode(),
        "reply": binascii.b2a_base64(event.reply, newline=False).decode(),
    }


class Writer:
    """The bytes of a file, packed as events come, so that a long recording takes little memory."""

    def __init__(self, max_bytes: int = MAX_FILE_BYTES) -> None:
        """At most `max_bytes` of a file."""
        self.count = 0
        self._room = max_bytes - HEAD_BYTES
        self._lines_bytes = 0
        self._packer = zlib.compressobj(wbits=_GZIP)
        self._packed = bytearray()

    def add(self, event: Recorded) -> bool:
        """False: it does not fit any more, and is left out."""
        line = json.dumps(as_json(event)).encode() + b"\n"
        lines_bytes = self._lines_bytes + len(line)
        # Deflate makes nothing longer by more than 5 bytes in 16 KiB; a flush adds as much.
        most = len(self._packed) + len(line) + len(line) // 2000 + _FLUSH_BYTES
        if most > self._room or lines_bytes > MAX_FILE_BYTES or self.count == MAX_EVENTS:
            return False
        self._packed += self._packer.compress(line) + self._packer.flush(zlib.Z_SYNC_FLUSH)
        self._lines_bytes = lines_bytes
        self.count += 1
        return True

    def end(self, head: dict[str, object]) -> bytes:
        """The file; nothing can be added any more. `head` stands in its first line."""
        line = json.dumps({"format": FORMAT, **head}).encode() + b"\n"
        packer = zlib.compressobj(wbits=_GZIP)  # what is known last stands first: two members
        return packer.compress(line) + packer.flush() + self._packed + self._packer.flush()


_GZIP = 31  # zlib's word for gzip's own frame; it has no time in it
HEAD_BYTES = 8 << 10  # for the first line, which has some rules of redaction
_FLUSH_BYTES = 64  # and the end of a member


def encoded(head: dict[str, object], recorded: Iterable[Recorded]) -> bytes:
    """The bytes of a file with these events, all of which must fit."""
    writer = Writer()
    for each in recorded:
        if not writer.add(each):
            raise ValueError("larger than a recording can be")
    return writer.end(head)


class Head(NamedTuple):
    """What the first line says, as far as it is of the right form."""

    agent: str = ""
    redacted: tuple[str, ...] = ()
    dropped: int = 0
    ended: str = ""  # by what: "count", "time", "size" or "interrupt"


def read(path: Path) -> Iterator[Recorded]:
    """The events of a file. ConfigError: it cannot be read, is damaged or too large."""
    try:
        with path.open("rb") as raw:
            yield from _events(str(path), raw, [])
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error


def hidden_in(path: Path) -> Redaction:
    """What was hidden before the file was written. ConfigError: as of `read`."""
    heads: list[Head] = []
    try:
        with path.open("rb") as raw:
            next(_events(str(path), raw, heads), None)
        return Redaction(heads[0].redacted)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error


def looked_at(name: str, data: bytes) -> tuple[Head, int]:
    """What the first line says, and how many events follow, each decoded once and dropped.

    ConfigError: as of `read`, and where an event's messages are none. `name` is for errors.
    """
    heads: list[Head] = []
    count = 0
    for each in _events(name, io.BytesIO(data), heads):
        each.message()
        each.answer()
        count += 1
    return heads[0], count


def _events(name: str, raw: BinaryIO, heads: list[Head]) -> Iterator[Recorded]:
    """The events; before the first of them, what the first line says is put into `heads`."""
    try:
        with gzip.GzipFile(fileobj=raw) as file:
            heads.append(_head(name, json.loads(_line(name, file))))
            size = count = 0
            while line := _line(name, file):
                size, count = size + len(line), count + 1
                if size > MAX_FILE_BYTES or count > MAX_EVENTS:
                    raise ConfigError(f"{name}: larger than a recording can be")
                yield from_json(json.loads(line))
    except gzip.BadGzipFile as error:
        raise ConfigError(f"{name}: damaged: {error}") from error
    except (ValueError, EOFError, RecursionError, zlib.error) as error:
        raise ConfigError(f"{name}: damaged: {error}") from error


def _head(name: str, told: object) -> Head:
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise ConfigError(f"{name}: not of the format {FORMAT}")
    agent, redacted, ended = told.get("agent"), told.get("redacted"), told.get("ended")
    dropped = told.get("dropped")
    return Head(
        agent if isinstance(agent, str) else "",
        tuple(map(str, redacted)) if isinstance(redacted, list) else (),
        dropped if type(dropped) is int else 0,
        ended if isinstance(ended, str) else "",
    )


def _line(name: str, file: gzip.GzipFile) -> bytes:
    line = file.readline(MAX_LINE_BYTES + 1)
    if len(line) > MAX_LINE_BYTES:
        raise ConfigError(f"{name}: has a line over {MAX_LINE_BYTES} bytes")
    return line
