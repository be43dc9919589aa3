"""The host functions that a guest may import: `env.log` of NRI, the `edge` functions, WASI.

The calling convention is the ABI's: (pointer, size) of a serialized request in, the
packed reply out; proto/edge.proto has the messages of `edge`. What goes over a limit
is refused with an error reply and the guest lives on; bytes that are no message end it.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from edge_agent.errors import GuestFault, ModuleError
from edge_agent.pb import edge_pb2
from edge_agent.wasm import wasi
from edge_agent.wasm.abi import ERROR_BIT, METHOD, pack
from edge_agent.wasm.engine import Guest, HostFunction, HostFunctions
from edge_agent.wasm.guestlog import WARN, GuestLog
from edge_agent.wasm.module import ModuleInfo
from edge_agent.wire import MAX_FIELDS, field_paths

MAX_REPORT_BYTES = 16 << 10  # of a payload; four fit one MQTT message of the fleet protocol
MAX_KIND_BYTES = 64
MAX_CONTENT_TYPE_BYTES = 128
MAX_REPORTS_PER_CALL = 16
MAX_REPORTS_BYTES_PER_CALL = 48 << 10  # of their payloads: they leave in one MQTT message
MAX_UPDATE_BYTES = 1 << 20  # of one edge.update_containers, a quarter of a ttRPC message
MAX_UPDATES_PER_CALL = 4
_UPDATE, _EVICT = (1,), (2,)  # UpdateContainersRequest's repeated messages
MAX_KEY_BYTES = 256


@dataclass(frozen=True, slots=True)
class Report:
    """A report that a plugin passed to edge.report."""

    kind: str
    payload: bytes
    content_type: str


class PluginState:
    """Keys and values of one plugin, together at most `MAX_BYTES`; outlives its instances.

    Whoever keeps it on a disk looks at `changed` and takes what there is.
    """

    MAX_BYTES = 64 << 10  # the fleet protocol's
    MAX_KEYS = 1024  # ours: each takes some 200 bytes of the agent beside its content

    def __init__(self) -> None:
        self.changed = False  # since it was last taken
        self._values: dict[str, bytes] = {}
        self._size = 0
        # A successor that is loaded shares it with the instance that serves, on another
        # thread; held for a few dictionary operations.
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | None:
        return self._values.get(key)

    def put(self, key: str, value: bytes) -> bool:
        """Store, or delete with an empty value; False (nothing changed) beyond a limit."""
        with self._lock:
            old = self._values.get(key)
            size = self._size
            if old is not None:
                size -= len(key.encode()) + len(old)
            if value:
                size += len(key.encode()) + len(value)
            added = value and old is None
            if size > self.MAX_BYTES or (added and len(self._values) >= self.MAX_KEYS):
                return False
            self._size = size
            if value == (old or b""):
                return True
            self.changed = True
            if value:
                self._values[key] = value
            else:
                del self._values[key]
            return True

    def clear(self) -> None:
        """Forget everything: the plugin was removed."""
        with self._lock:
            self.changed = True
            self._values.clear()
            self._size = 0

    def restore(self, values: Mapping[str, bytes]) -> None:
        """Set the state of an earlier process, unless it was changed or cleared in this one."""
        with self._lock:
            if not self.changed:
                self._values = dict(values)
                self._size = sum(len(key.encode()) + len(value) for key, value in values.items())

    def take(self) -> dict[str, bytes] | None:
        """A copy, if it was changed since the last time."""
        with self._lock:
            if not self.changed:
                return None
            self.changed = False
            return dict(self._values)


class HostServices:
    """Collects what one instance asks of its host during a call.

    `reports` and `updates` are taken and emptied by whoever made the call.
    `muted` while the call is only watched (a successor during handover): its reports,
    updates and state changes are dropped.
    """

    def __init__(self, log: GuestLog, state: PluginState) -> None:
        self.log = log
        self.state = state
        self.reports: list[Report] = []
        self.updates: list[bytes] = []
        self.muted = False

    def functions(self) -> HostFunctions:
        """Everything that a guest can import, by module and name."""
        table = wasi.functions(self.log.stream)
        table["env", "log"] = HostFunction(METHOD, self._log)
        for name, limit, serve in (
            # Room for the fields' tags and lengths.
            (
                "report",
                MAX_REPORT_BYTES + MAX_KIND_BYTES + MAX_CONTENT_TYPE_BYTES + 16,
                self._report,
            ),
            ("update_containers", MAX_UPDATE_BYTES, self._update_containers),
            ("state_get", MAX_KEY_BYTES + 16, self._state_get),
            ("state_put", PluginState.MAX_BYTES + MAX_KEY_BYTES + 16, self._state_put),
        ):
            table["edge", name] = HostFunction(METHOD, self._served(name, limit, serve))
        return table

    def _served(
        self, name: str, limit: int, serve: Callable[[bytes], bytes]
    ) -> Callable[[Guest, int, int], int]:
        """A host function around `serve`, which takes a request and returns the reply."""

        def call(guest: Guest, pointer: int, size: int) -> int:
            try:
                if size > limit:
                    raise _RefusedError(f"takes at most {limit} bytes, not {size}")
                return _reply(guest, serve(guest.read(pointer, size)))
            except _RefusedError as refusal:
                text = f"edge.{name} {refusal}"
                self.log.say(WARN, text)  # a guest that does not look is heard of too
                return _reply(guest, text.encode()) | ERROR_BIT
            except (DecodeError, ValueError) as error:  # the latter from pure Python too
                raise GuestFault("abi", f"edge.{name} was called with no such message") from error

        return call

    def _log(self, guest: Guest, pointer: int, size: int) -> int:
        self.log.request(guest.read(pointer, min(size, self.log.request_bytes)), size)
        return 0

    def _report(self, request: bytes) -> bytes:
        report = edge_pb2.Report.FromString(request)
        for what, size, limit in (
            ("a payload", len(report.payload), MAX_REPORT_BYTES),
            ("a kind", len(report.kind.encode()), MAX_KIND_BYTES),
            ("a content type", len(report.content_type.encode()), MAX_CONTENT_TYPE_BYTES),
        ):
            if size > limit:
                raise _RefusedError(f"takes {what} of at most {limit} bytes, not {size}")
        if len(self.reports) >= MAX_REPORTS_PER_CALL:
            raise _RefusedError(f"takes at most {MAX_REPORTS_PER_CALL} reports for one event")
        told = sum(len(each.payload) for each in self.reports)
        if told + len(report.payload) > MAX_REPORTS_BYTES_PER_CALL:
            raise _RefusedError(
                f"takes at most {MAX_REPORTS_BYTES_PER_CALL} bytes of payload for one event"
            )
        if not self.muted:
            self.reports.append(
                Report(
                    report.kind, report.payload, report.content_type or "application/octet-stream"
                )
            )
        return b""

    def _update_containers(self, request: bytes) -> bytes:
        # Not decoded: that can take seconds, and the runtime refuses what it cannot read.
        if not field_paths(request, (_UPDATE, _EVICT))[1]:
            raise _RefusedError(f"takes at most {MAX_FIELDS} fields")
        if len(self.updates) >= MAX_UPDATES_PER_CALL:
            raise _RefusedError(f"takes at most {MAX_UPDATES_PER_CALL} requests for one event")
        if not self.muted:
            self.updates.append(request)
        return b""

    def _state_get(self, request: bytes) -> bytes:
        value = self.state.get(edge_pb2.StateGetRequest.FromString(request).key)
        reply = edge_pb2.StateGetResponse(value=value or b"", found=value is not None)
        return reply.SerializeToString()

    def _state_put(self, request: bytes) -> bytes:
        put = edge_pb2.StatePutRequest.FromString(request)
        if len(put.key.encode()) > MAX_KEY_BYTES:
            raise _RefusedError(f"takes a key of at most {MAX_KEY_BYTES} bytes")
        if not self.muted and not self.state.put(put.key, put.value):
            raise _RefusedError(
                f"keeps at most {PluginState.MAX_BYTES} bytes under {PluginState.MAX_KEYS} keys"
            )
        return b""


def check_imports(info: ModuleInfo, functions: HostFunctions) -> None:
    """ModuleError names every import that no host function serves."""
    missing = []
    for wanted in info.imports:
        function = functions.get((wanted.module, wanted.name))
        if function is None:
            missing.append(f"{wanted} ({wanted.kind})")
        elif wanted.type != function.type:
            missing.append(f"{wanted} of type {wanted.type or wanted.kind}, not {function.type}")
    if missing:
        raise ModuleError(
            f"imports that this agent does not offer: {', '.join(missing[:8])}"
            + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
            + "; docs/plugins.md lists what a plugin may import"
        )


class _RefusedError(Exception):
    """A request over a limit; the text follows the function's name."""


def _reply(guest: Guest, data: bytes) -> int:
    if not data:
        return 0
    pointer = guest.allocate(len(data))
    guest.write(pointer, data)
    return pack(pointer, len(data))
