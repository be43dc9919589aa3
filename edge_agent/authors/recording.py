"""Files of recorded events, NAME.edgerec: what plugins were asked and what they answered.

gzip of lines of JSON. The first is {"format": "edge-agent recording 1", ...}; each further one is
an event, as `edge_agent.node.recorder` tells it. A reader takes a file as hostile input.
"""

import binascii
import fnmatch
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError, Message

from edge_agent.errors import ConfigError
from edge_agent.nri import events
from edge_agent.nri.difference import message_types
from edge_agent.nri.events import message_type

FORMAT = "edge-agent recording 1"
MAX_LINE_BYTES = 16 << 20
MAX_FILE_BYTES = 256 << 20  # decompressed
MAX_EVENTS = 100_000
HIDDEN = "redacted"
# What can be redacted: fields of containers and pods, and of replies that adjust containers.
KINDS = ("env", "annotations", "labels", "args")


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
            if kind not in KINDS:
                raise ConfigError(f"--redact {rule}: can be {', '.join(KINDS)}, or KIND:GLOB")
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


def encoded(head: dict[str, object], recorded: Iterable[Recorded]) -> bytes:
    """The bytes of a file."""
    lines = [json.dumps({"format": FORMAT, **head})]
    lines += [json.dumps(as_json(each)) for each in recorded]
    return gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0)


def read(path: Path) -> Iterator[Recorded]:
    """The events of a file. ConfigError: it cannot be read, is damaged or too large."""
    try:
        with path.open("rb") as raw, gzip.GzipFile(fileobj=raw) as file:
            head = json.loads(_line(path, file))
            if not isinstance(head, dict) or head.get("format") != FORMAT:
                raise ConfigError(f"{path}: not of the format {FORMAT}")
            size = count = 0
            while line := _line(path, file):
                size, count = size + len(line), count + 1
                if size > MAX_FILE_BYTES or count > MAX_EVENTS:
                    raise ConfigError(f"{path}: larger than a recording can be")
                yield from_json(json.loads(line))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError, RecursionError, zlib.error) as error:
        raise ConfigError(f"{path}: damaged: {error}") from error


def _line(path: Path, file: gzip.GzipFile) -> bytes:
    line = file.readline(MAX_LINE_BYTES + 1)
    if len(line) > MAX_LINE_BYTES:
        raise ConfigError(f"{path}: has a line over {MAX_LINE_BYTES} bytes")
    return line
