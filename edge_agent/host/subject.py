"""Which pod and container an event is about, whichever message carries it."""

from collections.abc import Callable
from typing import Any

from edge_agent.nri import events
from edge_agent.nri.envelope import DECODE_ERRORS
from edge_agent.nri.session import Call
from edge_agent.pb import nri_pb2


def message_type(export: str, event: str) -> Callable[[], Any]:
    """The request message behind an export of the guest ABI."""
    if export == events.EXPORTS[events.STATE_CHANGE]:
        return nri_pb2.StateChangeEvent
    kind: Callable[[], Any] = getattr(nri_pb2, f"{event}Request")
    return kind


def subject(call: Call) -> tuple[str, str, str]:
    """(event, pod id, container id); ids are empty where there is none or it is garbage."""
    request = message_type(call.export, call.event)()
    try:
        request.ParseFromString(call.payload)
    except DECODE_ERRORS:
        return call.event, "", ""
    container = getattr(request, "container", None)
    return call.event, request.pod.id, container.id if container is not None else ""
