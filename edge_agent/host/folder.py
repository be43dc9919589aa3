"""The folder of plugins: NN-name.wasm, with NN-name.conf and NN-name.toml beside it.

Scanned on the loader's thread. A file that is being written is left alone until it has
been the same at two scans, so that nothing is loaded half; what is wrong with one
plugin's files is told and leaves the release that runs in place.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from edge_agent.config import Limits, Report, load_plugin_settings
from edge_agent.errors import ConfigError, EdgeAgentError
from edge_agent.host.loader import read_module
from edge_agent.host.release import Release, split_identity
from edge_agent.store.digest import sha256_hex

MAX_PLUGINS = 100  # ours: as many as there are indexes
MAX_CONFIG_BYTES = 1 << 20  # ours: a quarter of the Configure message that carries it
MODULE, CONFIG, SETTINGS = ".wasm", ".conf", ".toml"

_Stamps = dict[str, tuple[int, int, int]]
"""Suffix -> inode, size, mtime in ns: one of them changes with any write or rename."""


@dataclass
class Scan:
    """What a scan found: the releases to run and, by plugin or file name, what is wrong."""

    releases: dict[str, Release] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


class _Known(NamedTuple):
    stamps: _Stamps
    release: Release | None  # the latest that was right
    error: str


class Folder:
    """Remembers what it has read, so that an unchanged folder costs one listing."""

    def __init__(self, path: Path, limits: Limits, report: Report) -> None:
        self._path = path
        self._limits = limits
        self._report = report
        self._seen: dict[str, _Stamps] | None = None
        self._known: dict[str, _Known] = {}

    def scan(self) -> Scan:
        """List, and read what changed and has settled. At the first scan, the agent's
        start, what is there counts as settled."""
        result = Scan()
        try:
            files = self._list(result)
        except OSError as error:
            # Plugins go on when their folder cannot be read; they end when it is empty.
            result.errors[str(self._path)] = f"{self._path}: {error.strerror}"
            files = self._seen or {}
        for identity, stamps in sorted(files.items()):
            known = self._known.get(identity)
            settled = self._seen is None or self._seen.get(identity) == stamps
            if settled and (known is None or known.stamps != stamps):
                known = self._known[identity] = self._take(identity, stamps, known)
            if known is None:
                continue
            if known.release is not None:
                result.releases[identity] = known.release
            if known.error:
                result.errors[identity] = known.error
        self._seen = files
        for identity in self._known.keys() - files.keys():
            del self._known[identity]
        return result

    def _list(self, result: Scan) -> dict[str, _Stamps]:
        files: dict[str, _Stamps] = {}
        stray: dict[str, _Stamps] = {}
        for path in self._path.iterdir():
            if path.suffix not in (MODULE, CONFIG, SETTINGS) or path.name.startswith("."):
                continue
            try:
                status = path.stat()
            except OSError:
                continue  # gone since it was listed, or a link to nothing
            if path.suffix == MODULE and split_identity(path.stem) is None:
                result.errors[path.name] = (
                    f"{path}: plugins are named NN-name.wasm (two digits; letters, digits, _.+-)"
                )
                continue
            into = files if path.suffix == MODULE else stray
            into.setdefault(path.stem, {})[path.suffix] = (
                status.st_ino,
                status.st_size,
                status.st_mtime_ns,
            )
        for identity in sorted(files)[MAX_PLUGINS:]:
            del files[identity]
            result.errors[identity] = f"{self._path}: only {MAX_PLUGINS} plugins are taken"
        for identity, stamps in files.items():
            stamps.update(stray.get(identity, {}))
        return files

    def _take(self, identity: str, stamps: _Stamps, before: _Known | None) -> _Known:
        try:
            return _Known(stamps, self._read(identity, stamps), "")
        except EdgeAgentError as error:
            return _Known(stamps, before.release if before else None, str(error))

    def _read(self, identity: str, stamps: _Stamps) -> Release:
        index_and_name = split_identity(identity)
        assert index_and_name is not None
        path = self._path / f"{identity}{MODULE}"
        wasm = read_module(path)
        settings_path = self._path / f"{identity}{SETTINGS}"
        settings = load_plugin_settings(
            settings_path,
            _read_text(settings_path) if SETTINGS in stamps else "",
            self._limits,
            self._report,
        )
        config_path = self._path / f"{identity}{CONFIG}"
        return Release(
            index=index_and_name[0],
            name=index_and_name[1],
            path=path,
            digest=sha256_hex(wasm),
            size=len(wasm),
            config=_read_text(config_path) if CONFIG in stamps else "",
            settings=settings,
        )


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_CONFIG_BYTES + 1)
        if len(raw) > MAX_CONFIG_BYTES:
            raise ConfigError(f"{path}: over {MAX_CONFIG_BYTES} bytes")
        return raw.decode()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from error
