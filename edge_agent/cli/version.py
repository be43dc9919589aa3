"""`edge-agent version`: what runs here."""

import argparse
from typing import TYPE_CHECKING

from edge_agent.cli import OK

if TYPE_CHECKING:
    from edge_agent.cli import Subparsers


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("version", help="say which version this is, and on what")
    parser.set_defaults(command=version)


def version(_arguments: argparse.Namespace) -> int:
    import platform

    from edge_agent import __version__

    print(f"edge-agent {__version__}, Python {platform.python_version()}, {platform.machine()}")
    return OK
