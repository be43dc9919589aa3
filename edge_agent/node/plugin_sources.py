"""The sources of plugins: the node's own folder and the fleet's deployments, as one set.

The folder has NN-name.wasm, with NN-name.conf and NN-name.toml beside it.

Scanned on the loader's thread. A file that is being written is left alone until it has
been the same at two scans, so that nothing is loaded half; what is wrong with one
plugin's files is told and leaves the release that runs in place.
"""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from edge_agent.config import (
    AgentConfig,
    Limits,
    Report,
    load_agent_config,
    load_plugin_settings,
    read_policy,
)
from edge_agent.errors import ConfigError, EdgeAgentError, StoreError
from edge_agent.loop import Loop, Timer
from edge_agent.store import files
from edge_agent.store.digest import NO_DIGEST, Digest
from edge_agent.store.release import PluginId, Release
from edge_agent.wasm.modulefile import identify

log = logging.getLogger(__name__)


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
            settings = read_policy(path, text)
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


SCAN_S = 1.0  # between two looks at the plugin folder; a file is taken after two equal ones
# Keys of the configuration that are read at the start only.
NEEDS_RESTART = (
    *("node", "fleet", "state_dir", "control_socket"),
    *("engine", "nri", "mqtt", "updates", "requests"),
)


def _nothing() -> None:
    pass


class LocalFiles:
    """All methods belong to the loop's thread; `run` has something done on a thread that may wait
    for the disk."""

    def __init__(
        self,
        loop: Loop,
        run: Callable[[Callable[[], None]], None],
        config: AgentConfig,
        config_path: Path,
        scanned: Callable[[Scan], None],
        configured: Callable[[AgentConfig], None],
    ) -> None:
        """`scanned` gets what is in the folder, `configured` each later configuration."""
        self.config = config
        self._loop = loop
        self._run = run
        self._config_path = config_path
        self._scanned = scanned
        self._configured = configured
        self._folder = PluginFolder(config.plugin_dir, config.limits, config.report)
        self._timer: Timer | None = None
        self._with_fleet = config.updates is not None  # deployments choose by labels

    def scan(self, then: Callable[[], None] = _nothing) -> None:
        """Look at the folder, now and each second from then on; `then` is called once what was
        found there is applied."""
        self._run(partial(self._look, then))

    def reload(self, done: Callable[[], None]) -> None:
        """Read the configuration again, and the folder with it; `done` is called once both are
        applied, or the configuration was refused."""
        log.info("reading the configuration again")
        self._run(partial(self._read, done))

    def _look(self, then: Callable[[], None]) -> None:
        """On the other thread."""
        scan = None
        try:
            scan = self._folder.scan()
        finally:  # whatever happens there, the next scan comes
            self._loop.call_soon(partial(self._looked, scan, then))

    def _looked(self, scan: Scan | None, then: Callable[[], None]) -> None:
        if scan is not None:
            self._scanned(scan)
        then()
        if self._timer is None or not self._timer.pending:
            self._timer = self._loop.call_later(SCAN_S, self.scan)

    def _read(self, done: Callable[[], None]) -> None:
        """On the other thread."""
        try:
            config = load_agent_config(self._config_path)
        except ConfigError as error:
            log.error("the configuration stays as it was: %s", error)
            self._loop.call_soon(done)
            return
        self._loop.call_soon(partial(self._apply, config, done))

    def _apply(self, config: AgentConfig, done: Callable[[], None]) -> None:
        before, self.config = self.config, config
        # Read anew with the new defaults; releases that come out equal are not touched.
        self._run(partial(self._folder.configure, config.plugin_dir, config.limits, config.report))
        self.scan(done)
        self._configured(config)
        chosen_by = ("labels",) if self._with_fleet else ()
        for name in (*NEEDS_RESTART, *chosen_by):
            if getattr(before, name) != getattr(config, name):
                log.warning("%s changed in the configuration: restart the agent to use it", name)


Apply = Callable[[Mapping[PluginId, Release], Mapping[str, str]], None]
"""(what is to run, what is wrong), both by identity."""
Keep = Callable[[Collection[tuple[Digest, bool]]], None]
"""The (digest, metered) of which compiled code is to be kept; all else may go."""


class PluginSources:
    """`apply` is called with the whole once both halves are known, and at each change.

    With one half alone the plugins of the other would end, and forget their state.
    """

    def __init__(self, apply: Apply, keep: Keep, with_fleet: bool) -> None:
        self._apply = apply
        self._keep = keep
        self._folder: Scan | None = None
        self._fleet: Mapping[PluginId, Release] | None = None if with_fleet else {}
        self._fleet_keeps: Collection[Digest] = ()

    def folder(self, scan: Scan) -> None:
        """Take the content of the folder; the same content again changes nothing."""
        if scan != self._folder:
            self._folder = scan
            self._tell()

    def fleet(self, releases: Mapping[PluginId, Release], keeps: Collection[Digest]) -> None:
        """Take the releases that the fleet deploys here, and digests of modules that may run
        again."""
        self._fleet, self._fleet_keeps = releases, keeps
        self._tell()

    def fleet_begun(self) -> None:
        """The deployments that the disk remembers are known by now, if there are any."""
        if self._fleet is None:
            self.fleet({}, ())

    def deployed(self, identity: PluginId, digest: Digest) -> Release | None:
        """The release, if it is the fleet's."""
        found = (self._fleet or {}).get(identity)
        return found if found is not None and found.digest == digest else None

    def _tell(self) -> None:
        if self._folder is None or self._fleet is None:
            return
        own, fleet = self._folder.releases, self._fleet
        twice: dict[str, str] = {
            identity: f"{identity}: {own[identity].path} runs in place of what the fleet deploys; "
            "remove it to go with the fleet"
            for identity in own.keys() & fleet.keys()
        }
        self._apply({**self._folder.unusable, **fleet, **own}, {**twice, **self._folder.errors})
        if not any(map(self._unread, self._folder.errors)):  # its code will be wanted once it is
            running = {(each.digest, each.metered) for each in (*own.values(), *fleet.values())}
            again = {(digest, metered) for digest in self._fleet_keeps for metered in (False, True)}
            self._keep(running | again)

    def _unread(self, name: str) -> bool:
        """Whether an error is about a plugin of which no release is known, or the whole folder."""
        assert self._folder is not None
        plugin = PluginId.parse(name) is not None or "/" in name  # not just a file's name
        return plugin and name not in self._folder.releases
