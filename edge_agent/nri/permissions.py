"""What a reply touches, compared with what its plugin may touch.

Names are the fields of NRI's ContainerAdjustment, those of its `linux` part after
`linux.`, and `update` and `evict` for other containers (edge_agent.config.PERMISSIONS).
"""

from collections.abc import Collection

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from edge_agent.errors import EdgeAgentError
from edge_agent.pb import nri_pb2

_CARRYING: dict[str, type[Message]] = {
    "CreateContainer": nri_pb2.CreateContainerResponse,
    "UpdateContainer": nri_pb2.UpdateContainerResponse,
    "StopContainer": nri_pb2.StopContainerResponse,
    "Synchronize": nri_pb2.SynchronizeResponse,
}


_HARMLESS = {"more"}  # of Synchronize: no request, a part of the protocol


class NotPermitted(EdgeAgentError):
    """A reply touches what its plugin may not."""


def touched(event: str, reply: bytes) -> frozenset[str]:
    """Names of all that the reply asks for. NotPermitted: it cannot be read."""
    kind = _CARRYING.get(event)
    if kind is None or not reply:
        return frozenset()
    try:
        message = kind.FromString(reply)
    except DecodeError as error:
        raise NotPermitted(f"its reply to {event} is no {kind.__name__}") from error
    names = _fields(message, "")
    if "adjust" in names:
        names.remove("adjust")
        names |= _fields(message.adjust, "")  # type: ignore[attr-defined]
    if "linux" in names:
        names.remove("linux")
        names |= _fields(message.adjust.linux, "linux.")  # type: ignore[attr-defined]
    return frozenset(names - _HARMLESS)


def _fields(message: Message, prefix: str) -> set[str]:
    """The set fields of a message, those of a newer NRI by their number."""
    known = {f"{prefix}{field.name.lower()}" for field, _ in message.ListFields()}
    unknown = UnknownFieldSet(message)
    numbers = (unknown[at].field_number for at in range(len(unknown)))
    return known | {f"{prefix}field {number}" for number in numbers}


def check(event: str, reply: bytes, granted: Collection[str] | None) -> None:
    """NotPermitted names what the reply touches beyond `granted` (None: everything)."""
    if granted is None:
        return
    refused = touched(event, reply) - set(granted)
    if refused:
        raise NotPermitted(
            f"its reply to {event} touches {', '.join(sorted(refused))}, "
            f"and it may only touch {', '.join(granted) or 'nothing'}"
        )
