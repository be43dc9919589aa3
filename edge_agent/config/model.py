"""What can be configured, with the defaults, and how the settings of a plugin are read.

Values of these types have been checked already.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

from edge_agent import VERBS, Verb
from edge_agent.config import pressure
from edge_agent.config.document import Document
from edge_agent.config.table import (
    MAX_SOCKET_PATH_BYTES,
    PATH_PATTERN,
    TEXT_FORM,
    TEXT_PATTERN,
    Table,
)
from edge_agent.errors import ConfigError

KIB = 1024
MIB = 1024 * KIB

Engine = Literal["auto", "wasmtime", "wasmer", "wasmi"]
EarlierEngine = Literal["wasm3"]  # another is taken, wasm/engine_selection.py
Encoding = Literal["msgpack", "json"]
Durability = Literal["delayed", "always"]
FailurePolicy = Literal["Fail", "Ignore"]
Mode = Literal["enforce", "monitor"]
InstanceKind = Literal["lasting", "per-event"]
LogFormat = Literal["auto", "human", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
Report = Literal["all", "changes", "errors"]
Source = Literal["mqtt", "https", "oci"]
Compiled = Literal["accept", "refuse"]

ENFORCE: Mode = "enforce"
MONITOR: Mode = "monitor"
LASTING: InstanceKind = "lasting"
PER_EVENT: InstanceKind = "per-event"

# What a plugin's reply may touch: the fields of NRI's ContainerAdjustment and of its
# `linux` part, and the two things a reply can ask for beside an adjustment.
PERMISSIONS = (
    "annotations",
    "mounts",
    "env",
    "hooks",
    "rlimits",
    "cdi_devices",
    "args",
    "linux.devices",
    "linux.resources",
    "linux.cgroups_path",
    "linux.oom_score_adj",
    "linux.io_priority",
    "linux.seccomp_policy",
    "linux.namespaces",
    "linux.sysctl",
    "linux.net_devices",
    "linux.scheduler",
    "linux.rdt",
    "linux.memory_policy",
    "update",
    "evict",
)

# What a recording of events can hide: fields of containers and pods, and of replies that adjust
# containers. KIND, or KIND:GLOB for some names.
REDACTABLE = ("env", "annotations", "labels", "args")
REDACTION_PATTERN = rf"(?:{'|'.join(REDACTABLE)})(?::[!-+\--~]{{1,128}})?"
REDACTION_FORM = f"{', '.join(REDACTABLE)}, or one of them with names, such as annotations:secret*"
# kubectl keeps a pod's whole manifest, values of variables included, in an annotation.
MAX_HIDDEN = 16  # rules, of a node's configuration and of a request each
HIDDEN_BY_DEFAULT = ("env", "annotations:kubectl.kubernetes.io/last-applied-configuration")

# What the runtimes call themselves in Configure; any other one is named by its socket.
RUNTIMES = ("containerd", "cri-o", "docker")


@dataclass(frozen=True)
class Limits:
    """What one plugin may use. The agent's are the defaults of each plugin's own."""

    memory_bytes: int = 32 * MIB  # linear memory
    deadline_ms: int = 1000  # one call; in effect never above half of the runtime's time-out
    stack_bytes: int = 512 * KIB
    reply_bytes: int = 4 * MIB  # ttRPC carries no more
    log_lines_per_s: int = 50
    log_line_bytes: int = 4 * KIB
    start_ms: int = 5000  # `_initialize`, which runs while no runtime waits
    fuel: int = 0  # instructions of one call; 0: no limit, and they are not counted


@dataclass(frozen=True)
class NriConfig:
    """Where runtimes listen. A missing socket is waited for, never an error."""

    sockets: tuple[Path, ...] = (
        Path("/var/run/nri/nri.sock"),  # containerd, CRI-O
        Path("/var/run/docker/nri.sock"),  # Docker Engine, where docs/runtimes.md puts it
    )
    reconnect_min_s: float = 0.25
    """The longest wait for an absent runtime in the first 10 s, see host/runtime_endpoint."""
    reconnect_max_s: float = 2.0
    """And later. Neither counts above these defaults."""


@dataclass(frozen=True)
class LogConfig:
    """`auto` is human on a terminal and JSON lines elsewhere."""

    level: LogLevel = "info"
    format: LogFormat = "auto"


class Broker(NamedTuple):
    """One MQTT broker to try."""

    host: str  # a name or an address; an IPv6 address without its brackets
    port: int
    tls: bool

    @property
    def url(self) -> str:
        """As an operator writes it, with its port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


