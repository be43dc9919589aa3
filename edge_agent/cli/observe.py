"""The facts that `doctor` looks at, and the form of its findings. Nothing here disturbs a runtime.

A connection to an NRI socket that does not register at once holds back every other
plugin of that runtime, so the kernel is asked who listens there.
"""

import os
import shutil
import socket
import stat
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_agent.cli.runtimefiles import FileKey, file_key, listening_files, listening_paths
from edge_agent.cli.runtimes import Runtime, installed_runtimes
from edge_agent.config import AgentConfig, Broker, MqttConfig, load_agent_config
from edge_agent.config.units import Validity
from edge_agent.errors import (
    ConfigError,
    ControlError,
    CryptoError,
    EngineError,
    LinkError,
    NotRunningError,
)
from edge_agent.node.exposure import Exposed, exposed, files_of

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One line of doctor: level, subject, observation, and what to do."""

    level: Level
    subject: str
    text: str
    todo: str = ""


# For TCP and TLS each; a broker at the far end of a mobile link needs a second or two.
BROKER_SECONDS = 5.0


@dataclass(frozen=True)
class SocketFacts:
    """A configured NRI socket."""

    path: Path
    exists: bool
    is_socket: bool = False
    listening: bool = False
    permitted: bool = False
    by_name: bool = False  # `listening` goes by the path only: it may be another's of that name
    elsewhere: bool = False  # who listens on this path listens in another mount namespace


@dataclass(frozen=True)
class FolderFacts:
    """A folder that the agent needs."""

    path: Path
    exists: bool
    readable: bool
    writable: bool  # or, where it is absent, can be made
    free_bytes: int  # on the disk that it is or would be on


@dataclass(frozen=True)
class Facts:
    """All facts."""

    euid: int
    now: float
    config_path: Path
    config: AgentConfig  # the defaults where config_problem says why there is none
    config_problem: str | None
    engine: str | None  # which, and why this one
    engine_problem: str | None
    engine_instead: str  # what to write for one of earlier versions, or ""
    runtimes: tuple[Runtime, ...]
    sockets: tuple[SocketFacts, ...]
    plugin_dir: FolderFacts
    state_dir: FolderFacts
    plugins: tuple[str, ...]  # NN-name of those that can be loaded
    plugin_problems: dict[str, str]
    brokers: dict[str, str | None]  # by URL: why it cannot be reached; none if one is in use
    trusted: str  # whose signatures count here; empty: no updates, or a problem
    trust_problem: str | None
    status: dict[str, object] | None  # what the running agent answers
    status_problem: str | None  # why a running agent does not answer
    config_there: bool = True  # the file, be it right or wrong
    exposed: tuple[Exposed, ...] = ()  # what others than root and the agent may change
    certificate: Validity | None = None  # of [mqtt] cert_file, if it can be read
    unrestricted: tuple[str, ...] = ()  # NN-name of those whose NN-name.toml has no permissions


def observe(config_path: Path) -> Facts:
    """Collect all facts; takes as long as the brokers take to answer."""
    config, config_problem = _config(config_path)
    engine, engine_problem, engine_instead = _engine(config)
    plugins, plugin_problems = _plugins(config)
    trusted, trust_problem = _trust(config)
    status, status_problem = _status(config)
    return Facts(
        euid=os.geteuid(),
        now=time.time(),
        config_path=config_path,
        config=config,
        config_problem=config_problem,
        engine=engine,
        engine_problem=engine_problem,
        engine_instead=engine_instead,
        runtimes=tuple(installed_runtimes()),
        sockets=tuple(look_at_socket(path) for path in config.nri.sockets),
        plugin_dir=look_at_folder(config.plugin_dir),
        state_dir=look_at_folder(config.state_dir),
        plugins=plugins,
        plugin_problems=plugin_problems,
        brokers=_brokers(config, status),
        trusted=trusted,
        trust_problem=trust_problem,
        status=status,
        status_problem=status_problem,
        config_there=config_path.exists(),
        exposed=tuple(exposed(files_of(config, config_path), _agents_user(config))),
        certificate=_certificate(config),
        unrestricted=tuple(each for each in plugins if not _restricted(config.plugin_dir, each)),
    )


def look_at_socket(
    path: Path,
    unix_sockets: Path = Path("/proc/net/unix"),
    files: Callable[[], set[FileKey] | None] = listening_files,
) -> SocketFacts:
    """The facts about an NRI socket that are known without connecting."""
    try:
        status = path.stat()
    except PermissionError:
        return SocketFacts(path, exists=True, is_socket=True)
    except OSError:
        return SocketFacts(path, exists=False)
    by_path = path.resolve() in listening_paths(unix_sockets)
    listened = files()
    listening = by_path if listened is None else file_key(status) in listened
    return SocketFacts(
        path,
        exists=True,
        is_socket=stat.S_ISSOCK(status.st_mode),
        listening=listening,
        permitted=os.access(path, os.W_OK),
        by_name=listened is None,
        elsewhere=by_path and not listening,
    )


def look_at_folder(path: Path) -> FolderFacts:
    """Facts about a folder; if it is absent, whether it can be made."""
    exists = path.is_dir()
    there = path
    while not there.is_dir():
        there = there.parent
    return FolderFacts(
        path,
        exists=exists,
        readable=exists and os.access(path, os.R_OK | os.X_OK),
        writable=os.access(there, os.W_OK | os.X_OK) and (exists or not path.exists()),
        free_bytes=shutil.disk_usage(there).free,
    )


def try_broker(config: MqttConfig, broker: Broker) -> str | None:
    """Connect over TCP, and TLS if the URL says so; the reason of a failure, or None.

    No MQTT is spoken: a CONNECT would end the running agent's session.
    """
    from edge_agent.mqtt.client import explain, tls_context

    try:
        with socket.create_connection((broker.host, broker.port), BROKER_SECONDS) as connection:
            if broker.tls:
                tls_context(config).wrap_socket(connection, server_hostname=broker.host).close()
    except (OSError, ValueError) as error:
        return explain(error)
    except LinkError as error:
        return str(error)
    return None


def _config(path: Path) -> tuple[AgentConfig, str | None]:
    try:
        return load_agent_config(path), None
    except ConfigError as error:
        return AgentConfig(node="unnamed"), str(error)


def _engine(config: AgentConfig) -> tuple[str | None, str | None, str]:
    from edge_agent.wasm.engine_selection import replacement_advice, select_engine

    try:
        return select_engine(config.engine, advice=True)[1], None, replacement_advice(config.engine)
    except EngineError as error:
        return None, str(error), replacement_advice(config.engine)


def _plugins(config: AgentConfig) -> tuple[tuple[str, ...], dict[str, str]]:
    from edge_agent.node.plugin_sources import PluginFolder

    if not config.plugin_dir.is_dir():
        return (), {}
    scan = PluginFolder(config.plugin_dir, config.limits, config.report).scan()
    return tuple(scan.releases), scan.errors


def _agents_user(config: AgentConfig) -> int | None:
    """The agent's user: the owner of its socket or, if it does not run, of its state."""
    for path in (config.control_socket, config.state_dir):
        try:
            return path.stat().st_uid
        except OSError:
            continue
    return None


