"""How the commands of `edge-agent fleet` are declared: arguments that several share, and types.

A command's own module, with all that it imports, is loaded when the command runs.
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