@dataclass(frozen=True)
class MqttConfig:
    """How results leave this node. Files are named here and read where they are needed."""

    brokers: tuple[Broker, ...]  # tried in turn
    client_id: str
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None  # None: the system's certificate authorities
    cert_file: Path | None = None
    key_file: Path | None = None
    tls_server_name: str | None = None  # None: the broker's host
    keepalive_s: int = 60
    encoding: Encoding = "msgpack"
    queue_records: int = 10_000  # in memory
    queue_bytes: int = 16 * MIB  # on disk; 0: nothing is kept there
    # "delayed": while a broker is there a result is written only if it is not acknowledged within
    # `durability_delay_s`; "always": each is, before it is sent.
    durability: Durability = "delayed"
    durability_delay_s: float = 5.0
    batch_ms: int = 250
    batch_records: int = 100
    reconnect_min_s: float = 1.0
    reconnect_max_s: float = 60.0
    metrics_interval_s: float = 60.0


@dataclass(frozen=True)
class UpdatesConfig:
    """Signed deployments from the fleet's broker: whose word counts, and what is tried how long."""

    trust_dir: Path = Path("/etc/edge-agent/trust")  # *.pem; a rotation replaces them for good
    threshold: int = 1  # distinct keys that must have signed
    sources: tuple[Source, ...] = ("mqtt", "https", "oci")
    registry_auth_file: Path | None = None  # logins for oci sources, as docker and oras write them
    max_plugin_bytes: int = 64 * MIB
    # Machine code that a deployment names beside a module: no engine bounds what it does.
    compiled: Compiled = "refuse"
    # A new release is kept when it has served this long, and is rejected, with the one before it
    # coming back, when it failed more often than allowed.
    probation_s: float = 60.0
    probation_events: int = 20  # so many answers end it early, after a tenth of the time
    allowed_failures: int = 0


@dataclass(frozen=True)
class RequestsConfig:
    """What the fleet may ask this node to do at once (docs/fleet-protocol.md, "Requests")."""

    # "record" hands out what containers are: only where the node's own configuration says so.
    allow: tuple[Verb, ...] = tuple(verb for verb in VERBS if verb != "record")
    # Those for which no signature is needed: every client that may publish has them done.
    unsigned: tuple[Verb, ...] = ("sync",)
    # In every recording for the fleet, beside what the request asks to hide.
    record_hides: tuple[str, ...] = HIDDEN_BY_DEFAULT


@dataclass(frozen=True)
class AgentConfig:
    """Everything that is configured for `edge-agent run`."""

    node: str
    fleet: str = "default"
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    plugin_dir: Path = Path("/etc/edge-agent/plugins")
    state_dir: Path = Path("/var/lib/edge-agent")
    control_socket: Path = Path("/run/edge-agent/control.sock")
    engine: Engine | EarlierEngine = "auto"
    report: Report = "all"
    ready_wait_s: float = 30.0  # at most, of a start for its plugins to be registered
    nri: NriConfig = NriConfig()
    limits: Limits = Limits()
    log: LogConfig = LogConfig()
    mqtt: MqttConfig | None = None  # None: the agent works alone
    updates: UpdatesConfig | None = None  # None: plugins come from plugin_dir only
    requests: RequestsConfig = RequestsConfig()


@dataclass(frozen=True)
class PluginSettings:
    """What `NN-name.toml` beside a plugin may say."""

    limits: Limits = Limits()
    # NRI itself fails a request whose plugin answers with an error, so does the default.
    failure_policy: FailurePolicy = "Fail"
    # Names of PERMISSIONS, parents such as `linux` written out; None: everything, as in NRI.
    permissions: tuple[str, ...] | None = None
    report: Report = "all"
    # Where it is registered: names of RUNTIMES and paths of sockets. None: at each runtime that
    # carries what it has permission for (edge_agent.nri.capabilities).
    runtimes: tuple[str, ...] | None = None
    # "monitor": it is asked, and nothing that it answers is done (docs/adr/0057).
    mode: Mode = ENFORCE
    # "per-event": each event has an instance of its own (docs/adr/0060).
    instance: InstanceKind = LASTING
    timer: float = 0.0  # seconds between two calls of `edge_on_timer`; 0: none
    # Keys and values of `[pressure]`, checked (edge_agent.config.pressure).
    pressure: tuple[tuple[str, str], ...] = ()

    @property
    def one_shot(self) -> bool:
        """Whether each event has an instance of its own."""
        return self.instance == PER_EVENT

    @property
    def noticed(self) -> bool:
        """Whether it is to be called by time or pressure."""
        return bool(self.timer or self.pressure)

    @property
    def monitored(self) -> bool:
        """Whether nothing that the plugin asks for is done."""
        return self.mode == MONITOR

    @property
    def must_not_be_missed(self) -> bool:
        """Whether containers are refused while the plugin cannot answer."""
        return self.failure_policy == "Fail" and not self.monitored


EVERYTHING = "*"  # of permissions
MAX_FUEL = 10**15  # instructions: no processor runs as many within the longest deadline


def load_plugin_settings(
    path: Path, text: str, defaults: Limits, report: Report = "all"
) -> PluginSettings:
    """The settings in `text`, the content of `path`; what it leaves out comes from the agent.

    Raises ConfigError with every problem of the file.
    """
    document = Document(path, text)
    root = Table(document)
    settings = read_settings(root, defaults, report)
    root.end()
    document.check()
    return settings


