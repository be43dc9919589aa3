"""One plugin without an agent: this program takes the place of the runtime. Its requests come from
a file, or derive from a request of a real containerd.
"""

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from edge_agent.authors import kept
from edge_agent.config import Limits, PluginSettings, load_plugin_settings
from edge_agent.config.document import read_text
from edge_agent.config.model import MAX_FUEL
from edge_agent.errors import ConfigError, GuestFault, ModuleError
from edge_agent.nri import events
from edge_agent.nri.difference import message_types
from edge_agent.nri.session import DEFAULT_REQUEST_TIMEOUT_MS, NRI_VERSION
from edge_agent.pb import edge_pb2, nri_pb2
from edge_agent.store import files
from edge_agent.store.digest import Digest
from edge_agent.wasm import abi
from edge_agent.wasm.artifacts import Artifacts
from edge_agent.wasm.engine import Bounds, HostFunctions, Instance, Module
from edge_agent.wasm.engine_selection import AUTO, select_engine
from edge_agent.wasm.guestlog import GuestLog
from edge_agent.wasm.imports import HostServices, PluginState, check_imports
from edge_agent.wasm.module import MAX_MODULE_BYTES, ModuleInfo, inspect
from edge_agent.wasm.modulefile import ModuleFile

MAX_REQUEST_BYTES = 16 << 20  # JSON takes some four times what ttRPC carries
_CAPTURE = Path(__file__).with_name("create_container_request.bin")  # containerd 2.1.9


