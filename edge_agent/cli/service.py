"""`edge-agent service install` and `service remove`: a systemd service for the agent of this
installation (pip, pipx). A Debian package contains its own service.

The unit is made from `edge-agent.service` beside this file.
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli import OK, add_config_option
from edge_agent.errors import ServiceError

if TYPE_CHECKING:
    from edge_agent.cli import Subparsers
    from edge_agent.config import AgentConfig

NAME = "edge-agent.service"
UNIT = Path("/etc/systemd/system") / NAME
# Where packages put theirs.
PACKAGED = (Path("/usr/lib/systemd/system") / NAME, Path("/lib/systemd/system") / NAME)
SYSTEMD = Path("/run/systemd/system")  # is there if it runs, sd_booted(3)
MARK = "# Written by `edge-agent service install`; a change is lost at the next one.\n"
SYSTEMCTL_TIMEOUT_S = 180.0  # above the 90 s that a start may take


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("service", help="install or remove the systemd service")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    action = actions.add_parser(
        "install", help="write the unit for this installation (again), enable and start it"
    )
    add_config_option(action)
    action.add_argument("--dry-run", action="store_true", help="only print the unit")
    action.set_defaults(command=install)
    action = actions.add_parser("remove", help="stop the agent and remove the unit")
    action.set_defaults(command=remove)


def install(arguments: argparse.Namespace) -> int:
    """Write, enable and start the service. ServiceError, ConfigError: before any change."""
    import os

    from edge_agent.cli.config import example
    from edge_agent.config import load_agent_config, parse_agent_config
    from edge_agent.store import files

    path = arguments.config.absolute()
    fresh = not path.exists()
    if fresh:  # then with the defaults, which is what the example says
        config = parse_agent_config(path, example(), hostname=os.uname().nodename)
    else:
        config = load_agent_config(path)
    text = MARK + _unit(config, path)
    if arguments.dry_run:
        print(text, end="")
        return OK
    _require_systemd()
    if fresh:
        files.make_folder(path.parent, 0o755)
        files.write(path, example().encode(), 0o644)
        print(f"wrote {path}: the defaults, with every key explained")
    for folder in (config.plugin_dir, config.state_dir):
        files.make_folder(folder, files.PRIVATE_FOLDER if folder == config.state_dir else 0o755)
    files.write(UNIT, text.encode(), 0o644)
    print(f"wrote {UNIT}")
    _systemctl("daemon-reload")
    _systemctl("enable", NAME)
    _systemctl("restart", NAME)
    print("\nThe agent runs. `edge-agent doctor` checks it, `journalctl -u edge-agent` is its log;")
    print(f"plugins go to {config.plugin_dir}.")
    return OK


def remove(_arguments: argparse.Namespace) -> int:
    """Stop, disable and remove the unit. ServiceError: before any change."""
    if not UNIT.exists():
        print(f"{UNIT} is not there: nothing to remove")
        return OK
    _require_systemd()
    _systemctl("disable", "--now", NAME)
    UNIT.unlink()
    print(f"removed {UNIT}")
    _systemctl("daemon-reload")
    print("\nConfiguration, plugins and state stay (/etc/edge-agent, /var/lib/edge-agent unless")
    print("configured otherwise); remove them yourself if they are of no use any more.")
    return OK


def _unit(config: "AgentConfig", path: Path) -> str:
    """The unit for this installation. ServiceError: no unit would work."""
    import subprocess
    import sys

    import edge_agent

    # Isolated, so that neither the environment nor the folder it starts in leads it astray.
    program = [sys.executable, "-I", "-m", "edge_agent"]
    tried = subprocess.run(
        [*program, "--version"], cwd="/", capture_output=True, text=True, check=False
    )
    if tried.returncode:
        raise ServiceError(
            f"{sys.executable} finds edge-agent only in this folder or for this user "
            f"({Path(edge_agent.__file__).parent}); install it with `pipx install --global` or "
            "in a virtual environment, and run this again from there"
        )
    interpreter = Path(sys.executable)
    needed = needs(
        config,
        [
            path,
            interpreter,
            interpreter.resolve(),
            Path(sys.prefix),
            Path(sys.base_prefix),
            Path(edge_agent.__file__),
        ],
    )
    if needed.hidden:
        raise ServiceError(
            f"{needed.hidden[0]}: the service has a temporary folder of its own and would not "
            "see this; use another place"
        )
    return render([*program, "run", "-c", str(path)], needed)


def _require_systemd() -> None:
    """ServiceError unless the unit may be changed here and now."""
    import os

    for packaged in PACKAGED:
        if packaged.exists():
            raise ServiceError(
                f"the Debian package brought {packaged}: use `systemctl enable --now {NAME}`, or "
                "remove the package (`apt remove edge-agent`) before this installation takes over"
            )
    if UNIT.exists() and not UNIT.read_text(errors="replace").startswith(MARK):
        raise ServiceError(f"{UNIT} was written by somebody else: move it away first")
    if not SYSTEMD.is_dir():
        raise ServiceError(
            "systemd does not run here; let whatever starts services on this machine run "
            "`edge-agent run` as root, and start it again when it ends"
        )
    if os.geteuid() != 0:
        raise ServiceError("only root may do this: try again with sudo")


def _systemctl(*words: str) -> None:
    import subprocess

    print("systemctl " + " ".join(words), flush=True)
    try:
        done = subprocess.run(
            ["systemctl", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=SYSTEMCTL_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServiceError(f"systemctl {' '.join(words)}: {error}") from error
    if done.returncode:
        raise ServiceError(
            f"systemctl {' '.join(words)}: {done.stderr.strip()}\n"
            f"the log tells more: journalctl -u {NAME}"
        )


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


def needs(config: "AgentConfig", paths: Iterable[Path]) -> Needs:
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
