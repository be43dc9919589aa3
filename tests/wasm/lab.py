"""Guests under test: compiled once for each engine, started with what a test needs."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.pb import nri_pb2
from edge_agent.wasm.compiler_process import compile_here
from edge_agent.wasm.engine import Bounds, Engine, HostFunctions, Instance, Module
from edge_agent.wasm.guestlog import GuestLog
from edge_agent.wasm.imports import HostServices, PluginState, check_imports
from edge_agent.wasm.module import ModuleInfo, inspect

ROOT = Path(__file__).resolve().parents[2]
GUESTS = ROOT / "tests" / "guests"
MIB = 1 << 20
STACK_BYTES = 512 << 10  # the default of the agent
# Of calls that shall end by themselves: a slow machine takes long, and no test waits for it.
PATIENCE_S = 240.0


def guest(name: str) -> bytes:
    """A guest of tests/guests, such as "bench" or "wasi/libc"."""
    return (GUESTS / f"{name}.wasm").read_bytes()


def capture(name: str) -> bytes:
    """A request as a real runtime sent it; tests/data/README.md."""
    return (ROOT / "tests" / "data" / f"containerd-2.1.9-{name}_request.bin").read_bytes()


def configure_request(text: str = "") -> bytes:
    return nri_pb2.ConfigureRequest(config=text, runtime_name="test").SerializeToString()


@dataclass
class Running:
    """An instance, and what it said and asked for."""

    instance: Instance
    services: HostServices
    lines: list[tuple[int, str]] = field(default_factory=list)

    def call(self, method: str, request: bytes = b"", deadline_s: float = PATIENCE_S) -> bytes:
        """`method` without plugin_."""
        return self.instance.call(f"plugin_{method}", request, deadline_s)

    def configure(self, text: str = "") -> bytes:
        return self.call("configure", configure_request(text))

    @property
    def texts(self) -> list[str]:
        return [text for _, text in self.lines]


class Bench:
    """One engine with the modules it compiled; for the whole test run."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.folder = folder
        self._modules: dict[tuple[str, int, bool], tuple[Module, ModuleInfo]] = {}

    def artifact(self, wasm: bytes, metered: bool = False) -> Path:
        path = self.folder / f"{hashlib.sha256(wasm).hexdigest()}{'-metered' * metered}"
        if not path.exists():
            path.write_bytes(compile_here(self.engine, wasm, metered=metered))
        return path

    def module(
        self, wasm: bytes, stack_bytes: int = STACK_BYTES, metered: bool = False
    ) -> tuple[Module, ModuleInfo]:
        key = (hashlib.sha256(wasm).hexdigest(), stack_bytes, metered)
        if key not in self._modules:
            info = inspect(wasm)
            artifact = self.artifact(wasm, metered)
            self._modules[key] = (self.engine.load(artifact, info, stack_bytes), info)
        return self._modules[key]

    def forget(self, wasm: bytes) -> tuple[Module, ModuleInfo]:
        """The module, which the caller closes."""
        return self._modules.pop((hashlib.sha256(wasm).hexdigest(), STACK_BYTES, False))


class Lab:
    """Starts instances on a bench and closes them at the end of a test."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._running: list[Running] = []

    def start(
        self,
        wasm: bytes,
        *,
        memory_bytes: int = 32 * MIB,
        reply_bytes: int = 4 * MIB,
        stack_bytes: int = STACK_BYTES,
        fuel: int | None = None,
        deadline_s: float = PATIENCE_S,
        log_lines_per_s: int = 1000,
        log_line_bytes: int = 4096,
        state: PluginState | None = None,
        extra: HostFunctions | None = None,
    ) -> Running:
        lines: list[tuple[int, str]] = []
        log = GuestLog(lambda *line: lines.append(line), log_lines_per_s, log_line_bytes)
        services = HostServices(log, state or PluginState())
        functions = {**services.functions(), **(extra or {})}
        module, info = self.bench.module(wasm, stack_bytes, fuel is not None)
        check_imports(info, functions)
        bounds = Bounds(memory_bytes, reply_bytes, fuel)
        instance = module.instantiate(bounds, functions, deadline_s)
        running = Running(instance, services, lines)
        self._running.append(running)
        return running

    def hostile(self, *rules: str, lines_per_s: int = 1000) -> Running:
        """tests/guests/hostile.c under rules such as "create_container:loop"."""
        running = self.start(guest("hostile"), log_lines_per_s=lines_per_s)
        running.configure("\n".join(rules))
        return running

    def forget(self, running: Running) -> None:
        """Keep nothing of an instance that the test has closed."""
        self._running.remove(running)

    def close(self) -> None:
        for running in self._running:
            running.instance.close()
