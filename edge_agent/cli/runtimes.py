"""The installed container runtimes, and NRI in their files and command lines (docs/runtimes.md)."""

import json
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edge_agent.cli import runtimefiles
from edge_agent.cli.runtimefiles import below, required
from edge_agent.config.document import MAX_FILE_BYTES

NRI_SOCKET = Path("/var/run/nri/nri.sock")  # NRI's own default

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


MAX_WORDS_BYTES = 1 << 20  # ours; a daemon's command line has some hundred bytes


@dataclass(frozen=True)
class Daemon:
    """A process of this machine itself, not of a container."""

    name: str  # as the kernel calls it (/proc/PID/comm)
    words: tuple[str, ...]  # without the program

    def options(self, *names: str) -> list[str]:
        """The values of an option under each of its names, in the order given: `--name value`,
        `--name=value`, and both with one dash; "" where there is none."""
        found = []
        words = iter(self.words)
        for word in words:
            dashed, equals, value = word.partition("=")
            if dashed.startswith("-") and dashed.lstrip("-") in names:
                found.append(value if equals else next(words, ""))
        return found

    def flag(self, name: str) -> bool | None:
        """A switch: `--name`, `--name=true` or `--name=false`; None if it is not there."""
        found = None
        for word in self.words:
            dashed, equals, value = word.partition("=")
            if dashed.startswith("-") and dashed.lstrip("-") == name:
                found = value.lower() in ("1", "t", "true") if equals else True
        return found


def running(names: Sequence[str], proc: Path = Path("/proc")) -> list[Daemon] | None:
    """The processes with these names. None: other users' processes cannot be seen here."""
    if not (proc / "1" / "comm").exists():
        return None
    found = []
    for folder in sorted(proc.iterdir()):
        if not folder.name.isdecimal():
            continue
        try:
            name = (folder / "comm").read_text(errors="replace").strip()
            if name not in names or _in_a_container(folder):
                continue
            with (folder / "cmdline").open("rb") as file:
                words = file.read(MAX_WORDS_BYTES).decode(errors="replace").split("\0")
        except OSError:
            continue  # gone since it was listed
        found.append(Daemon(name, tuple(words[1:-1])))
    return found


def _in_a_container(folder: Path) -> bool:
    """Whether it has a PID namespace of its own (proc(5), NSpid): a runtime inside of another."""
    for line in (folder / "status").read_text(errors="replace").splitlines():
        if line.startswith("NSpid:"):
            return len(line.split()) > 2
    return False


@dataclass(frozen=True)
class Runtime:
    """An installed runtime. `switched_on` None: the default of its version applies."""

    name: str
    config: Path  # where NRI is configured, there or not
    how: str  # to switch NRI on
    switched_on: bool | None = None
    socket: Path | None = NRI_SOCKET  # None: it has NRI but offers no socket
    serves: bool = True  # False: its NRI sees no container
    problem: str | None = None  # why its files could not be understood
    said: str = ""  # where the decisive word stands, if not in `config`
    required: frozenset[str] = frozenset()  # plugins without which it creates no container
    unseen: bool = False  # its command line, which counts for more, cannot be seen from here

    @property
    def source(self) -> str:
        """The file or command line that configures NRI."""
        return self.said or str(self.config)


@dataclass(frozen=True)
class _Kind:
    name: str
    signs: tuple[str, ...]  # any of these files or folders means that it is installed
    how: str
    daemon: str
    read: Callable[[Path, Daemon], Runtime]


def installed_runtimes(root: Path = Path("/")) -> list[Runtime]:
    """The runtimes found below `root`: by their processes, files and sockets."""
    daemons = running([kind.daemon for kind in _KINDS], root / "proc")
    found = []
    for kind in _KINDS:
        seen = [each for each in daemons or () if each.name == kind.daemon and not _dockers(each)]
        if not seen and any((root / sign).exists() for sign in kind.signs):
            seen = [Daemon(kind.daemon, ())]
        # containerd's is in the same place for all that share it, so each is told once.
        for daemon in dict.fromkeys(seen):
            try:
                runtime = kind.read(root, daemon)
            except (OSError, ValueError, RecursionError) as error:
                config = Path("/") / kind.signs[-1]
                runtime = Runtime(kind.name, config, kind.how, problem=str(error))
            runtime = replace(runtime, unseen=daemons is None)
            if runtime not in found:
                found.append(runtime)
    return found


def _dockers(daemon: Daemon) -> bool:
    """Whether Docker Engine started this containerd for itself: it serves no NRI."""
    return any("/run/docker/" in each for each in daemon.options("config"))


