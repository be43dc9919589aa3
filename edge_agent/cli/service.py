"""`edge-agent service install` and `service remove`: a systemd service for the agent of this
installation (pip, pipx). A Debian package contains its own service."""

import argparse
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
    from edge_agent.cli.unit import needs, render

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
