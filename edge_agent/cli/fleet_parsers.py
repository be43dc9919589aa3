"""How the commands of `edge-agent fleet` are declared: what several share, and the parsers of those
that change what nodes run (publish, plan, deploy, sign, rollout, rollback).

The module of a command, with all that it imports, is loaded when the command runs.
"""

import argparse
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_agent.cli import Subparsers

# For a fleet that changes little; the commands warn from 8 months before the end.
TRUST_VALID_FOR = "730d"


def command(
    commands: "Subparsers",
    name: str,
    module: str,
    text: str,
    *,
    function: str = "",
    folder: bool = True,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object, or one for each line"
    )
    if folder:
        parser.add_argument(
            "-C",
            "--folder",
            type=Path,
            default=Path(),
            metavar="FOLDER",
            help="the fleet's folder (default: the current folder or one above)",
        )
    _add_keys(parser)
    parser.set_defaults(command=_later(module, function or name))
    return parser


def _later(module: str, name: str) -> Callable[[argparse.Namespace], int]:
    def command(arguments: argparse.Namespace) -> int:
        code: int = getattr(import_module(f"edge_agent.cli.{module}"), name)(arguments)
        return code

    return command


def _add_keys(parser: argparse.ArgumentParser) -> None:
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    parser.add_argument(
        "--keys",
        type=Path,
        default=home / "edge-agent" / "keys",
        metavar="FOLDER",
        help="the folder of the private keys (default: %(default)s)",
    )


def changing(commands: "Subparsers", name: str, module: str, text: str) -> argparse.ArgumentParser:
    """The parser of a command that deploys."""
    parser = command(commands, name, module, text)
    add_yes(parser)
    parser.add_argument(
        "--onto",
        type=int,
        metavar="GENERATION",
        help="replace this generation, which another operator deployed",
    )
    add_generation(parser)
    parser.add_argument(
        "--first", action="store_true", help="the fleet's first deployment: the broker has none"
    )
    return parser


def add_generation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--generation",
        type=int,
        metavar="N",
        help="generation number of the new deployment (default: one above the last that is known)",
    )


def add_yes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask for confirmation")


def add_valid_for(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--valid-for",
        type=validity,
        default=TRUST_VALID_FOR,
        metavar="TIME",
        help='validity of the trusted keys, or "none" (default: %(default)s)',
    )


def add_filters(parser: argparse.ArgumentParser) -> None:
    for name, text in (
        ("node", "results of this node only"),
        ("plugin", "results of this plugin only, NAME or NN-name"),
        ("outcome", "results with this outcome only, such as error or adjusted"),
    ):
        parser.add_argument(
            f"--{name}",
            action="append",
            default=[],
            metavar="NAME" if name != "outcome" else "OUTCOME",
            help=f"{text}; may be repeated",
        )


def add_seconds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seconds",
        type=float,
        metavar="N",
        help="end after N seconds (default: no limit)",
    )


# --- types of arguments; each raises ValueError or ArgumentTypeError


def validity(text: str) -> float | None:
    from edge_agent.config.units import VALIDITY_FORM, parse_validity

    if text == "none":
        return None
    seconds = parse_validity(text)
    if seconds is None:
        raise argparse.ArgumentTypeError(f'{VALIDITY_FORM}, or "none"')
    return seconds


def percent(text: str) -> int:
    value = int(text.removesuffix("%"))
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError("from 0 to 100")
    return value


def from_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("a whole number from 1")
    return value


def key_id(text: str) -> str:
    found = text.strip().lower()
    if len(found) != 64 or not set(found) <= set("0123456789abcdef"):
        raise argparse.ArgumentTypeError("64 hexadecimal digits")
    return found


def index(text: str) -> str:
    if len(text) != 2 or not text.isdigit():
        raise argparse.ArgumentTypeError("two digits, 00 to 99")
    return text


def permissions(text: str) -> list[str]:
    return [] if text == "none" else [each.strip() for each in text.split(",")]


def publish(commands: "Subparsers") -> None:
    parser = command(commands, "publish", "fleet_deploy", "publish a plugin's module to the broker")
    parser.add_argument("plugin", type=Path, metavar="PLUGIN.wasm")
    parser.add_argument("--name", required=True, help="the plugin's name")
    parser.add_argument("--version", required=True, help="the plugin's version, such as 1.2.0")
    parser.add_argument(
        "--code",
        action="store_true",
        help="also compile it, for the kinds of nodes that accept machine code"
        ' ([updates] compiled = "accept")',
    )
    parser.add_argument(
        "--target",
        metavar="arm64,riscv64",
        help="with --code: for these processors (amd64, arm64, riscv64) instead of the nodes'",
    )
    parser.add_argument(
        "--fuel",
        action="store_true",
        help="with --code: for a plugin with limits.fuel",
    )


