"""One plugin's session with one runtime, as a pure state machine (no socket, no clock).

    register ─► Configure ─► Synchronize (one part or many) ─► events ... ─► Shutdown

Bytes from the socket go into `receive`, which answers what needs no guest by itself and
returns the calls that do; each call is answered once with `answer` or `refuse`. Bytes
for the socket wait in `take_output`. The runtime sends one event at a time.
"""

from dataclasses import dataclass
from enum import Enum

from edge_agent import wire
from edge_agent.errors import GuestFault, ProtocolError
from edge_agent.nri import events
from edge_agent.nri.events import (
    CONFIGURE,
    DECODE_ERRORS,
    EXPORTS,
    STATE_CHANGE,
    SYNCHRONIZE,
    decode,
)
from edge_agent.pb import nri_pb2, ttrpc_pb2
from edge_agent.wire import PLUGIN_SERVICE, RUNTIME_SERVICE, MuxReader

NRI_VERSION = "v0.12.0"  # the newest generation whose every method is known here
DEFAULT_REQUEST_TIMEOUT_MS = 2000  # upstream's DefaultPluginRequestTimeout
MAX_SYNC_BYTES = 16 << 20  # ours, all parts of one synchronisation: half a guest's memory
MAX_SYNC_PARTS = 4096  # ours: upstream sends at least 8 objects a part
MAX_NAME_CHARS = 128  # ours: of what a runtime says of itself, which each result repeats
MAX_UNANSWERED = 64  # ours: requests that the runtime owes an answer; it takes its time


class Refused(ProtocolError):
    """The runtime does not take the plugin; the message says why, in the runtime's words."""


class State(Enum):
    """Where a session stands; see the module's drawing."""

    NEW = "new"
    REGISTERED = "registered"
    CONFIGURED = "configured"
    SYNCHRONISED = "synchronised"


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    """The runtime's name, versions and time-outs, from its Configure."""

    name: str
    version: str
    nri_version: str
    request_timeout_ms: int
    tells_timeouts: bool = True  # in Configure: NRI 0.7 or later

    def __str__(self) -> str:
        return f"{self.name} {self.version}" + (
            f", NRI {self.nri_version}" * bool(self.nri_version)
        )


@dataclass(frozen=True, slots=True)
class Call:
    """A request for the guest: its ABI method, payload and the time the runtime gives it.

    `event` is the NRI method as people know it, also when it came as a StateChange.
    `export` is empty where there is nothing for the guest: Configure, Synchronize and
    Shutdown that it does not export, and events subscribed for the agent's own sake. All
    are answered empty.
    """

    stream: int
    event: str
    export: str
    payload: bytes
    timeout_s: float
    state_change: bool = False  # the payload is a StateChangeEvent


@dataclass(frozen=True, slots=True)
class Updated:
    """The runtime's answer to `update_containers`: containers that it failed to update."""

    failed: tuple[str, ...]
    error: str


Incoming = Call | Updated