def read_settings(table: Table, defaults: Limits, report: Report) -> PluginSettings:
    """The settings among the keys of a table, which may have others."""
    return PluginSettings(
        limits=read_limits(table.table("limits"), defaults),
        failure_policy=_read_failure_policy(table),
        permissions=_read_permissions(table),
        report=table.choice("report", Report, report),
        runtimes=_read_runtimes(table),
        mode=_read_mode(table),
        instance=table.choice("instance", InstanceKind, PluginSettings.instance),
        timer=table.seconds("timer", 0.0, at_least=pressure.LEAST_S, at_most=pressure.MOST_S),
        pressure=_read_pressure(table),
    )


def read_policy(path: Path, text: str) -> PluginSettings:
    """What a text that `load_plugin_settings` refuses for another key says about the time in which
    the plugin does not run; everything else has its default.

    The defaults where that cannot be read either: what a plugin is there to prevent must not
    happen because its file is damaged.
    """
    try:
        table = Table(Document(path, text))
    except ConfigError:
        return PluginSettings()
    return PluginSettings(failure_policy=_read_failure_policy(table), mode=_read_mode(table))


def _read_failure_policy(table: Table) -> FailurePolicy:
    return table.choice("failure_policy", FailurePolicy, PluginSettings.failure_policy)


def _read_pressure(table: Table) -> tuple[tuple[str, str], ...]:
    given = table.table("pressure")
    pairs = tuple(sorted(given.string_map(pattern=TEXT_PATTERN, form=TEXT_FORM).items()))
    if pairs:
        try:
            pressure.read(pairs)
        except ValueError as error:
            key, _, problem = str(error).partition(": ")
            given.problem(key, problem)
            return ()
    return pairs


def _read_mode(table: Table) -> Mode:
    return table.choice("mode", Mode, PluginSettings.mode)


def read_limits(table: Table, defaults: Limits) -> Limits:
    """A `limits` table over `defaults`."""
    limits = Limits(
        # From one Wasm page to what the largest of small boards could spare.
        memory_bytes=table.size(
            "memory", defaults.memory_bytes, at_least=64 * KIB, at_most=1024 * MIB
        ),
        deadline_ms=table.milliseconds(
            "deadline", defaults.deadline_ms, at_least=1, at_most=60_000
        ),
        # The engine runs the guest on the thread's own stack, 8 MiB in most systems.
        stack_bytes=table.size("stack", defaults.stack_bytes, at_least=32 * KIB, at_most=4 * MIB),
        # ttRPC carries no message above 4 MiB.
        reply_bytes=table.size("reply", defaults.reply_bytes, at_least=KIB, at_most=4 * MIB),
        log_lines_per_s=table.count(
            "log_lines_per_s", defaults.log_lines_per_s, at_least=0, at_most=10_000
        ),
        log_line_bytes=table.size(
            "log_line", defaults.log_line_bytes, at_least=64, at_most=64 * KIB
        ),
        start_ms=table.milliseconds("start", defaults.start_ms, at_least=10, at_most=300_000),
        fuel=table.count("fuel", defaults.fuel, at_least=0, at_most=MAX_FUEL),
    )
    table.end()
    return limits


def _read_runtimes(root: Table) -> tuple[str, ...] | None:
    """Names of RUNTIMES and absolute paths of sockets."""
    names = root.texts("runtimes", None, pattern=PATH_PATTERN, form="a name or a path")
    if names is None:
        return None
    if not names:
        root.problem("runtimes", "must name one at least; leave the key out for every runtime")
    for name in names:
        if len(name.encode(errors="replace")) > MAX_SOCKET_PATH_BYTES:
            root.problem("runtimes", f"a socket's path has {MAX_SOCKET_PATH_BYTES} bytes at most")
        elif not name.startswith("/") and name not in RUNTIMES:
            root.unknown_word("runtimes", name, (*RUNTIMES, "/the/path/of/its/socket"))
    if len(set(names)) < len(names):
        root.problem("runtimes", "names a runtime twice")
    return names


def _read_permissions(root: Table) -> tuple[str, ...] | None:
    """Names of PERMISSIONS in its order; a parent stands for all that is below it. None:
    everything, be it written or not."""
    names = root.texts("permissions", None)
    if names is None or list(names) == [EVERYTHING]:
        return None
    granted = set()
    for name in names:
        if name == EVERYTHING:
            root.problem("permissions", f'"{EVERYTHING}" is everything, so it stands alone')
            continue
        covered = [each for each in PERMISSIONS if each == name or each.startswith(f"{name}.")]
        if not covered:
            root.unknown_word("permissions", name, (*PERMISSIONS, "linux"))
        granted.update(covered)
    return tuple(name for name in PERMISSIONS if name in granted)
