"""Reads `agent.toml`."""

import os
import re
from pathlib import Path
from types import MappingProxyType

from edge_agent import Verb
from edge_agent.config.document import Document, read_text
from edge_agent.config.model import (
    KIB,
    MAX_HIDDEN,
    MIB,
    REDACTION_FORM,
    REDACTION_PATTERN,
    AgentConfig,
    Broker,
    Compiled,
    Durability,
    EarlierEngine,
    Encoding,
    Engine,
    LogConfig,
    LogFormat,
    LogLevel,
    MqttConfig,
    NriConfig,
    Report,
    RequestsConfig,
    Source,
    UpdatesConfig,
    read_limits,
)
from edge_agent.config.table import Table
from edge_agent.config.units import format_size
from edge_agent.text import printable

# A level of an MQTT topic that every broker takes (the fleet protocol's own rule).
NAME_PATTERN = r"[a-z0-9][a-z0-9._-]{0,62}"
NAME_FORM = "1 to 63 of a-z, 0-9, '.', '_' and '-', starting with a letter or digit"
# As in Kubernetes, so that a node's labels can be carried over.
LABEL_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._/-]{0,252}"
LABEL_FORM = "1 to 253 letters, digits, '.', '_', '-' and '/', starting with a letter or digit"
URL_FORM = '"mqtt://host:1883" or "mqtts://host:8883" (TLS)'
MIN_QUEUE_BYTES = 2 * MIB
MAX_KEEPALIVE_S = 65535  # a 16-bit field of CONNECT
MAX_DURABILITY_DELAY_S = 30  # as long as what was written waits for the card (mqtt/journal.py)
MAX_KEYS = 16  # of a trust set: each costs a verification of 1 ms or more on a board
MAX_PLUGIN_BYTES = 64 * MIB  # what the module reader takes (edge_agent.wasm.module)
_URL = re.compile(r"(mqtts?)://(\[[0-9A-Fa-f:.]+\]|[^\s:/?#@\[\]]+)(?::(\d{1,5}))?/?")
_DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}


def load_agent_config(path: Path) -> AgentConfig:
    """The configuration in the file `path`; raises ConfigError with all that is wrong."""
    return parse_agent_config(path, read_text(path), hostname=os.uname().nodename)


def parse_agent_config(path: Path, text: str, *, hostname: str) -> AgentConfig:
    """The configuration in `text`; `path` names it and anchors relative paths."""
    document = Document(path, text)
    config = read_agent(Table(document), node_name(hostname))
    document.check()
    return config


def read_agent(root: Table, hostname: str | None) -> AgentConfig:
    """The whole file as a configuration."""
    node = root.text("node", hostname, pattern=NAME_PATTERN, form=NAME_FORM)
    if node is None:
        root.problem("node", f"must be set, the host's name gives none: {NAME_FORM}")
        node = "unnamed"
    config = AgentConfig(
        node=node,
        fleet=root.text("fleet", AgentConfig.fleet, pattern=NAME_PATTERN, form=NAME_FORM),
        labels=MappingProxyType(
            root.table("labels").string_map(pattern=LABEL_PATTERN, form=LABEL_FORM)
        ),
        plugin_dir=root.path("plugin_dir", AgentConfig.plugin_dir),
        state_dir=root.path("state_dir", AgentConfig.state_dir),
        control_socket=root.socket("control_socket", AgentConfig.control_socket),
        engine=root.choice("engine", Engine, AgentConfig.engine, earlier=EarlierEngine),
        report=root.choice("report", Report, AgentConfig.report),
        ready_wait_s=root.seconds("ready_wait", AgentConfig.ready_wait_s, at_least=0, at_most=600),
        nri=_read_nri(root.table("nri")),
        limits=read_limits(root.table("limits"), AgentConfig.limits),
        log=_read_log(root.table("log")),
        mqtt=_read_mqtt(root.table("mqtt"), node) if "mqtt" in root else None,
        updates=_read_updates(root.table("updates")) if "updates" in root else None,
        requests=_read_requests(root.table("requests")),
    )
    root.end()
    return config


def node_name(hostname: str) -> str | None:
    """A node's name made of its host's, or None if nothing usable is in it."""
    name = re.sub(r"[^a-z0-9._-]+", "-", hostname.lower()).lstrip("._-")[:63].rstrip("._-")
    return name or None


def _read_nri(table: Table) -> NriConfig:
    least, most = _read_backoff(table, NriConfig.reconnect_min_s, NriConfig.reconnect_max_s)
    nri = NriConfig(
        sockets=table.sockets("sockets", NriConfig.sockets),
        reconnect_min_s=least,
        reconnect_max_s=most,
    )
    table.end()
    return nri


def _read_log(table: Table) -> LogConfig:
    log = LogConfig(
        level=table.choice("level", LogLevel, LogConfig.level),
        format=table.choice("format", LogFormat, LogConfig.format),
    )
    table.end()
    return log


def _read_backoff(table: Table, least: float, most: float) -> tuple[float, float]:
    """First and longest wait between two attempts to connect."""
    least = table.seconds("reconnect_min", least, at_least=0.01, at_most=3600)
    most = table.seconds("reconnect_max", most, at_least=0.01, at_most=3600)
    if most < least:
        table.problem("reconnect_max", "must not be shorter than reconnect_min")
    return least, most


