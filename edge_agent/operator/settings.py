"""Reads `fleet.toml`: the fleet's name, its brokers and its trusted keys."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from edge_agent.config import Broker, MqttConfig
from edge_agent.config.agent import (
    MAX_KEYS,
    NAME_FORM,
    NAME_PATTERN,
    check_credentials,
    read_brokers,
)
from edge_agent.config.document import Document
from edge_agent.config.table import PATH_PATTERN, Table
from edge_agent.errors import OperatorError
from edge_agent.fleet_protocol import form
from edge_agent.operator.tool_client import client_id
from edge_agent.validity import Validity

# A key's name is that of its files: NAME.key and NAME.pem.
KEY_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}"
KEY_FORM = "1 to 63 letters, digits, '.', '_', '@' and '-', starting with a letter or digit"
MAX_TRUST_VERSION = 1_000_000


@dataclass(frozen=True)
class FleetSettings:
    """The values of `fleet.toml`. `keys` are names: trust/NAME.pem in the fleet's folder."""

    name: str
    mqtt: MqttConfig
    keys: tuple[str, ...]
    threshold: int = 1
    trust_version: int = 1
    validity: Validity | None = None  # of the trust set; None: it does not expire
    epoch: int = 0  # the trust set's version that began the present count of generations
    require_signed_states: bool | None = None  # None: once a node is enrolled

    def for_broker(self, broker: Broker) -> MqttConfig:
        """The settings for a connection to this broker only."""
        return replace(self.mqtt, brokers=(broker,))


def load_settings(path: Path) -> FleetSettings:
    """Read the file. ConfigError with all that is wrong; OperatorError if there is none."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise OperatorError(
            f"{path}: no such file; make a fleet folder with: edge-agent fleet init FOLDER"
        ) from None
    except (OSError, ValueError) as error:
        raise OperatorError(f"{path}: cannot be read: {error}") from error
    document = Document(path, text)
    root = Table(document)
    name = root.text("name", None, pattern=NAME_PATTERN, form=NAME_FORM)
    if name is None:
        root.problem("name", f"must name the fleet as the nodes do: {NAME_FORM}")
        name = "unnamed"
    mqtt = _read_mqtt(root.table("mqtt"), path.parent)
    trust = root.table("trust")
    expires = "issued" in trust or "expires" in trust
    settings = FleetSettings(
        name=name,
        mqtt=mqtt,
        keys=_read_keys(trust),
        threshold=trust.count("threshold", 1, at_least=1, at_most=MAX_KEYS),
        trust_version=trust.count("version", 1, at_least=1, at_most=MAX_TRUST_VERSION),
        validity=form.read_validity(trust) if expires else None,
        epoch=trust.count("epoch", 0, at_least=0, at_most=MAX_TRUST_VERSION),
        require_signed_states=root.flag("require_signed_states", None),
    )
    if settings.epoch > settings.trust_version:
        trust.problem("epoch", f"must not be above version, {settings.trust_version}")
    trust.end()
    root.end()
    document.check()
    return settings


def _read_mqtt(table: Table, folder: Path) -> MqttConfig:
    mqtt = MqttConfig(
        brokers=read_brokers(table),
        client_id=client_id(),
        username=table.text("username", None),
        password_file=_path(table, "password_file", folder),
        ca_file=_path(table, "ca_file", folder),
        cert_file=_path(table, "cert_file", folder),
        key_file=_path(table, "key_file", folder),
        tls_server_name=table.text("tls_server_name", None),
    )
    check_credentials(table, mqtt)
    table.end()
    return mqtt


def _path(table: Table, key: str, folder: Path) -> Path | None:
    """A path below the folder of the file, or with `~` below the operator's home."""
    text = table.text(key, None, pattern=PATH_PATTERN, form="a path")
    return None if text is None else folder / Path(text).expanduser()


def _read_keys(table: Table) -> tuple[str, ...]:
    keys = table.texts("keys", ()) or ()
    for key in keys:
        if not re.fullmatch(KEY_PATTERN, key):
            table.problem("keys", f'"{key[:60]}" is no key\'s name, which is {KEY_FORM}')
    if len(set(keys)) < len(keys):
        table.problem("keys", "names a key twice")
    if len(keys) > MAX_KEYS:
        table.problem("keys", f"names {len(keys)} keys; nodes take at most {MAX_KEYS}")
    return keys
