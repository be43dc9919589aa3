"""The fields that a reply touches, compared with those that its plugin may touch.

Names are the fields of NRI's ContainerAdjustment, those of its `linux` part after
`linux.`, and `update` and `evict` for other containers (edge_agent.config.PERMISSIONS).
"""

import functools
from collections.abc import Collection

from google.protobuf.message import Message

from edge_agent.errors import EdgeAgentError
from edge_agent.pb import nri_pb2
from edge_agent.wire import MAX_FIELDS, Path, field_paths

UPDATE_CONTAINERS = "UpdateContainers"  # the request that a plugin makes by itself

_CARRYING: dict[str, type[Message]] = {
    "CreateContainer": nri_pb2.CreateContainerResponse,
    "UpdateContainer": nri_pb2.UpdateContainerResponse,
    "StopContainer": nri_pb2.StopContainerResponse,
    "Synchronize": nri_pb2.SynchronizeResponse,
    UPDATE_CONTAINERS: nri_pb2.UpdateContainersRequest,
}
_ADJUST: Path = (nri_pb2.CreateContainerResponse.ADJUST_FIELD_NUMBER,)
_LINUX: Path = (*_ADJUST, nri_pb2.ContainerAdjustment.LINUX_FIELD_NUMBER)
_INSIDE: dict[Path, tuple[type[Message], str]] = {
    _ADJUST: (nri_pb2.ContainerAdjustment, ""),
    _LINUX: (nri_pb2.LinuxContainerAdjustment, "linux."),
}  # of a CreateContainerResponse: the messages whose fields count, and what precedes their names

_HARMLESS = {"more"}  # of Synchronize: no request, a part of the protocol
_MANY = f"more than {MAX_FIELDS} fields"  # granted to nobody
_MAX_NAMED = 8  # in a message for people


class NotPermitted(EdgeAgentError):
    """A reply touches what its plugin may not."""


def touched(event: str, reply: bytes) -> frozenset[str]:
    """Names of all that the reply asks for. NotPermitted: it cannot be read."""
    kind = _CARRYING.get(event)
    if kind is None or not reply:
        return frozenset()
    inside = _INSIDE if event == "CreateContainer" else {}
    try:
        paths, whole = field_paths(reply, inside)
    except ValueError as error:
        raise NotPermitted(f"its reply to {event} is no {kind.__name__}: {error}") from error
    names = set() if whole else {_MANY}
    for *outer, number in paths - inside.keys():
        message, prefix = inside[tuple(outer)] if outer else (kind, "")
        names.add(_name(message, prefix, number))  # type: ignore[arg-type]  # a class has a hash
    return frozenset(names - _HARMLESS)


@functools.lru_cache(256)  # a guest writes any number
def _name(message: type[Message], prefix: str, number: int) -> str:
    field = message.DESCRIPTOR.fields_by_number.get(number)
    # A field of a newer NRI has no name here, and nobody was granted it.
    return prefix + (field.name.lower() if field else f"field {number}")


def check(event: str, reply: bytes, granted: Collection[str] | None) -> None:
    """NotPermitted names what the reply touches beyond `granted` (None: everything)."""
    if granted is None:
        return
    refused = sorted(touched(event, reply) - set(granted))
    if refused:
        more = f" and {len(refused) - _MAX_NAMED} more" * (len(refused) > _MAX_NAMED)
        said = event if event == UPDATE_CONTAINERS else f"reply to {event}"
        raise NotPermitted(
            f"its {said} touches {', '.join(refused[:_MAX_NAMED])}{more}, "
            f"and it may only touch {', '.join(granted) or 'nothing'}"
        )
