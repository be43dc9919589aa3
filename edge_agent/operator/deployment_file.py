"""`deployment.toml`, as people edit it, on its way to the document that is signed.

Its words are the protocol's (docs/fleet-protocol.md). Different are: `config_file` beside
`config`, `enabled = false` for a plugin that is left out, `valid_for` instead of times, a
release's version instead of its blob (or `module`, the published version that it runs), rings
as "LABEL=VALUE", what `rollout` remembers beside what is signed of it, and `permissions`, which
must be there.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_agent.config.agent import LABEL_PATTERN
from edge_agent.config.model import ENFORCE, EVERYTHING, LASTING
from edge_agent.config.units import VALIDITY_FORM, parse_validity, written
from edge_agent.errors import OperatorError, RefusedError
from edge_agent.fleet_protocol import deployment
from edge_agent.fleet_protocol.deployment import Deployment
from edge_agent.fleet_protocol.form import INSTANCE, MODE, SETTINGS
from edge_agent.operator import releases
from edge_agent.operator.folder import FleetFolder

DEFAULT_VALID_FOR = "30d"
MAX_FILE_BYTES = 1 << 20

_ROOT = ("valid_for", "plugins")
_PLUGIN = (
    *("name", "index", "select", "config", "config_file", *SETTINGS),
    *("releases", "enabled"),
)
_RELEASE = ("version", "module", "rollout", "sources", "config", "config_file", *SETTINGS)
_SIGNED = ("percent", "seed", "nodes", "rings")  # of `rollout`
ROLLOUT = (
    *(*_SIGNED, "steps", "soak", "abort_on_failures"),
    *("at_least", "min_percent", "timeout", "paused"),
)


@dataclass(frozen=True)
class Draft:
    """The file's values, not yet checked by the nodes' own rules: `document` does that."""

    folder: FleetFolder
    values: Mapping[str, object]
    text: str

    @property
    def path(self) -> Path:
        return self.folder.deployment_file

    def document(
        self, fleet: str, generation: int, now: float, commit: str | None = None, epoch: int = 0
    ) -> Deployment:
        """The document to sign, whose `payload` has the bytes. OperatorError: invalid."""
        valid_s = _valid_s(self.path, self.values.get("valid_for", DEFAULT_VALID_FOR))
        plugins = [
            self._plugin(each) for each in self._list(self.values, "plugins") if self._enabled(each)
        ]
        values: dict[str, object] = {
            "kind": deployment.kind_of(plugins),
            "fleet": fleet,
            "generation": generation,
            "issued": written(now),
            "expires": written(now + valid_s),
            "plugins": plugins,
        }
        if epoch:
            values["epoch"] = epoch
        if commit is not None:
            values["commit"] = commit  # for people: nodes ignore it
        try:
            return deployment.parse(deployment.to_payload(values), fleet=fleet)
        except RefusedError as error:
            problems = str(error).splitlines()
            raise OperatorError(
                "\n".join(f"{self.path}: {each.removeprefix('deployment: ')}" for each in problems)
            ) from error

    def plugin(self, name: str) -> Mapping[str, object] | None:
        """One plugin's table."""
        for each in self._list(self.values, "plugins"):
            if each.get("name") == name:
                return each
        return None

    def releases(self, name: str) -> list[Mapping[str, object]]:
        """The releases of a plugin, the newest first. OperatorError: no such plugin."""
        plugin = self.plugin(name)
        if plugin is None:
            known = [str(each.get("name")) for each in self._list(self.values, "plugins")]
            named = f"; it has {', '.join(known)}" if known else ", it has none yet"
            raise OperatorError(f"{self.path}: no plugin {name}{named}")
        return self._list(plugin, "releases")

    def _enabled(self, table: Mapping[str, object]) -> bool:
        enabled = table.get("enabled", True)
        if not isinstance(enabled, bool):
            raise OperatorError(
                f"{self.path}: plugin {table.get('name')}: enabled is true or false"
            )
        return enabled

    def _plugin(self, table: Mapping[str, object]) -> dict[str, object]:
        name = str(table.get("name", "(without a name)"))
        self.check_keys(table, _PLUGIN, f"plugin {name}")
        if "permissions" not in table:
            raise OperatorError(
                f"{self.path}: plugin {name}: say what it may change, such as permissions ="
                ' ["env", "linux.resources"] (`edge-agent plugin run` shows what it does change);'
                f' permissions = ["{EVERYTHING}"] is everything, hooks on the node included'
            )
        values = {key: value for key, value in table.items() if key != "enabled"}
        self._take_config(f"plugin {name}", values)
        if values["permissions"] == [EVERYTHING]:
            # What is not there means the same, also to nodes that refuse a name they do not know.
            del values["permissions"]
        found = [self._release(name, each) for each in self._list(table, "releases", name)]
        values["releases"] = found
        for key, default in ((MODE, ENFORCE), (INSTANCE, LASTING)):
            # Likewise, and a document with it older nodes refuse.
            if all(each.get(key, default) == default for each in (values, *found)):
                for each in (values, *found):
                    each.pop(key, None)
        return values

    def _release(self, name: str, table: Mapping[str, object]) -> dict[str, object]:
        version = table.get("version")
        if not isinstance(version, str):
            raise OperatorError(f'{self.path}: plugin {name}: a release needs version = "..."')
        self.check_keys(table, _RELEASE, f"{name} {version}")
        blob = releases.load(self.folder, name, str(table.get("module", version)))
        values = {**table, "blob": {field: getattr(blob, field) for field in releases.FIELDS}}
        published = str(table.get("module", version))
        if codes := releases.find_codes(self.folder, name, published):
            values["code"] = [releases.as_values(each) for each in codes]
        values.pop("module", None)
        self._take_config(f"{name} {version}", values)
        if isinstance(rollout := table.get("rollout"), Mapping):
            self.check_keys(rollout, ROLLOUT, f"{name} {version}: rollout")
            signed = {key: rollout[key] for key in _SIGNED if key in rollout}
            if "rings" in signed:
                signed["rings"] = self._rings(f"{name} {version}: rollout", signed["rings"])
            values["rollout"] = signed
        return values

    def _rings(self, where: str, rings: object) -> list[dict[str, str]]:
        try:
            return [dict([ring_label(each)]) for each in rings]  # type: ignore[attr-defined]
        except (TypeError, OperatorError):
            raise OperatorError(f'{self.path}: {where}: rings are like ["ring=canary"]') from None

    def _take_config(self, where: str, values: dict[str, object]) -> None:
        """The text of `config_file` in the place of its name."""
        if "config_file" not in values:
            return
        if "config" in values:
            raise OperatorError(f"{self.path}: {where}: config and config_file; keep one")
        file = values.pop("config_file")
        if not isinstance(file, str):
            raise OperatorError(f"{self.path}: {where}: config_file must be a path")
        path = self.folder.path / file
        try:
            values["config"] = path.read_text("utf-8")
        except (OSError, ValueError) as error:
            raise OperatorError(f"{path}: cannot be read: {error}") from error

    def _list(
        self, table: Mapping[str, object], key: str, where: str = ""
    ) -> list[Mapping[str, object]]:
        value = table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
            about = f"plugin {where}: " if where else ""
            raise OperatorError(f"{self.path}: {about}{key} must be tables, [[{key}]]")
        return value

    def check_keys(self, table: Mapping[str, object], known: tuple[str, ...], where: str) -> None:
        """Refuse unknown keys, which nodes would ignore: a typing error would go unnoticed."""
        for key in table:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
                raise OperatorError(f"{self.path}: {where}: unknown key {key}; {hint}")


