"""The one table of NRI's events and methods (containerd/nri, pkg/api/api.proto, event.go), which of
them a runtime knows, and the bodies of the messages that carry them.

A bit that a runtime does not know makes it drop the plugin. From NRI 0.12 the runtime says its
version; before that it is inferred from the runtime's own name and version, as upstream's stub does
(containerd/nri, pkg/api/version.go). In doubt the older generation is assumed: a plugin that misses
new events still works.

A body is a payload or a status; a payload is opaque here. What is decoded from the peer's bytes
goes through `decode`, which knows how each protobuf backend complains.
"""

import re
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from edge_agent import wire
from edge_agent.errors import GuestFault, ProtocolError
from edge_agent.pb import nri_pb2, ttrpc_pb2
from edge_agent.wasm.abi import METHOD_PREFIX, OWN_METHODS

PLUGIN_SERVICE = "nri.pkg.api.v1alpha1.Plugin"
RUNTIME_SERVICE = "nri.pkg.api.v1alpha1.Runtime"


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its number in the mask, its method, whether `StateChange` can carry it."""

    number: int
    method: str
    in_state_change: bool

    @property
    def bit(self) -> int:
        return 1 << (self.number - 1)


EVENTS = (
    Event(1, "RunPodSandbox", True),
    Event(2, "StopPodSandbox", True),
    Event(3, "RemovePodSandbox", True),
    Event(4, "CreateContainer", False),
    Event(5, "PostCreateContainer", True),
    Event(6, "StartContainer", True),
    Event(7, "PostStartContainer", True),
    Event(8, "UpdateContainer", False),
    Event(9, "PostUpdateContainer", True),
    Event(10, "StopContainer", False),
    Event(11, "RemoveContainer", True),
    Event(12, "UpdatePodSandbox", False),
    # NRI 0.10 and 0.11 fail the request instead of falling back, and a guest that has
    # only StateChange is older than this event.
    Event(13, "PostUpdatePodSandbox", False),
    Event(14, "ValidateContainerAdjustment", False),
)
BY_METHOD = {event.method: event for event in EVENTS}
BY_NUMBER = {event.number: event for event in EVENTS}

CONFIGURE, SYNCHRONIZE, SHUTDOWN, STATE_CHANGE = (
    "Configure",
    "Synchronize",
    "Shutdown",
    "StateChange",
)
VALIDATE = BY_METHOD["ValidateContainerAdjustment"]
REMOVE_POD = BY_METHOD["RemovePodSandbox"]
POST_CREATE = BY_METHOD["PostCreateContainer"]


def export_name(method: str) -> str:
    """The guest's export behind a method: RunPodSandbox -> plugin_run_pod_sandbox."""
    return METHOD_PREFIX + re.sub(r"(?<!^)(?=[A-Z])", "_", method).lower()


EXPORTS = {
    method: export_name(method)
    for method in (CONFIGURE, SYNCHRONIZE, SHUTDOWN, STATE_CHANGE, *BY_METHOD)
}


ON_TIMER, ON_PRESSURE = "OnTimer", "OnPressure"
OWN_EXPORTS = dict(zip((ON_TIMER, ON_PRESSURE), OWN_METHODS, strict=True))
"""Of the calls that the agent makes by itself, and no runtime (edge_agent.host.board_watch)."""
ALL_EXPORTS = {**EXPORTS, **OWN_EXPORTS}


def method_named(word: str) -> str | None:
    """CreateContainer for "create_container", "CreateContainer" or the guest's export; OnTimer for
    "timer" too."""
    plain = word.lower().removeprefix(METHOD_PREFIX).replace("_", "").replace("-", "")
    own = plain.removeprefix("edge").removeprefix("on")
    found = next((method for method in EXPORTS if method.lower() == plain), None)
    return found or next((each for each in OWN_EXPORTS if each.lower() == f"on{own}"), None)


def servable(exports: frozenset[str]) -> int:
    """The mask of events that a guest with these exports can serve, by either way."""
    state_change = EXPORTS[STATE_CHANGE] in exports
    return sum(
        event.bit
        for event in EVENTS
        if EXPORTS[event.method] in exports or (event.in_state_change and state_change)
    )