def read_request(path: Path, method: str) -> Message:
    """A request in protobuf's binary form or as JSON (protobuf's mapping), told by content.

    ConfigError: the file is missing or no such request.
    """
    kind = message_types(method)[0]
    data = files.read(path, MAX_REQUEST_BYTES)
    if data is None:
        raise ConfigError(f"{path}: no such file")
    name = kind.DESCRIPTOR.name
    # Not told by the first byte: a serialized message may begin with a newline and "{".
    not_json = _no_json_object(data)
    if not_json is None:
        try:
            return json_format.Parse(data, kind(), max_recursion_depth=64)
        except json_format.ParseError as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"{path}: no {name} in JSON: {reason}") from error
    try:
        return kind.FromString(data)
    except (DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: neither JSON ({not_json}) nor a serialized {name}") from error


def _no_json_object(data: bytes) -> str | None:
    """Why these bytes are not an object in JSON, or None if they are."""
    try:
        return None if isinstance(json.loads(data), dict) else "not an object"
    except UnicodeDecodeError:
        return "not text"
    except json.JSONDecodeError as error:
        return str(error)
    except (ValueError, RecursionError):
        return "numbers or brackets without end"


def sample(method: str) -> Message:
    """A request of any method about one pod with one container."""
    captured = nri_pb2.CreateContainerRequest.FromString(_CAPTURE.read_bytes())
    pod, container = captured.pod, captured.container
    request = message_types(method)[0]()
    if isinstance(request, edge_pb2.OnTimerRequest | edge_pb2.OnPressureRequest):
        _read_board(request)
    if isinstance(request, nri_pb2.SynchronizeRequest):
        request.pods.append(pod)
        request.containers.append(container)
    for name, value in (("pod", pod), ("container", container)):
        if name in request.DESCRIPTOR.fields_by_name:
            getattr(request, name).CopyFrom(value)
    if isinstance(request, nri_pb2.UpdateContainerRequest | nri_pb2.UpdatePodSandboxRequest):
        request.linux_resources.CopyFrom(container.linux.resources)
    if isinstance(request, nri_pb2.ValidateContainerAdjustmentRequest):
        _adjust(request)
    return request


def message(method: str) -> Message:
    """An empty request."""
    return message_types(method)[0]()


def _read_board(request: edge_pb2.OnTimerRequest | edge_pb2.OnPressureRequest) -> None:
    """A board whose memory is short."""
    if isinstance(request, edge_pb2.OnTimerRequest):
        request.interval_ms = 30_000
    else:
        request.exceeded.add(reading="memory", value=2500, threshold=2000)
    memory, disk = request.board.memory, request.board.disk
    memory.some_10, memory.some_60, memory.some_300 = 2500, 1200, 300
    request.board.temperature = 61_000
    disk.free_bytes, disk.total_bytes = 2 << 30, 8 << 30


def _adjust(request: nri_pb2.ValidateContainerAdjustmentRequest) -> None:
    """The adjustment of one other plugin: an annotation, a variable and a device."""
    plugin = nri_pb2.PluginInstance(index="10", name="sample")
    request.plugins.append(plugin)
    request.adjust.annotations["sample.example.com/touched"] = "yes"
    request.adjust.env.add(key="SAMPLE", value="yes")
    request.adjust.linux.devices.add(path="/dev/gpiochip0", type="c", major=254)
    owners = request.owners.owners[request.container.id]
    for field, key in (
        (nri_pb2.Annotations, "sample.example.com/touched"),
        (nri_pb2.Env, "SAMPLE"),
        (nri_pb2.Devices, "/dev/gpiochip0"),
    ):
        owners.compound[field].owners[key] = f"{plugin.index}-{plugin.name}"


REGISTRATION_TIMEOUT_MS = 5000  # upstream's default; a guest may be curious


class WatchedState(PluginState):
    """A plugin's state whose content can be shown."""

    def __init__(self) -> None:
        super().__init__()
        self.content: dict[str, bytes] = {}

    def put(self, key: str, value: bytes) -> bool:
        kept = super().put(key, value)
        if kept and value:
            self.content[key] = value
        elif kept:
            self.content.pop(key, None)
        return kept


@dataclass(frozen=True)
class Runtime:
    """The runtime's name and versions, for the plugin."""

    name: str = "containerd"
    version: str = "v2.3.0"  # the first with NRI 0.12

    @property
    def known_events(self) -> int:
        return events.known_events(self.name, self.version, "")

    @property
    def nri_version(self) -> str:
        return NRI_VERSION if self.known_events == events.NEW_EVENTS else ""


@dataclass(frozen=True)
class PluginFile:
    """A module with its configuration and settings, as in a plugin folder."""

    path: Path
    wasm: bytes
    config: str
    config_path: Path | None
    settings: PluginSettings
    settings_path: Path | None

    @property
    def digest(self) -> Digest:
        """The module's digest."""
        return Digest.of(self.wasm)


def read_plugin(path: Path, config: Path | None, settings: Path | None) -> PluginFile:
    """Read NAME.wasm, and NAME.conf and NAME.toml unless others are named.

    ModuleError, StoreError, ConfigError: a file is missing, too large or wrong.
    """
    wasm = files.read(path, MAX_MODULE_BYTES)
    if wasm is None:
        raise ModuleError(f"{path}: no such file")
    config = config or _beside(path, ".conf")
    settings = settings or _beside(path, ".toml")
    return PluginFile(
        path,
        wasm,
        read_text(config) if config else "",
        config,
        load_plugin_settings(settings, read_text(settings), Limits())
        if settings
        else PluginSettings(),
        settings,
    )


def default_event(plugin: PluginFile) -> str:
    """CreateContainer, or the first other event that the plugin takes. ModuleError."""
    create = events.BY_METHOD["CreateContainer"]
    mask = events.servable(abi.methods(inspect(plugin.wasm)))
    return create.method if mask & create.bit or not mask else events.names(mask)[0]


def asked_events(
    plugin: PluginFile, words: Sequence[str], path: Path | None = None
) -> list[tuple[str, Message, str]]:
    """Method, request and where that is from, for each EVENT or EVENT=FILE.

    Without words it is the plugin's default event; `path` is the request where no FILE is named.
    ConfigError: there is no such event, or the file is no such request.
    """
    asked = []
    for word in words or [""]:
        name, _, file = word.partition("=")
        method = events.method_named(name) if name else default_event(plugin)
        if method is None:
            known = (events.export_name(each).removeprefix("plugin_") for each in events.BY_METHOD)
            raise ConfigError(f"no such event: {name}; there are {', '.join(known)}")
        source = Path(file) if file else path
        request = read_request(source, method) if source else sample(method)
        asked.append((method, request, str(source or "the built-in request")))
    return asked


def _beside(path: Path, suffix: str) -> Path | None:
    found = path.with_suffix(suffix)
    return found if found.is_file() else None


class Tryout:
    """A plugin on its way from file to instance; each step needs the one before.

    A context manager: everything it made goes at the end.
    """

    def __init__(self, plugin: PluginFile, engine: str = AUTO, *, count_fuel: bool = False) -> None:
        self.plugin = plugin
        limit = plugin.settings.limits.fuel
        self._fuel = limit or (MAX_FUEL if count_fuel else None)
        self.counts_fuel = self._fuel is not None
        self.fuel_used: dict[str, int] = {}  # by export, of its latest call, where it is counted
        self.lines: list[tuple[int, str]] = []
        self.state = WatchedState()
        limits = plugin.settings.limits
        self._log = GuestLog(
            lambda level, line: self.lines.append((level, line)),
            limits.log_lines_per_s,
            limits.log_line_bytes,
        )
        self.services = HostServices(self._log, self.state)
        self.functions: HostFunctions = self.services.functions()
        self.compile_s = 0.0
        self.was_kept = False  # from an earlier try: nothing was compiled
        self.artifact_bytes = 0
        self.wanted = 0  # the event mask that the plugin asked for; 0 is all
        self._engine_name = engine
        self._info: ModuleInfo | None = None
        self._module: Module | None = None
        self._instance: Instance | None = None

    def __enter__(self) -> "Tryout":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._instance is not None:
            self._instance.close()
        if self._module is not None:
            self._module.close()

    @property
    def info(self) -> ModuleInfo:
        """The module's imports and exports. ModuleError: not a module."""
        if self._info is None:
            self._info = inspect(self.plugin.wasm)
        return self._info

    @property
    def exports(self) -> frozenset[str]:
        """The methods of the guest ABI. ModuleError: not a plugin."""
        return abi.methods(self.info)

    @property
    def memory_bytes(self) -> int:
        return self._instance.memory_bytes if self._instance else 0

    def compile(self) -> None:
        """Compile in a child process, as the agent does. ModuleError, EngineError."""
        engine, _ = select_engine(self._engine_name)
        limits = self.plugin.settings.limits
        began = time.monotonic()
        source = ModuleFile(
            self.plugin.path,
            self.plugin.digest,
            self.info,
            limits.stack_bytes,
            self._fuel is not None,
        )
        with kept.folder() as folder:
            artifacts = Artifacts(folder)
            stored = artifacts.stored(engine, source)
            self.was_kept = stored is not None
            self._module = stored or artifacts.module(engine, source)
            self.compile_s = time.monotonic() - began
            made = (
                folder
                / "artifacts"
                / f"{artifacts.key(engine, source.digest, source.metered)}.artifact"
            )
            with suppress(FileNotFoundError):  # another try forgot it meanwhile; it is mapped
                os.utime(made)  # used now
                self.artifact_bytes = made.stat().st_size

    def start(self) -> None:
        """Instantiate and initialise. ModuleError, GuestFault."""
        assert self._module is not None
        limits = self.plugin.settings.limits
        check_imports(self.info, self.functions)
        try:
            self._instance = self._module.instantiate(
                Bounds(limits.memory_bytes, limits.reply_bytes, self._fuel),
                self.functions,
                limits.start_ms / 1000,
            )
        finally:
            self._log.flush()

    def configure(self, runtime: Runtime) -> None:
        """Configure, the first request of a runtime. GuestError, GuestFault."""
        if events.EXPORTS[events.CONFIGURE] not in self.exports:
            return
        request = nri_pb2.ConfigureRequest(
            config=self.plugin.config,
            runtime_name=runtime.name,
            runtime_version=runtime.version,
            registration_timeout=REGISTRATION_TIMEOUT_MS,
            request_timeout=DEFAULT_REQUEST_TIMEOUT_MS,
            NRI_version=runtime.nri_version,
        )
        reply = self.call(events.EXPORTS[events.CONFIGURE], request.SerializeToString())
        try:
            self.wanted = nri_pb2.ConfigureResponse.FromString(reply).events
        except DecodeError as error:
            raise GuestFault("abi", "its reply to Configure is no ConfigureResponse") from error

    def synchronize(self, request: bytes) -> bytes:
        """The reply to the state of the runtime; empty if the guest does not ask for it."""
        export = events.EXPORTS[events.SYNCHRONIZE]
        return self.call(export, request) if export in self.exports else b""

    def subscribed(self, runtime: Runtime) -> int:
        """The events that the runtime would send: wanted, known to it and served."""
        known = runtime.known_events
        return (self.wanted or known) & known & events.servable(self.exports)

    def call(self, export: str, request: bytes) -> bytes:
        """One call within the agent's time limit. GuestError, GuestFault."""
        assert self._instance is not None
        deadline_ms = min(self.plugin.settings.limits.deadline_ms, DEFAULT_REQUEST_TIMEOUT_MS // 2)
        try:
            return self._instance.call(export, request, deadline_ms / 1000)
        finally:
            self._log.flush()
            if self._fuel is not None:
                self.fuel_used[export] = self._instance.fuel_used
