"""Which pod and container an event is about, whichever message carries it."""

from edge_agent.nri.envelope import DECODE_ERRORS, message_type
from edge_agent.nri.session import Call


def subject(call: Call) -> tuple[str, str, str]:
    """(event, pod id, container id); ids are empty where there is none or it is garbage."""
    request = message_type(call.export, call.event)()
    try:
        request.ParseFromString(call.payload)
    except DECODE_ERRORS:
        return call.event, "", ""
    container = getattr(request, "container", None)
    return call.event, request.pod.id, container.id if container is not None else ""
