"""Recorded events at another version of a plugin: what it does otherwise than before."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from edge_agent.authors.recording import Recorded, Redaction, redacted
from edge_agent.authors.trial import Outcome, Trial
from edge_agent.authors.tryout import PluginFile, Runtime, message
from edge_agent.errors import ConfigError
from edge_agent.nri import events
from edge_agent.nri.difference import changes, message_types
from edge_agent.pb import nri_pb2

_LIVES_ON = ("ok", "error", "rejected", "denied")
NOTHING_HIDDEN = Redaction(())


@dataclass(frozen=True)
class Replayed:
    """One event. `lines`: what only the old version did ("before: ...") and only the new one
    ("now: ..."), each as `plugin run` shows it. `frames`: where the new one was finished."""

    number: int  # in the recording, from 1
    event: str
    subject: str  # the container's or the pod's name
    lines: tuple[str, ...]
    frames: tuple[str, ...]


def replay(
    recorded: Iterable[Recorded],
    new: PluginFile,
    old: PluginFile | None,
    runtime: Runtime,
    engine: str,
    redaction: Redaction = NOTHING_HIDDEN,
) -> Iterator[Replayed]:
    """Each event at a lasting instance of `new`, and of `old` unless the recorded answers count.

    What `redaction`, the recording's, hid in the recorded answers is hidden in those of `new`, or
    each hidden value would be a difference. Updates that a plugin asks for are not in a recording.

    ModuleError, EngineError, StoreError: a plugin could not be started. ConfigError: the recording
    is damaged, or a plugin refused its configuration or failed before the first event.
    """
    with _Side(new, runtime, engine) as ours:
        theirs = _Side(old, runtime, engine) if old is not None else None
        try:
            for number, each in enumerate(recorded, 1):
                request = _request(each)
                now = ours.event(each.event, request)
                if theirs:
                    before, after = _lines(theirs.event(each.event, request)), _lines(now)
                else:
                    before = _recorded(each, request)
                    after = _recorded(_as_recorded(each, now, redaction), request) if now else []
                lines = [f"before: {line}" for line in before if line not in after]
                lines += [f"now: {line}" for line in after if line not in before]
                frames = tuple(now.frames) if now else ()
                yield Replayed(number, each.event, _subject(request), tuple(lines), frames)
        finally:
            if theirs is not None:
                theirs.close()


class _Side:
    """One version; a new instance where the one before was finished, as the agent has it."""

    def __init__(self, plugin: PluginFile, runtime: Runtime, engine: str) -> None:
        self._plugin = plugin
        self._runtime = runtime
        self._engine = engine
        self._trial: Trial | None = None

    def __enter__(self) -> "_Side":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        trial, self._trial = self._trial, None
        if trial is not None:
            trial.__exit__(None, None, None)

    def event(self, method: str, request: Message) -> Outcome | None:
        """None: the plugin does not take it."""
        if self._trial is None:
            self._trial = Trial(self._plugin, self._runtime, engine=self._engine)
            begun = self._trial.begin(message(events.SYNCHRONIZE))
            if begun.kind != "ok":  # alike in both versions it would look like no difference
                raise ConfigError(
                    f"{self._plugin.path}: {begun.step}: {begun.kind}: {begun.error};"
                    " nothing is compared"
                )
        try:
            self._trial.check(method, request)
        except ConfigError:
            return None
        outcome = self._trial.event(method, request)
        if outcome.kind not in _LIVES_ON:
            self.close()
        return outcome


def _lines(outcome: Outcome | None) -> list[str]:
    """A line for each change."""
    if outcome is None:
        return []
    if outcome.kind != "ok":
        return [f"{outcome.kind}: {outcome.error}"]
    return [str(change) for change in (*outcome.changes, *outcome.asked)]


def _as_recorded(each: Recorded, now: Outcome, redaction: Redaction) -> Recorded:
    """The event with this answer, as a recording would have it."""
    reply = ParseDict(now.reply, message_types(each.event)[1]())
    answered = replace(each, kind=now.kind, error=now.error, reply=reply.SerializeToString())
    cleaned = redacted(answered, redaction)
    assert cleaned is not None  # it was decoded before
    return cleaned


def _recorded(each: Recorded, request: Message) -> list[str]:
    if each.kind != "ok":
        return [f"{each.kind}: {each.error}"]
    return [str(change) for change in changes(request, each.answer())]


def _request(each: Recorded) -> Message:
    """The event's own request, also where the plugin got it as a StateChange."""
    found = each.message()
    kind = message_types(each.event)[0]
    if not isinstance(found, nri_pb2.StateChangeEvent):
        return found
    request = kind()
    for name in ("pod", "container"):
        if name in kind.DESCRIPTOR.fields_by_name and found.HasField(name):
            getattr(request, name).CopyFrom(getattr(found, name))
    return request


def _subject(request: Message) -> str:
    names = [
        getattr(request, field).name
        for field in ("pod", "container")
        if field in request.DESCRIPTOR.fields_by_name and request.HasField(field)
    ]
    return "/".join(filter(None, names)) or "-"