def _containerd(root: Path, daemon: Daemon) -> Runtime:
    named = daemon.options("config", "c")
    config = Path(named[-1]) if named else Path("/etc/containerd/config.toml")
    files = runtimefiles.read(root, config, required=bool(named))
    runtime = Runtime(
        "containerd",
        config,
        HOW_CONTAINERD,
        # Docker's package ships it so: only pods made through CRI pass NRI in containerd.
        serves=not files.disabled_plugins & _CONTAINERD_CRI,
    )
    source = files.sources.get(_CONTAINERD_NRI, config)
    if _CONTAINERD_NRI in files.disabled_plugins:
        return replace(runtime, switched_on=False)
    found = {_containerd_nri(each) for each in (files.plugins, files.replaced)}
    if len(found) > 1 and files.version < 3:
        raise ValueError(
            f"several files have a section on NRI, the last is {source}: containerd 1.7 takes that"
            " one alone, 2.0 and later all of them; put all keys into one file"
        )
    switched_on, socket = _containerd_nri(files.plugins)
    said = "" if source == config else f"{source}, which {config} imports"
    needed = required(_below(files.plugins, _CONTAINERD_NRI))
    return replace(runtime, switched_on=switched_on, socket=socket, said=said, required=needed)


def _containerd_nri(plugins: dict[str, object]) -> tuple[bool | None, Path | None]:
    nri = _below(plugins, _CONTAINERD_NRI)
    closed = nri.get("disable_connections") is True
    return _negated(nri.get("disable")), None if closed else _path(nri.get("socket_path"))


def _crio(root: Path, daemon: Daemon) -> Runtime:
    main = Path(["/etc/crio/crio.conf", *daemon.options("config", "c")][-1])
    folder = Path(["/etc/crio/crio.conf.d", *daemon.options("config-dir", "d")][-1])
    nri: dict[str, object] = {}
    for config in (below(root, main), *sorted(below(root, folder).glob("*.conf"))):
        nri |= _below(tomllib.loads(_text(config)), "crio", "nri")
    words = {
        "enable_nri": daemon.flag("enable-nri"),
        "nri_disable_connections": daemon.flag("nri-disable-connections"),
        "nri_listen": ["", *daemon.options("nri-listen")][-1] or None,
    }
    said = {key: value for key, value in words.items() if value is not None}
    nri |= said
    enabled = nri.get("enable_nri")
    return Runtime(
        "CRI-O",
        folder / "10-nri.conf",
        HOW_CRIO,
        switched_on=enabled if isinstance(enabled, bool) else None,
        socket=None if nri.get("nri_disable_connections") is True else _path(nri.get("nri_listen")),
        said="the command line of crio" if said else "",
    )


def _docker(root: Path, daemon: Daemon) -> Runtime:
    config = Path(["/etc/docker/daemon.json", *daemon.options("config-file")][-1])
    text = _text(below(root, config))
    values = json.loads(text) if text.strip() else {}
    nri = _below(values if isinstance(values, dict) else {}, "nri-opts")
    # moby's daemon/pkg/opts/nri_opts.go: "enable=true,socket-path=/..."; "enable" alone is true.
    said = {}
    for words in daemon.options("nri-opts"):
        for field in words.split(","):
            key, _, value = field.partition("=")
            said[key] = value
    if "enable" in said:
        nri = nri | {"enable": said["enable"].lower() in ("", "1", "t", "true")}
    socket = said.get("socket-path") or nri.get("socket-path")
    return Runtime(
        "Docker Engine",
        config,
        HOW_DOCKER,
        switched_on=nri.get("enable") is True,
        socket=_path(socket) if socket else None,
        said="the command line of dockerd" if said else "",
    )


_KINDS = (
    _Kind(
        "containerd",
        ("run/containerd/containerd.sock", "usr/bin/containerd", "etc/containerd/config.toml"),
        HOW_CONTAINERD,
        "containerd",
        _containerd,
    ),
    _Kind("CRI-O", ("run/crio/crio.sock", "usr/bin/crio", "etc/crio"), HOW_CRIO, "crio", _crio),
    _Kind(
        "Docker Engine",
        ("run/docker.sock", "usr/bin/dockerd", "etc/docker/daemon.json"),
        HOW_DOCKER,
        "dockerd",
        _docker,
    ),
)


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


def _negated(value: object) -> bool | None:
    return not value if isinstance(value, bool) else None


def _path(value: object) -> Path:
    return Path(value) if isinstance(value, str) and value else NRI_SOCKET