def load(folder: FleetFolder) -> Draft:
    """Read the file. OperatorError."""
    path = folder.deployment_file
    try:
        text = path.read_bytes()[: MAX_FILE_BYTES + 1].decode()
    except FileNotFoundError:
        raise OperatorError(f"{path}: no such file; it says what runs on which nodes") from None
    except (OSError, ValueError) as error:
        raise OperatorError(f"{path}: cannot be read: {error}") from error
    return read(folder, text)


def read(folder: FleetFolder, text: str) -> Draft:
    """The draft in a text."""
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise OperatorError(f"{folder.deployment_file}: not valid TOML: {error}") from None
    draft = Draft(folder, values, text)
    draft.check_keys(values, _ROOT, "at the top")
    return draft


def ring_label(text: object) -> tuple[str, str]:
    """The label and its value of a ring such as "ring=canary". OperatorError."""
    name, equals, value = text.partition("=") if isinstance(text, str) else ("", "", "")
    if not (equals and value and re.fullmatch(LABEL_PATTERN, name)):
        raise OperatorError(f'"{str(text)[:60]}" is no ring: write LABEL=VALUE')
    return name, value


def _valid_s(path: Path, value: object) -> float:
    seconds = parse_validity(value)
    if seconds is None:
        raise OperatorError(f"{path}: valid_for must be {VALIDITY_FORM}")
    return seconds