def _restricted(folder: Path, identity: str) -> bool:
    """Whether the plugin's settings have `permissions`."""
    try:
        values = tomllib.loads((folder / f"{identity}.toml").read_text())
    except (OSError, ValueError):
        return False
    return "permissions" in values


def _brokers(config: AgentConfig, status: dict[str, object] | None) -> dict[str, str | None]:
    """The problems of the brokers; none is tried while the agent is connected."""
    mqtt = status.get("mqtt") if status else None
    if config.mqtt is None or (isinstance(mqtt, dict) and mqtt.get("state") == "connected"):
        return {}
    return {broker.url: try_broker(config.mqtt, broker) for broker in config.mqtt.brokers}


def _trust(config: AgentConfig) -> tuple[str, str | None]:
    """The first trusted keys, and whether signatures can be checked here."""
    if config.updates is None:
        return "", None
    from edge_agent.fleet import trustfiles
    from edge_agent.fleet_protocol.keys import verify

    try:
        trust = trustfiles.read_root(
            config.updates.trust_dir, fleet=config.fleet, threshold=config.updates.threshold
        )
        for key in trust.keys:
            verify(key, b"", bytes(64))  # needs what checks signatures
    except (ConfigError, CryptoError) as error:
        return "", str(error)
    names = ", ".join(key.keyid[:12] for key in trust.keys)
    return f"{trust.threshold} of {len(trust.keys)} keys must sign: {names}", None


def _certificate(config: AgentConfig) -> Validity | None:
    if config.mqtt is None or config.mqtt.cert_file is None:
        return None
    from edge_agent.mqtt import certificate

    try:
        return certificate.read(config.mqtt.cert_file)
    except ConfigError:
        return None


def _status(config: AgentConfig) -> tuple[dict[str, object] | None, str | None]:
    from edge_agent.control import ask

    try:
        return ask(config.control_socket, "status"), None
    except NotRunningError:
        return None, None
    except ControlError as error:
        return None, str(error)
