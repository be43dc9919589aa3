"""The one table of NRI's events and methods (containerd/nri, pkg/api/api.proto, event.go)."""

import re
from dataclasses import dataclass

from edge_agent.wasm.abi import METHOD_PREFIX

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
