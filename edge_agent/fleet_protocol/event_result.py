"""The result of one event at one plugin: raw facts on the answering thread, described elsewhere
as a record of the fleet protocol ("Results")."""

import functools
from typing import Any, NamedTuple

from edge_agent.config.model import MONITOR
from edge_agent.nri import events
from edge_agent.nri.events import DECODE_ERRORS, message_type
from edge_agent.nri.permissions import NotPermitted, touched
from edge_agent.store.digest import Digest
from edge_agent.store.release import PluginId
from edge_agent.wasm.imports import Report

OK, REJECTED, DENIED, ERROR = "ok", "rejected", "denied", "error"
"""Kinds beside a GuestFault's: answered, refused by the guest, reply not permitted, policy."""

WOULD_ADJUST, WOULD_REJECT = "would_adjust", "would_reject"
"""Of a plugin in monitor mode, of whose answer nothing is done: it asks for changes, it refuses."""

ANSWERED = frozenset((OK, REJECTED, WOULD_ADJUST, WOULD_REJECT))
"""The guest did its work, whatever it answered."""

ORDINARY = (OK, WOULD_ADJUST)
"""Of which there are many: all others overtake them (docs/mqtt.md)."""

UNMONITORED = {WOULD_ADJUST: OK, WOULD_REJECT: REJECTED}
"""What the same answer is called where it counts."""

DROPPED, UNSUPPORTED, CONFLICT = "dropped", "unsupported", "conflict"
VALIDATION, UPDATE_REFUSED = "validation", "update_refused"
"""What became of a reply afterwards: the runtime left fields out, failed the creation over them or
over another plugin's, a validator rejected it, the runtime did not update. Beside the record of
the event itself."""


class EventResult(NamedTuple):
    """One event, answered. Bytes are as they went over the wire; nothing is decoded here."""

    time_ns: int
    plugin: PluginId
    digest: Digest  # of the module; NO_DIGEST: none could be read
    runtime: str
    event: str
    export: str
    kind: str
    duration_ns: int
    request: bytes
    reply: bytes
    error: str
    reports: tuple[Report, ...]
    wanted: str  # the plugin's `report` setting: all, changes or errors
    details: tuple[tuple[str, tuple[str, ...]], ...] = ()  # further keys of the record
    monitored: bool = False  # nothing of the answer was done
    withheld: int = 0  # updates of containers that the guest asked for by itself

    @property
    def size(self) -> int:
        """Bytes that it keeps in memory, as far as others determine them."""
        size = len(self.request) + len(self.reply) + len(self.error)
        if self.reports or self.details:  # of few: this is counted on the answering thread
            size += sum(len(report.payload) for report in self.reports)
            size += sum(len(each) for _, texts in self.details for each in texts)
        return size


MAX_ERROR_CHARS = 1000


def describe(result: EventResult) -> dict[str, Any] | None:
    """The record, or None where the plugin's `report` setting leaves this result out."""
    adjusted: list[str] = []
    kind, error = result.kind, result.error
    if kind == OK:
        try:
            adjusted = sorted(touched(result.event, result.reply))
        except NotPermitted as unreadable:
            # The runtime has seen it too, and failed the request.
            kind, error = "error", str(unreadable)
        if adjusted:
            kind = "adjusted"
    if result.wanted == "errors" and kind in (OK, "adjusted", WOULD_ADJUST):
        return None
    if result.wanted == "changes" and kind == OK and not result.reports:
        return None
    record: dict[str, Any] = {
        "time": result.time_ns / 1e9,
        "plugin": result.plugin,
        **({"version": result.digest} if result.digest else {}),
        "runtime": result.runtime,
        "event": result.event,
        "outcome": kind,
        "duration_us": result.duration_ns // 1000,
        **_about(result),
    }
    if result.monitored:
        record["mode"] = MONITOR
    if result.withheld:
        record["updates_withheld"] = result.withheld
    if adjusted:
        record["adjusted"] = adjusted
    for key, texts in result.details:
        record[key] = list(texts)
    if error:
        record["error"] = error[:MAX_ERROR_CHARS]
    if result.reports:
        record["reports"] = [
            {"kind": report.kind, "content_type": report.content_type, "payload": report.payload}
            for report in result.reports
        ]
    return record


def _about(result: EventResult) -> dict[str, Any]:
    if result.event not in events.BY_METHOD:
        return {}  # Configure, Synchronize
    kind, contains = _subject(result.export, result.event)
    try:
        request = kind.FromString(result.request)
    except DECODE_ERRORS:
        return {}
    pod = request.pod
    about = {"pod": {"namespace": pod.namespace, "name": pod.name, "uid": pod.uid}}
    if contains:
        container = request.container
        if identity := container.id:
            about["container"] = {"name": container.name, "id": identity}
    return about


def load_messages() -> None:
    """Import what `describe` needs; a node without a broker describes nothing."""
    from edge_agent.pb import event_pb2

    del event_pb2


@functools.cache  # a few dozen: methods of NRI only
def _subject(export: str, event: str) -> tuple[Any, bool]:
    """What to decode of the request behind an export, and whether that has a container."""
    from edge_agent.pb import event_pb2

    fields = message_type(export, event).DESCRIPTOR.fields_by_name
    if fields["pod"].number == event_pb2.OfChange.POD_FIELD_NUMBER:
        return event_pb2.OfChange, True
    if "container" in fields:
        return event_pb2.OfContainer, True
    return event_pb2.OfPod, False