def _read_mqtt(table: Table, node: str) -> MqttConfig:
    least, most = _read_backoff(table, MqttConfig.reconnect_min_s, MqttConfig.reconnect_max_s)
    mqtt = MqttConfig(
        brokers=read_brokers(table),
        client_id=table.text("client_id", node),
        username=table.text("username", None),
        password_file=table.path("password_file", None),
        ca_file=table.path("ca_file", None),
        cert_file=table.path("cert_file", None),
        key_file=table.path("key_file", None),
        tls_server_name=table.text("tls_server_name", None),
        keepalive_s=round(
            table.seconds("keepalive", MqttConfig.keepalive_s, at_least=5, at_most=MAX_KEEPALIVE_S)
        ),
        encoding=table.choice("encoding", Encoding, MqttConfig.encoding),
        queue_records=table.count(
            "queue_records", MqttConfig.queue_records, at_least=10, at_most=1_000_000
        ),
        queue_bytes=_read_queue_bytes(table),
        durability=table.choice("durability", Durability, MqttConfig.durability),
        durability_delay_s=table.seconds(
            "durability_delay",
            MqttConfig.durability_delay_s,
            at_least=0.1,
            at_most=MAX_DURABILITY_DELAY_S,
        ),
        batch_ms=table.milliseconds("batch", MqttConfig.batch_ms, at_least=0, at_most=60_000),
        batch_records=table.count(
            "batch_records", MqttConfig.batch_records, at_least=1, at_most=1000
        ),
        reconnect_min_s=least,
        reconnect_max_s=most,
        metrics_interval_s=table.seconds(
            "metrics_interval", MqttConfig.metrics_interval_s, at_least=1, at_most=86_400
        ),
    )
    check_credentials(table, mqtt)
    table.end()
    return mqtt


def _read_updates(table: Table) -> UpdatesConfig:
    default = UpdatesConfig()
    updates = UpdatesConfig(
        trust_dir=table.path("trust_dir", default.trust_dir),
        threshold=table.count("threshold", default.threshold, at_least=1, at_most=MAX_KEYS),
        sources=table.words("sources", Source, default.sources),
        registry_auth_file=table.path("registry_auth_file", None),
        max_plugin_bytes=table.size(
            "max_plugin", default.max_plugin_bytes, at_least=KIB, at_most=MAX_PLUGIN_BYTES
        ),
        compiled=table.choice("compiled", Compiled, default.compiled),
        probation_s=table.seconds("probation", default.probation_s, at_least=1, at_most=86_400),
        probation_events=table.count(
            "probation_events", default.probation_events, at_least=1, at_most=1_000_000
        ),
        allowed_failures=table.count(
            "allowed_failures", default.allowed_failures, at_least=0, at_most=1000
        ),
    )
    table.end()
    return updates


def _read_requests(table: Table) -> RequestsConfig:
    default = RequestsConfig()
    requests = RequestsConfig(
        allow=table.words("allow", Verb, default.allow, at_least=0),
        unsigned=table.words("unsigned", Verb, default.unsigned, at_least=0),
        record_hides=table.texts(
            "record_hides", default.record_hides, pattern=REDACTION_PATTERN, form=REDACTION_FORM
        ),
    )
    if len(requests.record_hides) > MAX_HIDDEN:
        table.problem("record_hides", f"must have at most {MAX_HIDDEN} entries")
    if "record" in requests.unsigned:
        table.problem("unsigned", "cannot name record, which hands out what containers are")
    table.end()
    return requests


def _read_queue_bytes(table: Table) -> int:
    """Zero, or enough for the outbox to turn over its files."""
    size = table.size("queue", MqttConfig.queue_bytes, at_least=0, at_most=4096 * MIB)
    if 0 < size < MIN_QUEUE_BYTES:
        table.problem("queue", f"must be 0 or at least {format_size(MIN_QUEUE_BYTES)}")
    return size


def read_brokers(table: Table) -> tuple[Broker, ...]:
    """The brokers at `url` or `urls`, in the order to try."""
    if "url" in table and "urls" in table:
        table.problem("urls", "stands beside url; keep one of the two")
    one, many = table.text("url", None), table.texts("urls", None)
    urls = [("url", one)] if one is not None else [("urls", url) for url in many or ()]
    if not urls and "url" not in table:
        key = "urls" if "urls" in table else "url"
        table.problem(key, f"must name the broker: {URL_FORM}")
    brokers = [_read_broker(table, key, url) for key, url in urls]
    return tuple(broker for broker in brokers if broker)


def _read_broker(table: Table, key: str, url: str) -> Broker | None:
    match = _URL.fullmatch(url)
    port = int(match[3] or _DEFAULT_PORTS[match[1]]) if match else 0
    if match and 0 < port < 65536:
        return Broker(match[2].strip("[]").lower(), port, match[1] == "mqtts")
    hint = ""
    if "@" in url:  # a password might stand in it: do not print it
        hint = "; user name and password go into username and password_file"
    elif "://" not in url:
        hint = f'; is "mqtt://{printable(url[:60])}" meant?'
    elif url.startswith(("ws:", "wss:", "http")):
        hint = "; MQTT over WebSocket is not supported"
    table.problem(key, f"must be {URL_FORM}{hint}")
    return None


def check_credentials(table: Table, mqtt: MqttConfig) -> None:
    """Settings that only make sense together."""
    if mqtt.password_file and not mqtt.username:
        table.problem("password_file", "needs username beside it")
    if mqtt.cert_file and not mqtt.key_file:
        table.problem("cert_file", "needs key_file beside it")
    if mqtt.key_file and not mqtt.cert_file:
        table.problem("key_file", "needs cert_file beside it")
    if not mqtt.brokers or any(broker.tls for broker in mqtt.brokers):
        return
    for key in ("ca_file", "cert_file", "key_file", "tls_server_name"):
        if key in table:
            table.problem(key, 'is for TLS, and no broker\'s URL starts with "mqtts://"')
