"""How a runtime of each generation asks one plugin, and what became of an event."""

import time
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from edge_agent.pb import nri_pb2
from edge_agent.sim.connection import UNIMPLEMENTED, PluginConnection, PluginGone

EVENTS = {
    name.title().replace("_", ""): number
    for name, number in nri_pb2.Event.items()
    if 0 < number < nri_pb2.LAST
}
"""The plugin's methods that are events, and their numbers: bit n-1 of a mask is event n."""

NEVER_STATE_CHANGE = {
    "CreateContainer",
    "UpdateContainer",
    "StopContainer",
    "UpdatePodSandbox",
    "ValidateContainerAdjustment",
}


@dataclass(frozen=True, slots=True)
class Generation:
    """What of NRI a runtime speaks."""

    last_event: int
    own_methods: bool  # pod events have their own methods, StateChange is the fall-back
    nri_version: str

    def calls_by_own_method(self, method: str) -> bool:
        """Whether an event is not multiplexed in StateChange from the start."""
        return self.own_methods or method in NEVER_STATE_CHANGE or method == "PostUpdatePodSandbox"


GENERATIONS = {
    "old": Generation(11, False, ""),  # NRI 0.2 - 0.9: containerd 1.7 - 2.1
    "middle": Generation(14, False, ""),  # 0.10 and 0.11: containerd 2.2
    "new": Generation(14, True, "v0.12.0"),  # containerd 2.3, current CRI-O
}


@dataclass(slots=True)
class Plugin:
    """A registered plugin."""

    connection: PluginConnection
    index: str = ""
    name: str = ""
    nri_version: str = ""  # as it said in RegisterPlugin
    events: int = 0
    synchronised: bytes = b""  # its answer to the last part of the synchronisation
    deprecated: set[str] = field(default_factory=set)  # own methods it does not implement

    @property
    def identity(self) -> str:
        return f"{self.index}-{self.name}"

    @property
    def pid(self) -> int:
        return self.connection.pid

    def subscribed(self, method: str) -> bool:
        return bool(self.events & 1 << (EVENTS[method] - 1))


@dataclass(frozen=True, slots=True)
class Answer:
    """What one plugin answered to one request."""

    plugin: str  # index and name, "10-device-injector"
    method: str  # as it was called: its own or StateChange
    request: bytes
    reply: bytes
    latency_s: float
    code: int = 0  # google.rpc.Code of an error status
    error: str = ""  # the status' text, or why the plugin was dropped
    dropped: bool = False


@dataclass(slots=True)
class Outcome:
    """What became of one event, or of a container's creation and the events after it."""

    method: str
    request: Message
    answers: list[Answer] = field(default_factory=list)
    error: str = ""  # what whoever asked for the container is told
    pod: nri_pb2.PodSandbox = field(default_factory=nri_pb2.PodSandbox)
    container: nri_pb2.Container = field(default_factory=nri_pb2.Container)  # as adjusted
    owners: dict[str, str] = field(default_factory=dict)  # what was set -> by which plugin
    updates: list[nri_pb2.ContainerUpdate] = field(default_factory=list)
    evictions: list[nri_pb2.ContainerEviction] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.error

    def by(self, plugin: str) -> list[Answer]:
        """The answers of one plugin, named without its index."""
        return [answer for answer in self.answers if answer.plugin.partition("-")[2] == plugin]

    def add(self, later: "Outcome") -> None:
        """Take in what became of an event that followed; the first error stays."""
        self.answers += later.answers
        self.updates += later.updates
        self.evictions += later.evictions
        self.error = self.error or later.error


def ask(
    plugin: Plugin, generation: Generation, method: str, request: Any, timeout_s: float
) -> Answer:
    """Call the event's own method or StateChange, as a runtime of the generation does."""
    falls_back = method not in NEVER_STATE_CHANGE
    if generation.calls_by_own_method(method) and method not in plugin.deprecated:
        answer = _call(plugin, method, request.SerializeToString(), timeout_s)
        if not (generation.own_methods and falls_back and answer.code == UNIMPLEMENTED):
            return answer
        plugin.deprecated.add(method)
    event = nri_pb2.Event.Name(EVENTS[method])
    change = nri_pb2.StateChangeEvent(event=event, pod=request.pod)
    if "container" in request.DESCRIPTOR.fields_by_name:
        change.container.CopyFrom(request.container)
    return _call(plugin, "StateChange", change.SerializeToString(), timeout_s)


def _call(plugin: Plugin, method: str, payload: bytes, timeout_s: float) -> Answer:
    began = time.perf_counter()
    try:
        reply = plugin.connection.call(method, payload, timeout_s)
    except PluginGone as gone:
        spent = time.perf_counter() - began
        return Answer(plugin.identity, method, payload, b"", spent, error=str(gone), dropped=True)
    error = (reply.text or f"status {reply.code}") if reply.code else ""
    return Answer(
        plugin.identity, method, payload, reply.payload, reply.latency_s, reply.code, error
    )
