"""The systemd unit, made from `edge-agent.service` beside this file for one installation. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_agent.config import AgentConfig

TEMPLATE = Path(__file__).with_name("edge-agent.service")
# systemd gives these to the unit by itself (StateDirectory, RuntimeDirectory).
WRITABLE = (Path("/var/lib/edge-agent"), Path("/run/edge-agent"), Path("/var/run/edge-agent"))
HOMES = (Path("/home"), Path("/root"), Path("/run/user"))  # what ProtectHome hides
TEMPORARY = (Path("/tmp"), Path("/var/tmp"))  # what PrivateTmp hides
# Where runtimes and systemd take orders from root. docker.sock is systemd's (docker.socket), which
# keeps it while Docker restarts.
ORDERS = tuple(
    Path(path)
    for path in (
        "/run/containerd",
        "/run/k3s/containerd",
        "/run/crio",
        "/run/podman",
        "/run/docker.sock",
        "/run/docker/containerd",
        "/run/docker/plugins",
        "/run/cri-dockerd.sock",
        "/run/dbus",
        "/run/systemd/private",
    )
)


@dataclass(frozen=True)
class Needs:
    """What the unit must allow the agent, beyond the template."""

    writable: tuple[Path, ...] = ()  # folders outside of WRITABLE
    home: bool = False  # reads something below HOMES
    hidden: tuple[Path, ...] = ()  # would be out of reach whatever the unit says
    inaccessible: tuple[Path, ...] = ORDERS  # those of ORDERS that may be out of reach


def needs(config: AgentConfig, paths: Iterable[Path]) -> Needs:
    """The needs of `config`; `paths` are the program's own and the configuration file."""
    written = [config.state_dir, config.control_socket.parent]
    read = [*paths, config.plugin_dir, *config.nri.sockets]
    if config.mqtt is not None:
        mqtt = config.mqtt
        files = (mqtt.password_file, mqtt.ca_file, mqtt.cert_file, mqtt.key_file)
        read += [file for file in files if file is not None]
    if config.updates is not None:
        read.append(config.updates.trust_dir)
    touched = [*written, *read]
    return Needs(
        writable=tuple(dict.fromkeys(path for path in written if not _below(path, WRITABLE))),
        home=any(_below(path, HOMES) for path in touched),
        hidden=tuple(dict.fromkeys(path for path in touched if _below(path, TEMPORARY))),
        inaccessible=tuple(
            path for path in ORDERS if not any(_real(each).is_relative_to(path) for each in touched)
        ),
    )


def render(command: Sequence[str], needed: Needs = Needs()) -> str:
    """The unit's text; `command` runs the agent, and its first word is an absolute path."""
    program, *words = command
    line = [quoted(program), *(quoted(word).replace("$", "$$") for word in words)]
    inaccessible = "".join(f"InaccessiblePaths=-{path}\n" for path in needed.inaccessible)
    writable = "".join(f"ReadWritePaths={quoted(str(path))}\n" for path in needed.writable)
    return (
        TEMPLATE.read_text()
        .replace("@COMMAND@", " ".join(line))
        .replace("@HOME@", "read-only" if needed.home else "yes")
        .replace("@WRITABLE@\n", writable + "\n")
        .replace("@HIDDEN@\n", inaccessible)
    )


def quoted(word: str) -> str:
    """`word` as systemd.syntax(7) reads it back: specifiers, spaces and quotes."""
    word = word.replace("%", "%%")
    if word and not set(word) & set(" \t\n;'\"\\"):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _real(path: Path) -> Path:
    """/var/run is /run, on every system with systemd."""
    inside = path.is_relative_to("/var/run")
    return Path("/run") / path.relative_to("/var/run") if inside else path


def _below(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)