def names(mask: int) -> list[str]:
    """The methods of the events in a mask, for people."""
    return [event.method for event in EVENTS if mask & event.bit]


OLD_EVENTS = (1 << 11) - 1  # NRI 0.2 - 0.9: up to RemoveContainer
NEW_EVENTS = (1 << 14) - 1  # NRI 0.10 and later: pod updates and validation

# The first version of each runtime whose NRI is 0.10 or later.
# A pre-release of it may be older than its NRI.
_NEW_SINCE = {"containerd": (2, 2), "cri-o": (1, 34)}
_VERSION = re.compile(r"v?(\d{1,9})\.(\d{1,9})(?:\.0)?([-~.](?:alpha|beta|rc|dev))?")


def known_events(runtime: str, version: str, nri_version: str) -> int:
    """The mask of events that may be asked of this runtime."""
    if nri_version:
        return NEW_EVENTS  # only 0.12 and later send one
    since = _NEW_SINCE.get(runtime.lower())
    found = _VERSION.match(version)
    if since is None or found is None:
        return OLD_EVENTS
    said = (int(found[1]), int(found[2]))
    return NEW_EVENTS if said > since or (said == since and not found[3]) else OLD_EVENTS


def forgives_lost_validators(nri_version: str) -> bool:
    """Whether the runtime passes over a validator whose session has closed (NRI 0.12.5);
    before, its next CreateContainer fails."""
    found = re.match(r"v?(\d{1,9})\.(\d{1,9})\.(\d{1,9})", nri_version)
    return found is not None and tuple(map(int, found.groups())) >= (0, 12, 5)


MAX_STATUS_TEXT = 2048  # ours: what a person reads in an event of the orchestrator

# What is left for a reply: a response adds a tag and a length of four bytes.
MAX_REPLY_BYTES = wire.MAX_MESSAGE_BYTES - 5

DECODE_ERRORS = (DecodeError, UnicodeDecodeError)  # the latter: protobuf's pure Python

EMPTY_BODY = b""  # a response without status and payload

_PAYLOAD = b"\x12"  # field 2 of Response, a length and bytes follow

M = TypeVar("M", bound=Message)


def message_type(export: str, event: str) -> Any:
    """The request message behind an export of the guest ABI."""
    if export == EXPORTS[STATE_CHANGE]:
        return nri_pb2.StateChangeEvent
    return getattr(nri_pb2, f"{event}Request")


def decode(what: str, kind: type[M], body: bytes) -> M:
    """A message of the peer. ProtocolError: it is none.

    Never parse into a message that is kept: upb frees what a message ever held only
    together with the message, so an event's bytes would stay for the session's life.
    """
    try:
        return kind.FromString(body)
    except DECODE_ERRORS as error:
        raise ProtocolError(f"{what}: bytes that are no {kind.__name__}") from error


def request_body(service: str, method: str, payload: bytes) -> bytes:
    """The body of a request. GuestFault: a guest's payload that no message can carry."""
    body = ttrpc_pb2.Request(service=service, method=method, payload=payload)
    return _bounded(method, body.SerializeToString())


def reply_body(payload: bytes) -> bytes:
    """The body of a response. GuestFault: a guest's reply that no message can carry."""
    if not payload:
        return EMPTY_BODY
    # Written out: this is the hot path, and building a message takes three times as long.
    return _bounded("reply", _PAYLOAD + _varint(len(payload)) + payload)


def status_body(code: int, text: str) -> bytes:
    """The body of a response that refuses, with a google.rpc.Code and a text for people."""
    readable = text[:MAX_STATUS_TEXT].encode(errors="replace").decode()  # no lone surrogates
    refusal = ttrpc_pb2.Status(code=code, message=readable)
    return ttrpc_pb2.Response(status=refusal).SerializeToString()


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    return bytes((value & 0x7F | 0x80,)) + _varint(value >> 7)


def _bounded(what: str, body: bytes) -> bytes:
    if len(body) > wire.MAX_MESSAGE_BYTES:
        raise GuestFault(
            "abi",
            f"its {what} is {len(body)} bytes with envelope; ttRPC has {wire.MAX_MESSAGE_BYTES}",
        )
    return body
