"""The folder of plugins: NN-name.wasm, with NN-name.conf and NN-name.toml beside it.

Scanned on the loader's thread. A file that is being written is left alone until it has
been the same at two scans, so that nothing is loaded half; what is wrong with one
plugin's files is told and leaves the release that runs in place.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from edge_agent.config import (
    Limits,
    PluginSettings,
    Report,
    load_plugin_settings,
    read_failure_policy,
)
from edge_agent.errors import ConfigError, EdgeAgentError, StoreError
from edge_agent.store import files
from edge_agent.store.digest import NO_DIGEST
from edge_agent.store.release import PluginId, Release
from edge_agent.wasm.modulefile import identify

MAX_PLUGINS = 100  # ours: as many as there are indexes
MAX_CONFIG_BYTES = 1 << 20  # ours: a quarter of the Configure message that carries it
MAX_TOLD = 20  # ours: files that are not taken; each is a line of the log and of the status
MODULE, CONFIG, SETTINGS = ".wasm", ".conf", ".toml"

_Stamps = dict[str, tuple[int, int, int]]
"""Suffix -> inode, size, mtime in ns: one of them changes with any write or rename."""


@dataclass
class Scan:
    """What a scan found: the releases to run and, by plugin or file name, what is wrong.

    `unusable` are plugins whose files are wrong and of which no release was right before.
    """

    releases: dict[PluginId, Release] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    unusable: dict[PluginId, Release] = field(default_factory=dict)


class _Known(NamedTuple):
    stamps: _Stamps
    release: Release  # the latest that was right; unusable if none was
    error: str


class PluginFolder:
    """Remembers what it has read, so that an unchanged folder costs one listing."""

    def __init__(self, path: Path, limits: Limits, report: Report) -> None:
        self._path = path
        self._limits = limits
        self._report = report
        self._seen: dict[PluginId, _Stamps] | None = None
        self._known: dict[PluginId, _Known] = {}

    def configure(self, path: Path, limits: Limits, report: Report) -> None:
        """Other settings: the next scan reads all files again. What is wrong with them then
        leaves the releases before in place, as always."""
        self._path, self._limits, self._report = path, limits, report
        for identity, known in self._known.items():
            self._known[identity] = known._replace(stamps={})

    def scan(self) -> Scan:
        """List, and read what changed and has settled. At the first scan, the agent's
        start, what is there counts as settled."""
        result = Scan()
        try:
            found = self._list(result)
        except OSError as error:
            # Plugins go on when their folder cannot be read; they end when it is empty.
            result.errors[str(self._path)] = f"{self._path}: {error.strerror}"
            found = self._seen or {}
        for identity, stamps in sorted(found.items()):
            known = self._known.get(identity)
            settled = self._seen is None or self._seen.get(identity) == stamps
            if settled and (known is None or known.stamps != stamps):
                known = self._known[identity] = self._take(identity, stamps, known)
            if known is None:
                continue
            into = result.unusable if known.release.unusable else result.releases
            into[identity] = known.release
            if known.error:
                result.errors[identity] = known.error
        self._seen = found
        for identity in self._known.keys() - found.keys():
            del self._known[identity]
        return result

    def _list(self, result: Scan) -> dict[PluginId, _Stamps]:
        modules: dict[PluginId, _Stamps] = {}
        stray: dict[str, _Stamps] = {}
        refused: dict[str, str] = {}
        for path in self._path.iterdir():
            if path.suffix not in (MODULE, CONFIG, SETTINGS) or path.name.startswith("."):
                continue
            try:
                status = path.stat()
            except OSError:
                continue  # gone since it was listed, or a link to nothing
            stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
            if path.suffix != MODULE:
                stray.setdefault(path.stem, {})[path.suffix] = stamp
            elif (identity := PluginId.parse(path.stem)) is not None:
                modules[identity] = {MODULE: stamp}
            else:
                refused[path.name] = (
                    f"{path}: plugins are named NN-name.wasm (two digits; letters, digits, _.+-)"
                )
        for identity in sorted(modules)[MAX_PLUGINS:]:
            del modules[identity]
            refused[identity] = f"{self._path}: only {MAX_PLUGINS} plugins are taken"
        for name in sorted(refused)[:MAX_TOLD]:
            result.errors[name] = refused[name]
        if len(refused) > MAX_TOLD:
            more = len(refused) - MAX_TOLD
            result.errors[str(self._path)] = f"{self._path}: {more} more files are not taken"
        for identity, stamps in modules.items():
            stamps.update(stray.get(identity, {}))
        return modules

    def _take(self, identity: PluginId, stamps: _Stamps, before: _Known | None) -> _Known:
        try:
            return _Known(stamps, self._read(identity, stamps), "")
        except EdgeAgentError as error:
            if before is not None and not before.release.unusable:
                return _Known(stamps, before.release, str(error))
            return _Known(stamps, self._unusable(identity, str(error)), str(error))

    def _unusable(self, identity: PluginId, error: str) -> Release:
        """The plugin with what still counts of its settings."""
        path = self._path / f"{identity}{SETTINGS}"
        try:
            text = _read_text(path)
        except ConfigError:
            text = ""
        try:
            settings = load_plugin_settings(path, text, self._limits, self._report)
        except ConfigError:
            settings = PluginSettings(failure_policy=read_failure_policy(path, text))
        module = self._path / f"{identity}{MODULE}"
        index, name = identity.parts
        return Release(index, name, NO_DIGEST, 0, "", settings, path=module, unusable=error)

    def _read(self, identity: PluginId, stamps: _Stamps) -> Release:
        path = self._path / f"{identity}{MODULE}"
        digest, size = identify(path)
        settings_path = self._path / f"{identity}{SETTINGS}"
        settings = load_plugin_settings(
            settings_path,
            _read_text(settings_path) if SETTINGS in stamps else "",
            self._limits,
            self._report,
        )
        config_path = self._path / f"{identity}{CONFIG}"
        index, name = identity.parts
        return Release(
            index=index,
            name=name,
            path=path,
            digest=digest,
            size=size,
            config=_read_text(config_path) if CONFIG in stamps else "",
            settings=settings,
        )


def _read_text(path: Path) -> str:
    try:
        raw = files.read(path, MAX_CONFIG_BYTES)
        if raw is None:
            raise ConfigError(f"{path}: is gone")
        return raw.decode()
    except StoreError as error:
        raise ConfigError(str(error)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from error
