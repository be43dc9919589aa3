"""An outcome as a record of the fleet protocol ("Results"). Runs off the answering thread."""

from typing import Any

from edge_agent.fleet_protocol import outcome as kinds
from edge_agent.fleet_protocol.outcome import Outcome
from edge_agent.nri import events
from edge_agent.nri.envelope import DECODE_ERRORS, message_type
from edge_agent.nri.permissions import NotPermitted, touched

MAX_ERROR_CHARS = 1000


def describe(outcome: Outcome) -> dict[str, Any] | None:
    """The record, or None where the plugin's `report` setting leaves this outcome out."""
    adjusted: list[str] = []
    kind, error = outcome.kind, outcome.error
    if kind == kinds.OK:
        try:
            adjusted = sorted(touched(outcome.event, outcome.reply))
        except NotPermitted as unreadable:
            # The runtime has seen it too, and failed the request.
            kind, error = "error", str(unreadable)
        if adjusted:
            kind = "adjusted"
    if outcome.wanted == "errors" and kind in (kinds.OK, "adjusted"):
        return None
    if outcome.wanted == "changes" and kind == kinds.OK and not outcome.reports:
        return None
    record: dict[str, Any] = {
        "time": outcome.time_ns / 1e9,
        "plugin": outcome.plugin,
        **({"version": outcome.digest} if outcome.digest else {}),
        "runtime": outcome.runtime,
        "event": outcome.event,
        "outcome": kind,
        "duration_us": outcome.duration_ns // 1000,
        **_about(outcome),
    }
    if adjusted:
        record["adjusted"] = adjusted
    for key, texts in outcome.details:
        record[key] = list(texts)
    if error:
        record["error"] = error[:MAX_ERROR_CHARS]
    if outcome.reports:
        record["reports"] = [
            {"kind": report.kind, "content_type": report.content_type, "payload": report.payload}
            for report in outcome.reports
        ]
    return record


def _about(outcome: Outcome) -> dict[str, Any]:
    if outcome.event not in events.BY_METHOD:
        return {}  # Configure, Synchronize
    request = message_type(outcome.export, outcome.event)()
    try:
        request.ParseFromString(outcome.request)
    except DECODE_ERRORS:
        return {}
    about: dict[str, Any] = {
        "pod": {
            "namespace": request.pod.namespace,
            "name": request.pod.name,
            "uid": request.pod.uid,
        }
    }
    container = getattr(request, "container", None)
    if container is not None and container.id:
        about["container"] = {"name": container.name, "id": container.id}
    return about
