"""Runs one plugin module in plain wasmtime: the guest ABI as docs/plugins.md tells it.

The one place where these tests meet an engine. Limits are fuel and memory, so that a test
of a hostile guest ends the same way on every machine.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from wasmtime import Caller, Config, Engine, Func, FuncType, Linker, Memory, Module, Store, ValType

from edge_agent.pb import edge_pb2, nri_pb2

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "plugins"
GUESTS = ROOT / "tests" / "guests"
CAPTURES = ROOT / "tests" / "data"

ERROR_BIT = 1 << 31
REPLY_LIMIT = 4 << 20  # bytes; docs/plugins.md
MEMORY_LIMIT = 32 << 20  # bytes; docs/plugins.md
FUEL = 200_000_000  # instructions for one call: well below a second

Reply = TypeVar("Reply", bound=Message)


class GuestError(Exception):
    """The guest answered with an error's text."""


class AbiError(Exception):
    """The guest broke the ABI."""


@cache
def engine() -> Engine:
    config = Config()
    config.consume_fuel = True
    return Engine(config)


@cache
def module(path: Path) -> Module:
    return Module.from_file(engine(), str(path))


def plugin(name: str) -> Path:
    return PLUGINS / name / f"{name}.wasm"


def capture(name: str) -> bytes:
    """A request as a real containerd 2.1.9 sent it."""
    return (CAPTURES / f"containerd-2.1.9-{name}_request.bin").read_bytes()


class Guest:
    """One instance with what it said to the host."""

    def __init__(self, path: Path, fuel: int = FUEL) -> None:
        self._fuel = fuel
        self.logs: list[tuple[int, str]] = []
        self.reports: list[edge_pb2.Report] = []
        self.updates: list[nri_pb2.UpdateContainersRequest] = []
        self.state: dict[str, bytes] = {}
        self._store = Store(engine())
        self._store.set_limits(memory_size=MEMORY_LIMIT)
        linker = Linker(engine())
        kind = FuncType([ValType.i32(), ValType.i32()], [ValType.i64()])
        functions: dict[tuple[str, str], Callable[[bytes], bytes]] = {
            ("env", "log"): self._log,
            ("edge", "report"): self._report,
            ("edge", "update_containers"): self._update_containers,
            ("edge", "state_get"): self._state_get,
            ("edge", "state_put"): self._state_put,
        }
        for (space, name), function in functions.items():
            linker.define_func(space, name, kind, self._host(function), access_caller=True)
        self._store.set_fuel(fuel)
        compiled = module(path)
        exports = linker.instantiate(self._store, compiled).exports(self._store)
        self._functions = {
            export.name: export_value
            for export in compiled.exports
            if isinstance(export_value := exports[export.name], Func)
        }
        memory = exports["memory"]
        assert isinstance(memory, Memory)
        self._memory = memory

    @property
    def methods(self) -> set[str]:
        prefix = "plugin_"
        names = {name.removeprefix(prefix) for name in self._functions if name.startswith(prefix)}
        return names - {"api_version"}

    @property
    def lines(self) -> list[str]:
        return [text for _, text in self.logs]

    def memory_size(self) -> int:
        return self._memory.data_len(self._store)

    def api_version(self) -> int:
        return self._run("plugin_api_version")

    def malloc(self, size: int) -> int:
        return self._run("malloc", size) & 0xFFFFFFFF

    def free(self, pointer: int) -> None:
        self._functions["free"](self._store, pointer)

    def call(self, method: str, request: bytes) -> bytes:
        """The reply's bytes.

        GuestError: the guest's own error; AbiError: it broke the ABI; wasmtime's Trap.
        """
        self._store.set_fuel(self._fuel)
        pointer = self._place(request)
        packed = self._run(f"plugin_{method}", pointer, len(request))
        reply, error = self._fetch(packed)
        if pointer:
            self.free(pointer)
        if error:
            raise GuestError(reply.decode(errors="replace"))
        return reply

    def ask(self, method: str, request: Message, reply: type[Reply]) -> Reply:
        return reply.FromString(self.call(method, request.SerializeToString()))

    def configure(self, text: str = "") -> int:
        """The event mask."""
        request = nri_pb2.ConfigureRequest(config=text, runtime_name="test")
        return self.ask("configure", request, nri_pb2.ConfigureResponse).events

    def create(self, request: nri_pb2.CreateContainerRequest) -> nri_pb2.CreateContainerResponse:
        return self.ask("create_container", request, nri_pb2.CreateContainerResponse)

    def read(self, pointer: int, size: int) -> bytes:
        if pointer + size > self.memory_size():
            raise AbiError(f"{size} bytes at {pointer:#x} are outside the memory")
        return bytes(self._memory.read(self._store, pointer, pointer + size))

    def write(self, pointer: int, content: bytes) -> None:
        if pointer + len(content) > self.memory_size():
            raise AbiError(f"malloc gave {pointer:#x}, outside the memory")
        self._memory.write(self._store, content, pointer)

    def _run(self, name: str, *arguments: int) -> int:
        result = self._functions[name](self._store, *arguments)
        assert isinstance(result, int)
        return result & 0xFFFFFFFFFFFFFFFF

    def _place(self, content: bytes) -> int:
        if not content:
            return 0
        pointer = self.malloc(len(content))
        if pointer == 0:
            raise AbiError(f"malloc({len(content)}) gave nothing")
        self.write(pointer, content)
        return pointer

    def _fetch(self, packed: int) -> tuple[bytes, bool]:
        pointer, size = packed >> 32, packed & (ERROR_BIT - 1)
        if size > REPLY_LIMIT:
            raise AbiError(f"a reply of {size} bytes, at most {REPLY_LIMIT}")
        content = self.read(pointer, size)
        if pointer:
            self.free(pointer)
        return content, bool(packed & ERROR_BIT)

    def _host(self, function: Callable[[bytes], bytes]) -> Callable[[Caller, int, int], int]:
        def call(_: Caller, pointer: int, size: int) -> int:
            reply = function(self.read(pointer & 0xFFFFFFFF, size & 0xFFFFFFFF))
            packed = self._place(reply) << 32 | len(reply)
            return packed - (1 << 64) if packed >> 63 else packed

        return call

    def _log(self, request: bytes) -> bytes:
        # Without the schema: a guest that passes on what it got may not say valid UTF-8.
        unknown = UnknownFieldSet(nri_pb2.Empty.FromString(request))
        line = {unknown[i].field_number: unknown[i].data for i in range(len(unknown))}
        self.logs.append((line[2], line.get(1, b"").decode(errors="backslashreplace")))
        return b""

    def _report(self, request: bytes) -> bytes:
        self.reports.append(edge_pb2.Report.FromString(request))
        return b""

    def _update_containers(self, request: bytes) -> bytes:
        self.updates.append(nri_pb2.UpdateContainersRequest.FromString(request))
        return b""

    def _state_get(self, request: bytes) -> bytes:
        value = self.state.get(edge_pb2.StateGetRequest.FromString(request).key)
        found = value is not None
        return edge_pb2.StateGetResponse(value=value or b"", found=found).SerializeToString()

    def _state_put(self, request: bytes) -> bytes:
        put = edge_pb2.StatePutRequest.FromString(request)
        if put.value:
            self.state[put.key] = put.value
        else:
            self.state.pop(put.key, None)
        return b""