def plan(commands: "Subparsers") -> None:
    text = "show what deployment.toml would change on which nodes"
    command(commands, "plan", "fleet_deploy", text, function="plan_command")


def deploy(commands: "Subparsers") -> None:
    text = "sign deployment.toml and publish it"
    parser = changing(commands, "deploy", "fleet_deploy", text)
    parser.add_argument(
        "--signed", type=Path, metavar="FILE", help="publish this file, which has enough signatures"
    )


def sign(commands: "Subparsers") -> None:
    text = "add your signature to a file that another operator prepared"
    parser = command(commands, "sign", "fleet_deploy", text)
    parser.add_argument("file", type=Path, metavar="FILE")
    add_generation(parser)
    add_yes(parser)


def rollout(commands: "Subparsers") -> None:
    text = "deploy a published version to some nodes, then to more"
    parser = changing(commands, "rollout", "fleet_rollout", text)
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("version", metavar="VERSION")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--percent", type=percent, metavar="N", help="percentage of nodes (default: the first step)"
    )
    parser.add_argument(
        "--nodes", metavar="LIST", help="begin with these nodes, by name, separated by commas"
    )
    parser.add_argument(
        "--ring",
        action="append",
        default=[],
        metavar="LABEL=VALUE",
        help="begin with the nodes that have this label; may be repeated",
    )
    parser.add_argument(
        "--count",
        type=from_one,
        metavar="N",
        help="begin with N online nodes",
    )
    what.add_argument("--advance", action="store_true", help="take the next step")
    what.add_argument(
        "--pause", action="store_true", help="hold the rollout: --advance and --watch are refused"
    )
    what.add_argument("--resume", action="store_true", help="end the hold")
    parser.add_argument(
        "--index",
        type=index,
        metavar="NN",
        help="a new plugin's place in the order of calls: 00 to 99",
    )
    parser.add_argument(
        "--permissions",
        type=permissions,
        metavar="LIST",
        help="what a new plugin may change, such as linux.resources,update, or none"
        " (default: everything)",
    )
    parser.add_argument(
        "--watch", action="store_true", help="advance automatically; go back if too many nodes fail"
    )
    parser.add_argument(
        "--config-file",
        type=Path,
        metavar="FILE",
        help="the release's own configuration; VERSION may be a published one with +SOMETHING"
        " (default: that of the newest release of the same module)",
    )
    parser.add_argument(
        "--mode",
        choices=("enforce", "monitor"),
        help="monitor: nodes ask the plugin, report what it would do, and do nothing of it",
    )
    parser.add_argument(
        "--instance",
        choices=("lasting", "per-event"),
        help="per-event: each event has an instance of its own, thrown away afterwards",
    )
    parser.add_argument(
        "--replay",
        type=Path,
        metavar="FILE.edgerec",
        help="first compare it with the release before over these recorded events, and deploy"
        " nothing unless the differences are those of --expect",
    )
    parser.add_argument(
        "--expect",
        action="append",
        default=[],
        metavar="LINE",
        help='with --replay: a difference as plugin replay prints it, such as "now: + env MODE=*";'
        " may be repeated",
    )
    parser.add_argument(
        "--steps",
        metavar="LIST",
        help="percentages, and rings before them such as ring=canary (default: 10,25,50,100)",
    )
    parser.add_argument(
        "--soak",
        metavar="TIME",
        help="how long each step must hold without a problem (default: 60s)",
    )
    parser.add_argument(
        "--abort-on-failures",
        metavar="PERCENT",
        help="go back if more than this part of the online nodes fail (default: 5%%)",
    )
    parser.add_argument(
        "--at-least",
        type=from_one,
        metavar="N",
        help="nodes that must run the release before the next step (default: 1)",
    )
    parser.add_argument(
        "--min-percent", metavar="PERCENT", help="the same, as a part of the nodes (default: 0%%)"
    )
    parser.add_argument(
        "--timeout",
        metavar="TIME",
        help="hold the rollout, with exit code 1, if no further node runs it for this time"
        ' (default: 60m; "none": no limit)',
    )


def rollback(commands: "Subparsers") -> None:
    text = "remove the newest version of a plugin"
    parser = changing(commands, "rollback", "fleet_rollout", text)
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "--uninstall",
        action="store_true",
        help="remove also an only version, which ends the plugin and deletes its state",
    )


PARSERS = (publish, plan, deploy, sign, rollout, rollback)
"""In the order of the help text."""
