"""One plugin as the simulated runtime sees it: its socket, its events, its answers.

`PluginConnection` calls methods and serves the plugin's own requests; `ask` sends an event as a
runtime of each generation does.
"""

import itertools
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError, Message

from edge_agent.pb import nri_pb2, ttrpc_pb2
from edge_agent.sim import upstream

PLUGIN_SERVICE = "nri.pkg.api.v1alpha1.Plugin"
UNIMPLEMENTED, UNKNOWN = 12, 2  # google.rpc.Code


class PluginGone(Exception):
    """The plugin closed its connection, broke the protocol or answered too late."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What one side answered: a payload, or a status code and its text."""

    payload: bytes = b""
    code: int = 0
    text: str = ""
    latency_s: float = 0.0


class PluginConnection:
    """`serve(method, payload)` answers the plugin's own requests, on a thread for each.

    `gone(reason)` is called once, from the reading thread, when the connection ends.
    """

    def __init__(
        self,
        connected: socket.socket,
        serve: Callable[[str, bytes], Reply],
        gone: Callable[[str], None],
    ) -> None:
        self._socket = connected
        self._serve = serve
        self._gone = gone
        self._sending = threading.Lock()
        self._streams = itertools.count(1, 2)
        self._waiting: dict[int, queue.SimpleQueue[Reply | None]] = {}
        self.closed = threading.Event()
        self.reason = ""
        credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        self.pid: int = struct.unpack("3i", credentials)[0]
        self._thread = threading.Thread(target=self._read, name="sim-plugin", daemon=True)

    def start(self) -> None:
        """Begin to read; `serve` and `gone` are called from now on."""
        self._thread.start()

    def call(self, method: str, request: bytes, timeout_s: float) -> Reply:
        """One method of the plugin. PluginGone: no answer in time, or none any more."""
        body = ttrpc_pb2.Request(
            service=PLUGIN_SERVICE,
            method=method,
            payload=request,
            timeout_nano=int(timeout_s * 1e9),
        )
        answers: queue.SimpleQueue[Reply | None] = queue.SimpleQueue()
        stream = next(self._streams)
        self._waiting[stream] = answers
        began = time.perf_counter()
        try:
            self.send_raw(
                upstream.write(upstream.PLUGIN, stream, upstream.REQUEST, body.SerializeToString())
            )
            if self.closed.is_set():
                raise PluginGone(self.reason)
            reply = answers.get(timeout=timeout_s)
        except queue.Empty:
            raise PluginGone(f"no answer to {method} within {timeout_s:g} s") from None
        finally:
            self._waiting.pop(stream, None)
        if reply is None:
            raise PluginGone(self.reason)
        return Reply(reply.payload, reply.code, reply.text, time.perf_counter() - began)

    def send_raw(self, data: bytes) -> None:
        """Any bytes at all, as they are. PluginGone."""
        with self._sending:
            try:
                self._socket.sendall(data)
            except OSError as error:
                self.close(f"sending failed: {error.strerror}")
                raise PluginGone(self.reason) from error

    def close(self, reason: str) -> None:
        """End the connection; the first reason stays."""
        self.reason = self.reason or reason
        try:
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the reading thread
        except OSError:
            pass

    def join(self) -> None:
        """Wait for the reading thread after `close`."""
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _read(self) -> None:
        reader = upstream.Reader()
        try:
            while data := self._socket.recv(1 << 16):
                for connection, message in reader.feed(data):
                    self._handle(connection, message)
            self.reason = self.reason or "the plugin closed the connection"
        except OSError as error:
            self.reason = self.reason or f"receiving failed: {error.strerror}"
        except (upstream.UpstreamFails, DecodeError) as error:
            self.reason = self.reason or f"the plugin broke the protocol: {error}"
        self.closed.set()
        with self._sending:
            self._socket.close()
        for answers in list(self._waiting.values()):
            answers.put(None)
        self._gone(self.reason)

    def _handle(self, connection: int, message: upstream.Message) -> None:
        if connection == upstream.PLUGIN and message.type == upstream.RESPONSE:
            response = ttrpc_pb2.Response.FromString(message.body)
            answers = self._waiting.get(message.stream)
            if answers is not None:  # else: too late, nobody waits any more
                status = response.status
                answers.put(Reply(response.payload, status.code, status.message))
        elif connection == upstream.RUNTIME and message.type == upstream.REQUEST:
            # Not on this thread: an answer may need the lock that an event holds
            # while it waits for this thread.
            threading.Thread(target=self._answer, args=(message,), daemon=True).start()
        else:
            raise upstream.UpstreamFails(f"message type {message.type} on {connection}")

    def _answer(self, message: upstream.Message) -> None:
        request = ttrpc_pb2.Request.FromString(message.body)
        reply = self._serve(request.method, request.payload)
        response = ttrpc_pb2.Response(payload=reply.payload)
        if reply.code:
            response.status.code = reply.code
            response.status.message = reply.text
        body = response.SerializeToString()
        try:
            self.send_raw(upstream.write(upstream.RUNTIME, message.stream, upstream.RESPONSE, body))
        except PluginGone:
            pass


# --- events

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
        answer = _timed_call(plugin, method, request.SerializeToString(), timeout_s)
        if not (generation.own_methods and falls_back and answer.code == UNIMPLEMENTED):
            return answer
        plugin.deprecated.add(method)
    event = nri_pb2.Event.Name(EVENTS[method])
    change = nri_pb2.StateChangeEvent(event=event, pod=request.pod)
    if "container" in request.DESCRIPTOR.fields_by_name:
        change.container.CopyFrom(request.container)
    return _timed_call(plugin, "StateChange", change.SerializeToString(), timeout_s)


def _timed_call(plugin: Plugin, method: str, payload: bytes, timeout_s: float) -> Answer:
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