class Session:
    """`exports` are the guest's ABI methods, `config` what its Configure is given.

    `extra_events` are subscribed for the agent's own sake and never reach the guest;
    `known_events` overrides what is inferred from the runtime's version.
    """

    def __init__(
        self,
        index: str,
        name: str,
        exports: frozenset[str],
        config: str,
        extra_events: int = 0,
        known_events: int | None = None,
    ) -> None:
        self.state = State.NEW
        self.runtime: RuntimeInfo | None = None
        self.subscribed = 0  # the guest's mask, once configured
        # Events that the guest asked for and will not get:
        self.not_sent = 0  # this runtime does not know them
        self.not_exported = 0  # the guest has no export for them
        self._index = index
        self._name = name
        self._exports = exports
        self._config = config
        self._extra_events = extra_events
        self._known_events = known_events
        self._mux = MuxReader()
        self._readers = {
            PLUGIN_SERVICE: wire.MessageReader(wire.SERVER),
            RUNTIME_SERVICE: wire.MessageReader(wire.CLIENT),
        }
        self._output: list[bytes] = []
        self._next_stream = 1
        self._waiting: dict[int, str] = {}  # our requests by stream id
        self._sync_parts: list[bytes] = []
        self._sync_bytes = 0

    # --- to the runtime

    def register(self) -> None:
        """The first thing on a new connection: the runtime accepts no other until then."""
        self.state = State.REGISTERED
        request = nri_pb2.RegisterPluginRequest(
            plugin_name=self._name, plugin_idx=self._index, NRI_version=NRI_VERSION
        )
        self._send_request("RegisterPlugin", request.SerializeToString())

    def update_containers(self, request: bytes) -> bool:
        """An unsolicited UpdateContainersRequest; the answer is an `Updated`.

        False, and nothing is sent: the runtime has too many of them to answer already.
        GuestFault: larger than a ttRPC message.
        """
        if len(self._waiting) >= MAX_UNANSWERED:
            return False
        self._send_request("UpdateContainers", request)
        return True

    def answer(self, call: Call, reply: bytes) -> None:
        """The guest's reply to a call; nothing is sent with a GuestFault.

        GuestFault: a reply to Configure that is none, one larger than a ttRPC message.
        """
        if call.event == CONFIGURE:
            reply = self._configured(reply)
        elif call.event == SYNCHRONIZE:
            self.state = State.SYNCHRONISED
        self._respond(call.stream, events.reply_body(reply))

    def refuse(self, call: Call, code: int, text: str) -> None:
        """An error status instead of a reply; `text` reaches the creator of the container."""
        self._respond(call.stream, events.status_body(code, text))

    def take_output(self) -> list[bytes]:
        """Take the frames to be sent, in order."""
        output, self._output = self._output, []
        return output

    # --- from the runtime

    def receive(self, data: memoryview) -> list[Incoming]:
        """Bytes of the socket -> what happened. ProtocolError: this session is over."""
        happened: list[Incoming] = []
        for connection, piece in self._mux.feed(data):
            for message in self._readers[connection].feed(piece):
                if connection == PLUGIN_SERVICE:
                    found: Incoming | None = self._requested(message)
                else:
                    found = self._responded(message)
                if found is not None:
                    happened.append(found)
        return happened

    def _requested(self, message: wire.Message) -> Call | None:
        request = decode("ttRPC", ttrpc_pb2.Request, message.body)
        method, stream = request.method, message.stream
        if request.service != events.PLUGIN_SERVICE or method not in EXPORTS:
            self._unimplemented(stream, f"{request.service}/{method}"[:256])
            return None
        payload = request.payload
        timeout_s = request.timeout_nano / 1e9
        if timeout_s <= 0:
            timeout_s = DEFAULT_REQUEST_TIMEOUT_MS / 1000
        event = events.BY_METHOD.get(method)
        if event is not None:
            return self._event(stream, event, payload, timeout_s)
        if method == STATE_CHANGE:
            return self._state_change(stream, payload, timeout_s)
        if method == CONFIGURE:
            payload = self._configure(payload)
        elif method == SYNCHRONIZE:
            whole = self._synchronize(stream, payload)
            if whole is None:
                return None
            payload = whole
        export = EXPORTS[method]
        return Call(stream, method, export * (export in self._exports), payload, timeout_s)

    def _event(
        self, stream: int, event: events.Event, payload: bytes, timeout_s: float
    ) -> Call | None:
        if not self.subscribed & event.bit:
            return self._not_for_the_guest(stream, event, payload, timeout_s)
        export = EXPORTS[event.method]
        if export in self._exports:
            return Call(stream, event.method, export, payload, timeout_s)
        # The runtime falls back to StateChange where there is such a thing.
        self._unimplemented(stream, event.method)
        return None

    def _state_change(self, stream: int, payload: bytes, timeout_s: float) -> Call | None:
        event = events.BY_NUMBER.get(_event_number(payload))
        if event is None or not event.in_state_change:
            self._respond(stream, events.EMPTY_BODY)
            return None
        if not self.subscribed & event.bit:
            return self._not_for_the_guest(stream, event, payload, timeout_s, True)
        if EXPORTS[STATE_CHANGE] in self._exports:
            return Call(stream, event.method, EXPORTS[STATE_CHANGE], payload, timeout_s, True)
        # A guest of the newer generation under an older runtime: give it its own method.
        change = decode(STATE_CHANGE, nri_pb2.StateChangeEvent, payload)
        request = getattr(nri_pb2, f"{event.method}Request")(pod=change.pod)
        if "container" in request.DESCRIPTOR.fields_by_name and change.HasField("container"):
            request.container.CopyFrom(change.container)
        return Call(
            stream, event.method, EXPORTS[event.method], request.SerializeToString(), timeout_s
        )

    def _not_for_the_guest(
        self,
        stream: int,
        event: events.Event,
        payload: bytes,
        timeout_s: float,
        state_change: bool = False,
    ) -> Call | None:
        if self._extra_events & event.bit:
            return Call(stream, event.method, "", payload, timeout_s, state_change)
        self._respond(stream, events.EMPTY_BODY)
        return None

    def _configure(self, payload: bytes) -> bytes:
        if self.state is not State.REGISTERED or self.runtime is not None:
            raise ProtocolError("the runtime configures a plugin that has not registered, or twice")
        request = decode(CONFIGURE, nri_pb2.ConfigureRequest, payload)
        self.runtime = RuntimeInfo(
            request.runtime_name[:MAX_NAME_CHARS],
            request.runtime_version[:MAX_NAME_CHARS],
            request.NRI_version[:MAX_NAME_CHARS],
            request.request_timeout if request.request_timeout > 0 else DEFAULT_REQUEST_TIMEOUT_MS,
            request.request_timeout > 0 or request.registration_timeout > 0,
        )
        request.config = self._config or request.config
        return request.SerializeToString()

    def _configured(self, reply: bytes) -> bytes:
        assert self.runtime is not None
        try:
            wanted = nri_pb2.ConfigureResponse.FromString(reply).events
        except DECODE_ERRORS as error:
            raise GuestFault("abi", "its reply to Configure is no ConfigureResponse") from error
        known = self._known_events
        if known is None:
            runtime = self.runtime
            known = events.known_events(runtime.name, runtime.version, runtime.nri_version)
        servable = events.servable(self._exports)
        self.subscribed = (wanted or known) & known & servable
        self.not_sent = wanted & ~known
        self.not_exported = wanted & known & ~servable
        mask = (self.subscribed | self._extra_events) & known
        # 0 would mean every event; a plugin that wants none gets the rarest.
        mask = mask or events.REMOVE_POD.bit
        self.state = State.CONFIGURED
        # Its failure_policy (NRI 0.12.4) is not passed on: it would fail the event on
        # which a replaced session leaves, and here the agent answers for a failed guest.
        return nri_pb2.ConfigureResponse(events=mask).SerializeToString()

    def _synchronize(self, stream: int, payload: bytes) -> bytes | None:
        """Collect the parts; the whole once the last is here.

        Serialized messages that follow each other are one message of all their items
        (protobuf, Encoding, "Last One Wins"), so the parts are only put together.
        """
        if self.state not in (State.CONFIGURED, State.SYNCHRONISED):
            raise ProtocolError("the runtime synchronises a plugin that is not configured")
        more = decode(SYNCHRONIZE, nri_pb2.SynchronizeRequest, payload).more
        self._sync_parts.append(payload)
        self._sync_bytes += len(payload)
        if self._sync_bytes > MAX_SYNC_BYTES or len(self._sync_parts) > MAX_SYNC_PARTS:
            raise ProtocolError(
                f"synchronisation of over {MAX_SYNC_BYTES} bytes or {MAX_SYNC_PARTS} parts"
            )
        if more:
            self._respond(stream, _MORE)
            return None
        parts, self._sync_parts, self._sync_bytes = self._sync_parts, [], 0
        if len(parts) == 1:
            return payload
        # The flag of the earlier parts must not stand for the whole.
        return b"".join(parts) + _NO_MORE

    def _responded(self, message: wire.Message) -> Updated | None:
        method = self._waiting.pop(message.stream, None)
        if method is None:
            raise ProtocolError(f"the runtime answers stream {message.stream}, never asked")
        response = decode(method, ttrpc_pb2.Response, message.body)
        failure = response.status
        if method == "RegisterPlugin":
            if failure.code:
                raise Refused(
                    f"the runtime refuses {self._index}-{self._name}: {failure.message[:512]}"
                )
            return None
        if failure.code:
            return Updated((), failure.message[:512] or f"code {failure.code}")
        reply = decode(method, nri_pb2.UpdateContainersResponse, response.payload)
        return Updated(tuple(update.container_id for update in reply.failed), "")

    def _send_request(self, method: str, payload: bytes) -> None:
        body = events.request_body(events.RUNTIME_SERVICE, method, payload)
        stream = self._next_stream
        self._next_stream += 2
        self._waiting[stream] = method
        self._output += wire.message(RUNTIME_SERVICE, stream, wire.REQUEST, body)

    def _unimplemented(self, stream: int, what: str) -> None:
        text = f"{what} is not implemented by {self._index}-{self._name}"
        self._respond(stream, events.status_body(wire.UNIMPLEMENTED, text))

    def _respond(self, stream: int, body: bytes) -> None:
        self._output += wire.message(PLUGIN_SERVICE, stream, wire.RESPONSE, body)


_MORE = events.reply_body(nri_pb2.SynchronizeResponse(more=True).SerializeToString())
_NO_MORE = b"\x18\x00"  # SynchronizeRequest.more = false, written out


def _event_number(payload: bytes) -> int:
    """Which event a StateChangeEvent is of, without decoding its pod and container."""
    if len(payload) > 1 and payload[0] == 0x08 and payload[1] < 0x80:
        return payload[1]  # field 1 comes first and takes one byte: always, so far
    return decode(STATE_CHANGE, nri_pb2.StateChangeEvent, payload).event
