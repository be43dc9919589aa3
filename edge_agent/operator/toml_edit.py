"""Edits deployment.toml and fleet.toml, and keeps their comments (tomlkit)."""

from collections.abc import Callable, Mapping
from typing import Any

from edge_agent.config.plugin import EVERYTHING
from edge_agent.errors import OperatorError
from edge_agent.fleet_protocol.trust import TrustSet
from edge_agent.operator.folder import FLEET_FILE, FleetFolder

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


def edited(folder: FleetFolder, change: Callable[[Any], None]) -> str:
    """The text of deployment.toml after `change(document)`; nothing is written."""
    tomlkit = _toml()
    try:
        document = tomlkit.parse(folder.deployment_file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise OperatorError(f"{folder.deployment_file}: cannot be read: {error}") from error
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
) -> None:
    """Make `version` the first release of a plugin, for the nodes of `rollout` (None: for all).

    `own` are further keys of the release: `module`, `config_file`.
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
        plugin["permissions"] = [EVERYTHING]  # `plan` says so; to be narrowed by hand
        if "plugins" not in document:
            document.add(tomlkit.nl())
        plugins = document.setdefault("plugins", tomlkit.aot())
        plugins.append(plugin)
        plugin = plugins[-1]
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
        release.update(own)
        _set_rollout(release, rollout)
        releases.insert(0, release)
    _drop_unreachable(releases)


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


def set_trust(
    folder: FleetFolder, names: list[str], new: TrustSet, *, new_epoch: bool = False
) -> str:
    """The text of fleet.toml with another [trust]; `names` are those of its keys."""
    tomlkit = _toml()
    document = tomlkit.parse((folder.path / FLEET_FILE).read_text("utf-8"))
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
