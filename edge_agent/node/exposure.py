"""Which of the agent's files others than root and its own user may change: docs/adr/0039.

What may change counts with all folders above it: who may write to one of these can put another
file in its place.
"""

import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from edge_agent.config import AgentConfig
from edge_agent.loop import Loop, Timer

log = logging.getLogger(__name__)

LOOK_S = 600.0  # between two looks: some tens of files' modes, on the loader's thread
MAX_TOLD = 8  # ours: in the reported state
STICKY = stat.S_ISVTX  # in such a folder (/tmp) only its owner moves a file


class Exposed(NamedTuple):
    """A file or folder that others may change, and how."""

    path: Path
    reason: str


class Exposure:
    """Looks at the start, at each reload and now and then, and logs each file once. All methods
    belong to the loop's thread."""

    def __init__(
        self, loop: Loop, run: Callable[[Callable[[], None]], None], changed: Callable[[], None]
    ) -> None:
        """`run` has something done on a thread that may wait for the disk."""
        self._loop = loop
        self._run = run
        self._changed = changed
        self._found: list[Exposed] = []
        self._timer: Timer | None = None

    def watch(self, config: AgentConfig, config_path: Path) -> None:
        """Look at the files of this configuration from now on."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(LOOK_S, partial(self.watch, config, config_path))
        self._run(partial(self._look, config, config_path))

    def reported(self) -> list[str]:
        """For people and the fleet."""
        return [f"{each.path} {each.reason}" for each in self._found[:MAX_TOLD]]

    def _look(self, config: AgentConfig, config_path: Path) -> None:
        """On the other thread."""
        found = exposed(files_of(config, config_path))
        self._loop.call_soon(partial(self._looked, found))

    def _looked(self, found: list[Exposed]) -> None:
        before, self._found = self._found, found
        for each in found:
            if each not in before:
                log.error(
                    "%s %s: who does that decides what this node runs as root;"
                    " `edge-agent doctor` tells how to set it right",
                    each.path,
                    each.reason,
                )
        if found != before:
            self._changed()


def files_of(config: AgentConfig, config_path: Path) -> Iterator[Path]:
    """All files by which others could make this node run something, or read what is secret."""
    yield config_path
    yield config.state_dir
    folders: dict[Path, tuple[str, ...]] = {config.plugin_dir: (".wasm", ".conf", ".toml")}
    if config.updates is not None:
        folders[config.updates.trust_dir] = (".pem", "version", "validity")
        if config.updates.registry_auth_file is not None:
            yield config.updates.registry_auth_file
    if config.mqtt is not None:
        mqtt = config.mqtt
        files = (mqtt.password_file, mqtt.ca_file, mqtt.cert_file, mqtt.key_file)
        yield from (file for file in files if file is not None)
    for folder, suffixes in folders.items():
        yield folder
        try:
            names = sorted(os.listdir(folder))  # noqa: PTH208
        except OSError:
            continue  # reported elsewhere
        yield from (folder / name for name in names if name.endswith(suffixes))


def exposed(paths: Iterable[Path], agents_user: int | None = None) -> list[Exposed]:
    """The files of `paths`, and the folders above them, that others may write; each once. Missing
    files are left out. Reads the disk.

    `agents_user`: the agent's, if this process is not it.
    """
    found: dict[Path, str] = {}
    seen: set[Path] = set()
    owners, groups = _trusted()
    if agents_user is not None:
        owners.add(agents_user)
    for path in paths:
        # A link may lie in another folder than what it leads to.
        for real in (path.resolve(), path.parent.resolve() / path.name):
            for each in (real, *real.parents):
                if each in seen:
                    break  # and so were those above it
                seen.add(each)
                if _sealed(each):
                    break
                reason = _reason(each, owners, groups, itself=each == real)
                if reason:
                    found[each] = reason
    return [Exposed(path, reason) for path, reason in found.items()]


def _trusted() -> tuple[set[int], set[int]]:
    """Users and groups that may write: root's, this process's."""
    owners, groups = {0, os.geteuid()}, {0, os.getegid()}
    try:
        mapped = int(Path("/proc/self/uid_map").read_text().split()[2])
        if mapped < 0xFFFFFFFF:  # in a user namespace the host's root may have no number
            owners.add(int(Path("/proc/sys/kernel/overflowuid").read_text()))
    except (OSError, ValueError, IndexError):
        pass
    return owners, groups


def _reason(path: Path, owners: set[int], groups: set[int], *, itself: bool) -> str:
    try:
        status = path.lstat()
    except OSError:
        return ""  # not there, or out of reach: another check's matter
    mode = status.st_mode
    if stat.S_ISLNK(mode):
        return ""  # has no mode; what it leads to is looked at
    if status.st_uid not in owners:
        return f"belongs to user {status.st_uid}"
    if mode & STICKY and not itself:
        return ""
    if mode & stat.S_IWOTH:
        return "may be written by everybody"
    if mode & stat.S_IWGRP and status.st_gid not in groups:
        return f"may be written by the group {status.st_gid}"
    return ""


def _sealed(path: Path) -> bool:
    """Whether a read-only mount begins here, such as a volume of Kubernetes: its modes say
    nothing, and what is above it is another file system's. Not a whole system that is read-only
    to this process alone (systemd's ProtectSystem)."""
    try:
        return (
            path.is_mount() and path != Path("/") and bool(os.statvfs(path).f_flag & os.ST_RDONLY)
        )
    except OSError:
        return False
