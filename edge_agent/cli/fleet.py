"""`edge-agent fleet`: the parsers of the operator's commands."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent import REQUEST_COMMANDS
from edge_agent.cli import USAGE
from edge_agent.cli.fleet_parsers import (
    PARSERS,
    add_filters,
    add_seconds,
    add_valid_for,
    add_yes,
    command,
    key_id,
)
from edge_agent.cli.record import add_choice

if TYPE_CHECKING:
    from edge_agent.cli import Subparsers

_FIRST_TIME = """\
the first time:
  edge-agent fleet keygen
  edge-agent fleet init FOLDER --name FLEET --broker mqtts://HOST:8883 ...
  cd FOLDER
  edge-agent fleet publish FILE.wasm --name NAME --version 1.0.0
  edge-agent fleet rollout NAME 1.0.0 --index 20 --percent 10 --first
  edge-agent fleet watch
docs/fleet.md is the guide.
"""


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser(
        "fleet",
        help="for the operator: publish, deploy and watch over a fleet's broker",
        description="Publishes plugins, signs deployments and watches nodes over the broker.",
        epilog=_FIRST_TIME,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=lambda _arguments: _help(parser))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for add in (
        *(_keygen, _init, *PARSERS),
        *(_console, _watch, _nodes, _node, _enrol, _request, _results, _doctor, _gc, _trust),
    ):
        add(commands)


def _help(parser: argparse.ArgumentParser) -> int:
    parser.print_help(sys.stderr)
    return USAGE


def _keygen(commands: "Subparsers") -> None:
    parser = command(commands, "keygen", "fleet_setup", "make a signing key", folder=False)
    parser.add_argument("name", nargs="?", help="the key's name (default: your login name)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--encrypt", action="store_true", help="ask for a passphrase for it")
    how.add_argument(
        "--token",
        metavar="URI",
        help="use the key in a token: pkcs11:token=LABEL;object=KEY?module-path=DRIVER.so"
        " (RFC 7512)",
    )


def _init(commands: "Subparsers") -> None:
    parser = command(commands, "init", "fleet_setup", "make a fleet's folder", folder=False)
    parser.add_argument(
        "path", type=Path, metavar="FOLDER", help="an empty folder, or one to create"
    )
    parser.add_argument("--name", help="the fleet's name (default: the folder's name)")
    parser.add_argument(
        "--broker", required=True, metavar="URL", help="mqtt://HOST:1883 or mqtts://HOST:8883 (TLS)"
    )
    for option, text in (
        ("ca-file", "certificate of the authority that signed the broker's certificate"),
        ("cert-file", "this operator's certificate"),
        ("key-file", "private key of that certificate, outside the folder"),
        ("username", "user name at the broker"),
        ("password-file", "file with that user's password, outside the folder"),
    ):
        parser.add_argument(f"--{option}", metavar="FILE", help=text)
    parser.add_argument(
        "--key",
        action="append",
        metavar="NAME",
        help="trust this key: a name in the keys' folder, or a public .pem file; may be"
        " repeated (default: the only key there is)",
    )
    parser.add_argument(
        "--threshold",
        type=int,
        metavar="N",
        help="number of signatures needed (default: 2, or 1 with one key)",
    )
    add_valid_for(parser)


def _console(commands: "Subparsers") -> None:
    text = "show the fleet in a browser, on this machine alone"
    parser = command(commands, "console", "fleet_console", text)
    parser.add_argument(
        "--port", type=int, default=8480, help="on 127.0.0.1; 0: any free one (default: 8480)"
    )
    parser.add_argument(
        "--no-browser", dest="browser", action="store_false", help="print the address only"
    )


def _watch(commands: "Subparsers") -> None:
    text = "show nodes, versions, failures and results as they arrive"
    parser = command(commands, "watch", "fleet_watch", text)
    add_filters(parser)
    add_seconds(parser)


def _nodes(commands: "Subparsers") -> None:
    command(commands, "nodes", "fleet_nodes", "list the nodes")


def _node(commands: "Subparsers") -> None:
    parser = command(commands, "node", "fleet_nodes", "show everything that one node reports")
    parser.add_argument("node", metavar="NAME")


def _enrol(commands: "Subparsers") -> None:
    text = "note a node's key; from then on watched rollouts count signed states only"
    parser = command(commands, "enrol", "fleet_setup", text)
    parser.add_argument("node", metavar="NAME")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="the board's STATE/node.pem (default: the key in its state, compared by you)",
    )
    what.add_argument(
        "--id",
        type=key_id,
        metavar="KEYID",
        help="accept only this key id, which `edge-agent status` shows on the board",
    )
    what.add_argument("--remove", action="store_true", help="remove the node")
    parser.add_argument(
        "--replace", action="store_true", help="replace the key of a board that was set up anew"
    )
    add_yes(parser)


def _request(commands: "Subparsers") -> None:
    text = "send a request to one node and show its answers"
    parser = command(commands, "request", "fleet_results", text)
    parser.add_argument("node", metavar="NODE")
    parser.add_argument("verb", choices=REQUEST_COMMANDS)
    parser.add_argument(
        "--arg",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="such as plugin=20-guard or lines=50; may be repeated",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="(default: 60; of record 120 more than --seconds)",
    )
    only = parser.add_argument_group(
        "record", "events of the node's plugins, if its [requests] allow names record"
    )
    only.add_argument("-o", "--output", type=Path, metavar="FILE.edgerec")
    add_choice(only)
    only.add_argument("--seconds", type=int, metavar="S", help="end after this time (default: 60)")


def _results(commands: "Subparsers") -> None:
    text = "show results of plugins: each record once, and which are missing"
    parser = command(commands, "results", "fleet_results", text)
    parser.add_argument("--follow", action="store_true", help="continue until interrupted")
    parser.add_argument(
        "--forget",
        action="store_true",
        help="end the session at the broker: it keeps no results for this folder",
    )
    add_filters(parser)
    add_seconds(parser)


def _doctor(commands: "Subparsers") -> None:
    text = "report what expires soon, and test whether the broker has what a fleet needs"
    parser = command(commands, "doctor", "fleet_upkeep", text)
    parser.add_argument("--broker", action="store_true", help="test the broker only")
    parser.add_argument(
        "--restarted",
        action="store_true",
        help="after a restart of the broker: look for the message that the last test left there",
    )


def _gc(commands: "Subparsers") -> None:
    text = "clear blobs from the broker that no deployment names"
    parser = command(commands, "gc", "fleet_upkeep", text, function="gc_command")
    add_yes(parser)


def _trust(commands: "Subparsers") -> None:
    parser = commands.add_parser("trust", help="change the trusted keys")
    below = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    text = "replace the trusted keys; present and new keys must sign"
    rotate = command(below, "rotate", "fleet_upkeep", text, function="trust_rotate")
    rotate.add_argument(
        "--add",
        action="append",
        default=[],
        metavar="KEY",
        help="a name in the keys' folder, or a public .pem file; may be repeated",
    )
    rotate.add_argument(
        "--remove", action="append", default=[], metavar="NAME", help="may be repeated"
    )
    rotate.add_argument(
        "--threshold", type=int, metavar="N", help="number of signatures needed from now on"
    )
    rotate.add_argument(
        "--new-epoch",
        action="store_true",
        help="start a new count of generations, if someone used up the numbers; keys may stay",
    )
    add_valid_for(rotate)
    rotate.add_argument(
        "--signed", type=Path, metavar="FILE", help="publish this file, which has enough signatures"
    )
    add_yes(rotate)
    rotate.set_defaults(renew=False)
    text = "extend the validity of the trusted keys"
    renew = command(below, "renew", "fleet_upkeep", text, function="trust_rotate")
    add_valid_for(renew)
    add_yes(renew)
    renew.set_defaults(renew=True, add=[], remove=[], threshold=None, new_epoch=False, signed=None)
