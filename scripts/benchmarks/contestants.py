"""Who is measured: each with a runtime process of its own, upstream's side of NRI.

A contestant is a context manager; within it `runtime` is ready and the plugins are
registered. `pid` is the process whose memory counts.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from edge_agent.nri.events import RUNTIME_SERVICE
from edge_agent.nri.session import NRI_VERSION
from edge_agent.pb import nri_pb2, ttrpc_pb2
from tests.support.gobuild import ROOT
from tests.support.gopeers import NriRuntime
from tests.support.goplugin import NativePlugin

FLOOR = "floor: C, no Wasm, a constant answer"
FLOOR_PYTHON = "floor in Python: the same, interpreted"
NATIVE = "native Go daemon"
WAZERO = "Go Wasm in the runtime's own host (wazero)"

# What the native plugin and upstream's own host do: no line is dropped.
EVERY_LINE = "log_lines_per_s = 10000"
_FLOOR, _FLOOR_PYTHON = (Path(__file__).with_name(f"floor.{kind}") for kind in ("c", "py"))
_COMPILE = (
    *(sys.executable, "-m", "ziglang", "cc", "-O2", "-std=gnu17"),
    *("-Wall", "-Wextra", "-Werror"),
)
START_TIMEOUT_S = 600.0  # a busy machine compiles a Go plugin in a minute
# Between two looks at the runtime's plugins: the precision of a start's time.
LOOK_S = 0.002


class Contestant:
    """`folder` is its own. Subclasses fill `_start`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pid = 0
        self.start_s = 0.0  # from nothing to "registered"
        self.runtime: NriRuntime
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, stack: ExitStack) -> None:
        raise NotImplementedError

    def log_lines(self) -> int:
        """How many lines about containers were written so far."""
        raise NotImplementedError


class Bare(Contestant):
    """The runtime without any plugin."""

    def _start(self, stack: ExitStack) -> None:
        self.runtime = stack.enter_context(NriRuntime(self.folder / "nri.sock", owners=False))
        self.pid = self.runtime.pid

    def log_lines(self) -> int:
        return 0


class Floor(Contestant):
    """The least that a plugin can do, floor.c: what is above it, a host may save."""

    def _program(self) -> list[str]:
        program = self.folder / "floor"
        subprocess.run([*_COMPILE, _FLOOR, "-o", program], check=True)
        return [str(program)]

    def _start(self, stack: ExitStack) -> None:
        program = self._program()
        socket = self.folder / "nri.sock"
        self.runtime = stack.enter_context(NriRuntime(socket, owners=False))
        began = time.monotonic()
        process = subprocess.Popen([*program, socket, *self._said()], stdin=subprocess.DEVNULL)
        stack.callback(end, process)
        self.pid = process.pid
        wait_for(self.runtime, "10-floor", alive=lambda: process.poll() is None)
        self.start_s = time.monotonic() - began

    def _said(self) -> list[str]:
        """Bodies of ttRPC messages: to register, configured, the container adjusted."""
        adjust = nri_pb2.ContainerAdjustment(
            annotations={"edge.bench/plugin": "c"},
            env=[nri_pb2.KeyValue(key="EDGE_BENCH", value="c")],
        )
        mask = 1 << (nri_pb2.Event.CREATE_CONTAINER - 1)
        register = nri_pb2.RegisterPluginRequest(
            plugin_name="floor", plugin_idx="10", NRI_version=NRI_VERSION
        )
        said = (
            ttrpc_pb2.Request(
                service=RUNTIME_SERVICE,
                method="RegisterPlugin",
                payload=register.SerializeToString(),
            ),
            ttrpc_pb2.Response(payload=nri_pb2.ConfigureResponse(events=mask).SerializeToString()),
            ttrpc_pb2.Response(
                payload=nri_pb2.CreateContainerResponse(adjust=adjust).SerializeToString()
            ),
        )
        return [message.SerializeToString().hex() for message in said]

    def log_lines(self) -> int:
        return 0


class PythonFloor(Floor):
    """The least that a plugin in Python can do, floor.py: what is above it is the agent's own."""

    def _program(self) -> list[str]:
        return [sys.executable, "-I", "-S", str(_FLOOR_PYTHON)]


class NativeDaemon(Contestant):
    """The plugin as a daemon of its own, in Go, on upstream's stub."""

    def _start(self, stack: ExitStack) -> None:
        socket = self.folder / "nri.sock"
        self.runtime = stack.enter_context(NriRuntime(socket, owners=False))
        began = time.monotonic()
        self._plugin = stack.enter_context(
            NativePlugin(
                socket,
                annotations={"edge.bench/plugin": "native"},
                env={"EDGE_BENCH": "native"},
                trace=False,
            )
        )
        self.pid = self._plugin.pid
        wait_for(self.runtime, self._plugin.name)
        self.start_s = time.monotonic() - began

    def log_lines(self) -> int:
        return self._plugin.log().count("adjusting container")


