"""The commands of `edge-agent`, one file for each group.

Each file has `add_parser(subparsers)`, which adds its command and ends with
`parser.set_defaults(command=function)`: the function takes the parsed arguments and
returns the exit code. Importing the file must stay cheap: what a command needs it
imports when it runs.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001

OK, PROBLEM, USAGE = 0, 1, 2  # exit codes

DEFAULT_CONFIG = Path("/etc/edge-agent/agent.toml")


def add_config_option(parser: argparse.ArgumentParser) -> None:
    """`-c FILE`, as every command has it that reads the agent's configuration."""
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        default=DEFAULT_CONFIG,
        metavar="FILE",
        help="the agent's configuration (default: %(default)s)",
    )
