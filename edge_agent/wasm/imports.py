"""What a guest may import: `env.log` of NRI, the `edge` functions, WASI.

The calling convention is the ABI's: (pointer, size) of a serialized request in, the
packed reply out; proto/edge.proto has the messages of `edge`.
"""

from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from edge_agent.errors import GuestFault, ModuleError
from edge_agent.pb import edge_pb2
from edge_agent.wasm import wasi
from edge_agent.wasm.abi import ERROR_BIT, METHOD, pack
from edge_agent.wasm.engine import Guest, HostFunction, HostFunctions
from edge_agent.wasm.guestlog import GuestLog
from edge_agent.wasm.module import ModuleInfo

M = TypeVar("M", bound=Message)

MAX_REPORT_BYTES = 16 << 10  # of a payload; four fit one MQTT message of the fleet protocol
MAX_KIND_BYTES = 64
MAX_REPORTS_PER_CALL = 16
MAX_UPDATE_BYTES = 1 << 20  # of one edge.update_containers, a quarter of a ttRPC message
MAX_UPDATES_PER_CALL = 4
MAX_KEY_BYTES = 256


@dataclass(frozen=True, slots=True)
class Report:
    """What a plugin passed to edge.report."""

    kind: str
    payload: bytes
    content_type: str


class PluginState:
    """Keys and values of one plugin, together at most `MAX_BYTES`; outlives its instances."""

    MAX_BYTES = 64 << 10  # the fleet protocol's

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}
        self._size = 0

    def get(self, key: str) -> bytes | None:
        return self._values.get(key)

    def put(self, key: str, value: bytes) -> bool:
        """Store, or delete with an empty value; False (nothing changed) beyond the limit."""
        old = self._values.get(key)
        size = self._size
        if old is not None:
            size -= len(key.encode()) + len(old)
        if value:
            size += len(key.encode()) + len(value)
        if size > self.MAX_BYTES:
            return False
        self._size = size
        if value:
            self._values[key] = value
        else:
            self._values.pop(key, None)
        return True


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
        for name, call in (
            ("report", self._report),
            ("update_containers", self._update_containers),
            ("state_get", self._state_get),
            ("state_put", self._state_put),
        ):
            table["edge", name] = HostFunction(METHOD, call)
        return table

    def _log(self, guest: Guest, pointer: int, size: int) -> int:
        room = self.log.request_bytes
        raw = guest.read(pointer, min(size, room))
        self.log.request(raw, cut=size - len(raw))
        return 0

    def _report(self, guest: Guest, pointer: int, size: int) -> int:
        raw = _bounded(guest, "edge.report", pointer, size, MAX_REPORT_BYTES + 1024)
        report = _parsed("edge.report", edge_pb2.Report, raw)
        if len(report.kind.encode()) > MAX_KIND_BYTES or len(report.payload) > MAX_REPORT_BYTES:
            return _refuse(
                guest,
                f"edge.report: kind at most {MAX_KIND_BYTES} bytes, "
                f"payload at most {MAX_REPORT_BYTES}",
            )
        if len(self.reports) >= MAX_REPORTS_PER_CALL:
            return _refuse(guest, f"edge.report: at most {MAX_REPORTS_PER_CALL} for one event")
        if not self.muted:
            self.reports.append(
                Report(
                    report.kind,
                    report.payload,
                    report.content_type[:128] or "application/octet-stream",
                )
            )
        return 0

    def _update_containers(self, guest: Guest, pointer: int, size: int) -> int:
        raw = _bounded(guest, "edge.update_containers", pointer, size, MAX_UPDATE_BYTES)
        if len(self.updates) >= MAX_UPDATES_PER_CALL:
            return _refuse(
                guest, f"edge.update_containers: at most {MAX_UPDATES_PER_CALL} for one event"
            )
        if not self.muted:
            self.updates.append(raw)
        return 0

    def _state_get(self, guest: Guest, pointer: int, size: int) -> int:
        raw = _bounded(guest, "edge.state_get", pointer, size, MAX_KEY_BYTES + 16)
        value = self.state.get(_parsed("edge.state_get", edge_pb2.StateGetRequest, raw).key)
        reply = edge_pb2.StateGetResponse(value=value or b"", found=value is not None)
        return _reply(guest, reply.SerializeToString())

    def _state_put(self, guest: Guest, pointer: int, size: int) -> int:
        raw = _bounded(
            guest, "edge.state_put", pointer, size, PluginState.MAX_BYTES + MAX_KEY_BYTES + 16
        )
        request = _parsed("edge.state_put", edge_pb2.StatePutRequest, raw)
        if len(request.key.encode()) > MAX_KEY_BYTES:
            return _refuse(guest, f"edge.state_put: a key has at most {MAX_KEY_BYTES} bytes")
        if not self.muted and not self.state.put(request.key, request.value):
            return _refuse(
                guest, f"edge.state_put: a plugin keeps at most {PluginState.MAX_BYTES} bytes"
            )
        return 0


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


def _bounded(guest: Guest, name: str, pointer: int, size: int, limit: int) -> bytes:
    if size > limit:
        raise GuestFault("abi", f"{name} was called with {size} bytes; at most {limit} are taken")
    return guest.read(pointer, size)


def _parsed(name: str, kind: type[M], raw: bytes) -> M:
    message = kind()
    try:
        message.ParseFromString(raw)
    except DecodeError as error:
        raise GuestFault("abi", f"{name} was called with bytes that are no message") from error
    return message


def _reply(guest: Guest, data: bytes) -> int:
    if not data:
        return 0
    pointer = guest.allocate(len(data))
    guest.write(pointer, data)
    return pack(pointer, len(data))


def _refuse(guest: Guest, text: str) -> int:
    raw = text.encode()
    pointer = guest.allocate(len(raw))
    guest.write(pointer, raw)
    return pack(pointer, len(raw)) | ERROR_BIT
