"""The TOML files of a fleet: reads `fleet.toml` (name, brokers, trusted keys); edits it and
`deployment.toml` and keeps their comments (tomlkit).
"""

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_agent.config import Broker, MqttConfig
from edge_agent.config.agent import (
    MAX_KEYS,
    NAME_FORM,
    NAME_PATTERN,
    check_credentials,
    read_brokers,
)
from edge_agent.config.document import Document
from edge_agent.config.model import EVERYTHING
from edge_agent.config.table import PATH_PATTERN, Table
from edge_agent.config.units import Validity
from edge_agent.errors import OperatorError
from edge_agent.fleet_protocol import form
from edge_agent.fleet_protocol.trust import TrustSet
from edge_agent.operator.tool_client import client_id

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


# Older releases below the one that is for all: nodes that rejected it run the next.
MAX_KEPT = 3


def _toml() -> Any:
    try:
        import tomlkit
    except ImportError as error:
        raise OperatorError(
            "tomlkit is missing, which edits files without losing their comments; install the"
            " operator's extra: pip install 'edge-agent[fleet]'"
        ) from error
    return tomlkit


def edited(path: Path, change: Callable[[Any], None]) -> str:
    """The text of a deployment.toml after `change(document)`; nothing is written."""
    tomlkit = _toml()
    try:
        document = tomlkit.parse(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise OperatorError(f"{path}: cannot be read: {error}") from error
    change(document)
    text: str = tomlkit.dumps(document)
    return text


def set_release(
    document: Any,
    name: str,
    version: str,
    index: str | None,
    rollout: Mapping[str, object] | None,
    own: Mapping[str, object] = {},
    permissions: Sequence[str] | None = None,
) -> None:
    """Make `version` the first release of a plugin, for the nodes of `rollout` (None: for all).

    `own` are further keys of the release: `module`, `config_file`, `mode`, `instance`. Of a module
    that has a release already, a new one begins with the settings of the newest. `permissions` are
    those of a plugin that is new (None: everything).
    """
    tomlkit = _toml()
    plugin = _plugin(document, name)
    if plugin is None:
        if index is None:
            raise OperatorError(
                f"deployment.toml has no plugin {name} yet; say with --index NN (00 to 99) in"
                " which place it is called"
            )
        plugin = tomlkit.table()
        plugin["name"], plugin["index"] = name, index
        # `plan` says what may change everything; to be narrowed by hand.
        plugin["permissions"] = [EVERYTHING] if permissions is None else list(permissions)
        if "plugins" not in document:
            document.add(tomlkit.nl())
        plugins = document.setdefault("plugins", tomlkit.aot())
        plugins.append(plugin)
        plugin = plugins[-1]
    elif permissions is not None:
        raise OperatorError(
            f"deployment.toml has the plugin {name} with its permissions already; change them there"
        )
    elif index is not None:
        plugin["index"] = index
    plugin.pop("enabled", None)
    releases = plugin.setdefault("releases", tomlkit.aot())
    for release in releases:
        if release.get("version") == version:
            release.update(own)
            _set_rollout(release, rollout)
            break
    else:
        release = tomlkit.table()
        release["version"] = version
        release.update(_settings_of_module(releases, own))
        release.update(own)
        _set_rollout(release, rollout)
        releases.insert(0, release)
    _drop_unreachable(releases)


def _settings_of_module(releases: Any, own: Mapping[str, object]) -> dict[str, Any]:
    """The settings of the newest release of this module, but for `own`: so the next configuration
    of a release that is only monitored is only monitored, too."""
    for each in releases:
        if each.get("module", each.get("version")) == own.get("module"):
            left = {"version", "rollout", *own}
            if "config_file" in own:
                left.add("config")
            return {key: copy.deepcopy(value) for key, value in each.items() if key not in left}
    return {}


def remove_release(document: Any, name: str, version: str) -> None:
    """Remove a release; nodes go back to the one below. Without a release the plugin ends."""
    plugin = _plugin(document, name)
    releases = [] if plugin is None else plugin.get("releases", [])
    for number, release in enumerate(releases):
        if release.get("version") == version:
            if len(releases) > 1:
                del releases[number]
            else:  # what people wrote of it stays
                plugin["enabled"] = False
            return
    raise OperatorError(f"deployment.toml: {name} has no release {version}")


def set_rollout(document: Any, name: str, version: str, rollout: Mapping[str, object]) -> None:
    """Change some keys of a release's rollout."""
    plugin = _plugin(document, name)
    for release in [] if plugin is None else plugin.get("releases", []):
        if release.get("version") == version:
            _set_rollout(release, {**release.get("rollout", {}), **rollout})


def set_trust(path: Path, names: list[str], new: TrustSet, *, new_epoch: bool = False) -> str:
    """The text of a fleet.toml with another [trust]; `names` are those of its keys."""
    tomlkit = _toml()
    document = tomlkit.parse(path.read_text("utf-8"))
    trust = document.setdefault("trust", tomlkit.table())
    trust["keys"], trust["threshold"], trust["version"] = names, new.threshold, new.version
    for key in ("issued", "expires"):
        trust.pop(key, None)
    for key, time in new.validity.as_document().items() if new.validity else ():
        trust[key] = time
    if new_epoch:
        trust["epoch"] = new.version
    text: str = tomlkit.dumps(document)
    return text


def _plugin(document: Any, name: str) -> Any:
    for plugin in document.get("plugins", []):
        if plugin.get("name") == name:
            return plugin
    return None


def _set_rollout(release: Any, rollout: Mapping[str, object] | None) -> None:
    if rollout is None:
        release.pop("rollout", None)
        return
    table = release.get("rollout")
    if table is None:
        table = _toml().inline_table()
        release["rollout"] = table
    for key, value in rollout.items():
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value


def _drop_unreachable(releases: Any) -> None:
    """Releases far below one for all nodes: only nodes that rejected all above would run them."""
    full = next((at for at, each in enumerate(releases) if "rollout" not in each), None)
    if full is not None:
        while len(releases) > max(full + 2, MAX_KEPT):
            del releases[len(releases) - 1]