class WazeroHost(Contestant):
    """A Wasm plugin in the runtime's own process, in the Wasm host that NRI brings along."""

    def __init__(self, folder: Path, identity: str, module: bytes) -> None:
        super().__init__(folder)
        self._identity = identity
        self._module = module

    def _start(self, stack: ExitStack) -> None:
        plugins = self.folder / "plugins"
        plugins.mkdir(exist_ok=True)
        file = plugins / self._identity  # upstream runs what is executable, Wasm or not
        file.write_bytes(self._module)
        file.chmod(0o755)
        self.runtime = stack.enter_context(
            NriRuntime(self.folder / "nri.sock", plugin_dir=plugins, owners=False)
        )
        self.pid = self.runtime.pid
        self.start_s = self.runtime.start_ns / 1e9

    def log_lines(self) -> int:
        return self.runtime.log().count("adjusting container")


class Agent(Contestant):
    """edge-agent as in production: its own process, its log to a file.

    `modules` by NN-name, each alone or with its configuration; `settings` is each one's .toml,
    `limits` are lines of the [limits] section, `more` further sections.
    """

    def __init__(
        self,
        folder: Path,
        modules: Mapping[str, bytes | tuple[bytes, str]],
        *,
        limits: str = EVERY_LINE,
        more: str = "",
        engine: str = "auto",
        # Or a placeholder would be registered first while the module is compiled, and be timed.
        settings: str = 'failure_policy = "Ignore"\n',
    ) -> None:
        super().__init__(folder)
        self._modules = modules
        self._engine = engine
        self._settings = settings
        self._limits = limits
        self._more = more

    def _start(self, stack: ExitStack) -> None:
        socket = self.folder / "nri.sock"
        config = self._write(socket)
        self.runtime = stack.enter_context(NriRuntime(socket, owners=False))
        log = stack.enter_context((self.folder / "log").open("ab"))
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "edge_agent", "run", "-c", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=ROOT,
        )
        stack.callback(end, process)
        self.pid = process.pid
        try:
            wait_for(self.runtime, *sorted(self._modules), alive=lambda: process.poll() is None)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{(self.folder / 'log').read_text()}") from error
        self.start_s = time.monotonic() - began

    def _write(self, socket: Path) -> Path:
        plugins = self.folder / "plugins"
        plugins.mkdir(exist_ok=True)
        for identity, given in self._modules.items():
            module, text = given if isinstance(given, tuple) else (given, "")
            (plugins / f"{identity}.toml").write_text(self._settings)
            (plugins / f"{identity}.wasm").write_bytes(module)
            if text:
                (plugins / f"{identity}.conf").write_text(text)
        name = f"{self.folder.parent.name}-{self.folder.name}"
        config = self.folder / "agent.toml"
        config.write_text(
            f'node = "{name.lower()}"\nengine = "{self._engine}"\n'
            f'plugin_dir = "{plugins}"\nstate_dir = "{self.folder}/state"\n'
            f'control_socket = "{self.folder}/control.sock"\n'
            f'[nri]\nsockets = ["{socket}"]\n[log]\nlevel = "info"\n[limits]\n{self._limits}\n'
            f"{self._more}\n"
        )
        return config

    def log_lines(self) -> int:
        text = (self.folder / "log").read_text(errors="replace")
        return text.count('"adjusting container') + text.count('"adjusted ')


def wait_for(runtime: NriRuntime, *names: str, alive: Callable[[], bool] = lambda: True) -> None:
    """Return once exactly these plugins are registered at the runtime. TimeoutError."""
    _wait(runtime, lambda: runtime.plugins().present == list(names), f"wanted {names}", alive)


def wait_for_any(runtime: NriRuntime, alive: Callable[[], bool]) -> None:
    """Return once a plugin is registered at the runtime, whatever its name. TimeoutError."""
    _wait(runtime, lambda: bool(runtime.plugins().present), "wanted a plugin", alive)


def _wait(
    runtime: NriRuntime, there: Callable[[], bool], wanted: str, alive: Callable[[], bool]
) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not there():
        if time.monotonic() > deadline or not alive():
            raise TimeoutError(f"{wanted}, have {runtime.plugins().present}; {runtime.log()}")
        time.sleep(LOOK_S)


def end(process: subprocess.Popen[bytes]) -> None:
    """In order, or else at once."""
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
