"""Which container runtimes are installed here, and what their files say about NRI.

Facts of each runtime: docs/runtimes.md.
"""

import json
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from edge_agent.config.document import MAX_FILE_BYTES

NRI_SOCKET = Path("/var/run/nri/nri.sock")  # NRI's own default
DOCKER_NRI_SOCKET = Path("/var/run/docker/nri.sock")  # what docs/runtimes.md proposes

_CONTAINERD_NRI = "io.containerd.nri.v1.nri"
_CONTAINERD_CRI = {"cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"}

HOW_CONTAINERD = (
    "set `disable = false` and `disable_connections = false` under"
    " [plugins.'io.containerd.nri.v1.nri'] in /etc/containerd/config.toml (on by default"
    " since containerd 2.0, off in 1.7), then `systemctl restart containerd`"
)
HOW_CRIO = (
    "set `enable_nri = true` under [crio.nri] in /etc/crio/crio.conf.d/10-nri.conf (on by"
    " default since CRI-O 1.30), then `systemctl restart crio`"
)
HOW_DOCKER = (
    'set "nri-opts": {"enable": true, "socket-path": "/var/run/docker/nri.sock"} in'
    " /etc/docker/daemon.json (Docker Engine 29.2 or later), then `systemctl restart docker`"
)


@dataclass(frozen=True)
class Runtime:
    """An installed runtime. `switched_on` None: its files leave it to its version."""

    name: str
    config: Path  # where NRI is configured, there or not
    how: str  # to switch NRI on
    switched_on: bool | None = None
    socket: Path | None = NRI_SOCKET  # None: it has NRI but offers no socket
    serves: bool = True  # False: its NRI sees no container
    problem: str | None = None  # why its files could not be understood


@dataclass(frozen=True)
class _Kind:
    name: str
    signs: tuple[str, ...]  # any of these files or folders means that it is installed
    how: str
    read: Callable[[Path], Runtime]


def installed_runtimes(root: Path = Path("/")) -> list[Runtime]:
    """The runtimes found below `root`, by their files and sockets."""
    found = []
    for kind in _KINDS:
        if any((root / sign).exists() for sign in kind.signs):
            try:
                found.append(kind.read(root))
            except (OSError, ValueError, RecursionError) as error:
                config = root / kind.signs[-1]
                found.append(Runtime(kind.name, config, kind.how, problem=str(error)))
    return found


def _containerd(root: Path) -> Runtime:
    config = root / "etc/containerd/config.toml"
    values = _toml(config)
    nri = _below(values, "plugins", _CONTAINERD_NRI)
    disabled = set(_words(values.get("disabled_plugins")))
    return Runtime(
        "containerd",
        config,
        HOW_CONTAINERD,
        switched_on=False if _CONTAINERD_NRI in disabled else _negated(nri.get("disable")),
        socket=None if nri.get("disable_connections") is True else _path(nri.get("socket_path")),
        # Docker's package ships it so: only pods made through CRI pass NRI in containerd.
        serves=not disabled & _CONTAINERD_CRI,
    )


def _crio(root: Path) -> Runtime:
    folder = root / "etc/crio"
    nri: dict[str, object] = {}
    for config in (folder / "crio.conf", *sorted((folder / "crio.conf.d").glob("*.conf"))):
        nri |= _below(_toml(config), "crio", "nri")
    enabled = nri.get("enable_nri")
    return Runtime(
        "CRI-O",
        folder / "crio.conf.d/10-nri.conf",
        HOW_CRIO,
        switched_on=enabled if isinstance(enabled, bool) else None,
        socket=None if nri.get("nri_disable_connections") is True else _path(nri.get("nri_listen")),
    )


def _docker(root: Path) -> Runtime:
    config = root / "etc/docker/daemon.json"
    text = _text(config)
    values = json.loads(text) if text.strip() else {}
    nri = _below(values if isinstance(values, dict) else {}, "nri-opts")
    socket = nri.get("socket-path")
    return Runtime(
        "Docker Engine",
        config,
        HOW_DOCKER,
        switched_on=nri.get("enable") is True,
        socket=_path(socket) if socket else None,
    )


_KINDS = (
    _Kind(
        "containerd",
        ("run/containerd/containerd.sock", "usr/bin/containerd", "etc/containerd/config.toml"),
        HOW_CONTAINERD,
        _containerd,
    ),
    _Kind("CRI-O", ("run/crio/crio.sock", "usr/bin/crio", "etc/crio"), HOW_CRIO, _crio),
    _Kind(
        "Docker Engine",
        ("run/docker.sock", "usr/bin/dockerd", "etc/docker/daemon.json"),
        HOW_DOCKER,
        _docker,
    ),
)


def _toml(path: Path) -> dict[str, object]:
    return tomllib.loads(_text(path))


def _text(path: Path) -> str:
    """The file's text; "" where there is no file, since all have defaults."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES).decode()
    except FileNotFoundError:
        return ""


def _below(values: dict[str, object], *keys: str) -> dict[str, object]:
    for key in keys:
        value = values.get(key)
        values = value if isinstance(value, dict) else {}
    return values


def _words(value: object) -> Iterable[str]:
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []


def _negated(value: object) -> bool | None:
    return not value if isinstance(value, bool) else None


def _path(value: object) -> Path:
    return Path(value) if isinstance(value, str) and value else NRI_SOCKET
