"""`edge-agent fleet`: the operator's commands. Only the parser."""

import argparse
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli import USAGE
from edge_agent.verbs import COMMANDS

if TYPE_CHECKING:
    from edge_agent.cli import Subparsers

# Long enough for a fleet that changes little; the commands warn 8 months before.
TRUST_VALID_FOR = "730d"
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
        *(_keygen, _init, _publish, _plan, _deploy, _sign, _rollout, _rollback),
        *(_watch, _nodes, _node, _enrol, _request, _results, _doctor, _gc, _trust),
    ):
        add(commands)


def _help(parser: argparse.ArgumentParser) -> int:
    parser.print_help(sys.stderr)
    return USAGE


def _command(
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
            help="the fleet's folder (default: here or above)",
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
        help="where the private keys are (default: %(default)s)",
    )


def _keygen(commands: "Subparsers") -> None:
    parser = _command(commands, "keygen", "fleetsetup", "make a signing key", folder=False)
    parser.add_argument("name", nargs="?", help="the key's name (default: your login name)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--encrypt", action="store_true", help="ask for a passphrase for it")
    how.add_argument(
        "--token",
        metavar="URI",
        help="take the key that a token has: pkcs11:token=LABEL;object=KEY?module-path=DRIVER.so"
        " (RFC 7512)",
    )


def _init(commands: "Subparsers") -> None:
    parser = _command(commands, "init", "fleetsetup", "make a fleet's folder", folder=False)
    parser.add_argument("path", type=Path, metavar="FOLDER", help="where; it may be empty or new")
    parser.add_argument("--name", help="the fleet's name (default: that of the folder)")
    parser.add_argument(
        "--broker", required=True, metavar="URL", help="mqtt://HOST:1883 or mqtts://HOST:8883 (TLS)"
    )
    for option, text in (
        ("ca-file", "the authority that signed the broker's certificate"),
        ("cert-file", "this operator's certificate"),
        ("key-file", "its private key, which stays outside the folder"),
        ("username", "the user at the broker"),
        ("password-file", "that user's password, which stays outside the folder"),
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
        help="signatures needed (default: 2, or 1 where only one key is named)",
    )
    _add_valid_for(parser)


def _add_valid_for(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--valid-for",
        type=_validity,
        default=TRUST_VALID_FOR,
        metavar="TIME",
        help='how long the trusted keys count, or "none" (default: %(default)s); renew them before',
    )


def _publish(commands: "Subparsers") -> None:
    parser = _command(commands, "publish", "fleetdeploy", "put a plugin onto the broker")
    parser.add_argument("plugin", type=Path, metavar="PLUGIN.wasm")
    parser.add_argument("--name", required=True, help="the plugin's name")
    parser.add_argument("--version", required=True, help="its version, such as 1.2.0")
    parser.add_argument(
        "--code",
        action="store_true",
        help="compile it too, for the kinds of nodes that take machine code"
        ' ([updates] compiled = "accept")',
    )
    parser.add_argument(
        "--target",
        metavar="arm64,riscv64",
        help="with --code: for these processors, of amd64, arm64 and riscv64, whatever nodes say",
    )
    parser.add_argument(
        "--fuel",
        action="store_true",
        help="with --code: for a plugin with limits.fuel, which counts its instructions",
    )


def _plan(commands: "Subparsers") -> None:
    text = "show what deployment.toml would change on which nodes"
    _command(commands, "plan", "fleetdeploy", text, function="plan_command")


def _deploy(commands: "Subparsers") -> None:
    text = "sign deployment.toml and publish it"
    parser = _changing(commands, "deploy", "fleetdeploy", text)
    parser.add_argument(
        "--signed", type=Path, metavar="FILE", help="publish this file, which enough have signed"
    )


def _sign(commands: "Subparsers") -> None:
    text = "add your signature to what another operator prepared"
    parser = _command(commands, "sign", "fleetdeploy", text)
    parser.add_argument("file", type=Path, metavar="FILE")
    _add_generation(parser)
    _add_yes(parser)


def _rollout(commands: "Subparsers") -> None:
    text = "bring a published version to a part of the nodes, then to more"
    parser = _changing(commands, "rollout", "fleetrollout", text)
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("version", metavar="VERSION")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--percent", type=_percent, metavar="N", help="of the nodes (default: the first step)"
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
        type=_from_one,
        metavar="N",
        help="begin with so many of the nodes that are online",
    )
    what.add_argument("--advance", action="store_true", help="to the next step")
    what.add_argument("--pause", action="store_true", help="hold it: no --advance, no --watch")
    what.add_argument("--resume", action="store_true", help="let it go on")
    parser.add_argument("--index", type=_index, metavar="NN", help="a new plugin's place: 00 to 99")
    parser.add_argument(
        "--watch", action="store_true", help="advance by itself; go back when too many fail"
    )
    parser.add_argument(
        "--config-file",
        type=Path,
        metavar="FILE",
        help="the release's own configuration; VERSION may be a published one with +SOMETHING",
    )
    parser.add_argument(
        "--steps",
        metavar="LIST",
        help="percentages, and rings before them such as ring=canary (default: 10,25,50,100)",
    )
    parser.add_argument(
        "--soak", metavar="TIME", help="how long each step must hold (default: 60s)"
    )
    parser.add_argument(
        "--abort-on-failures",
        metavar="PERCENT",
        help="go back when more than this part of its nodes that are there fail (default: 5%%)",
    )
    parser.add_argument(
        "--at-least",
        type=_from_one,
        metavar="N",
        help="nodes that must run it before a step is passed (default: 1)",
    )
    parser.add_argument(
        "--min-percent", metavar="PERCENT", help="the same as a part of its nodes (default: 0%%)"
    )
    parser.add_argument(
        "--timeout",
        metavar="TIME",
        help="hold it, with exit code 1, when for so long no further node came to run it"
        ' (default: 60m; "none": wait for ever)',
    )


def _rollback(commands: "Subparsers") -> None:
    text = "take the newest version of a plugin back"
    parser = _changing(commands, "rollback", "fleetrollout", text)
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "--uninstall",
        action="store_true",
        help="take also an only version back, which ends the plugin and deletes its state",
    )


def _watch(commands: "Subparsers") -> None:
    text = "show nodes, versions, failures and results as they come"
    parser = _command(commands, "watch", "fleetwatch", text)
    _add_filters(parser)
    _add_seconds(parser)


def _nodes(commands: "Subparsers") -> None:
    _command(commands, "nodes", "fleetlook", "list the nodes")


def _node(commands: "Subparsers") -> None:
    parser = _command(commands, "node", "fleetlook", "show all that one node says of itself")
    parser.add_argument("node", metavar="NAME")


def _enrol(commands: "Subparsers") -> None:
    text = "note by which key a node signs what it says: only that counts in a watched rollout"
    parser = _command(commands, "enrol", "fleetenrol", text)
    parser.add_argument("node", metavar="NAME")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="the board's own STATE/node.pem (default: the key that its state names, to compare)",
    )
    what.add_argument(
        "--id",
        type=_key_id,
        metavar="KEYID",
        help="only if it is this one, as `edge-agent status` on the board shows it",
    )
    what.add_argument("--remove", action="store_true", help="take the node out")
    parser.add_argument(
        "--replace", action="store_true", help="in the place of another key, of a board set up anew"
    )
    _add_yes(parser)


def _request(commands: "Subparsers") -> None:
    text = "ask one node to do something now"
    parser = _command(commands, "request", "fleetlook", text)
    parser.add_argument("node", metavar="NODE")
    parser.add_argument("verb", choices=COMMANDS)
    parser.add_argument(
        "--arg",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="such as plugin=20-guard or lines=50; may be repeated",
    )
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="(default: %(default)g)"
    )


def _results(commands: "Subparsers") -> None:
    text = "show what plugins reported: each record once, gaps told"
    parser = _command(commands, "results", "fleetlook", text)
    parser.add_argument("--follow", action="store_true", help="go on until interrupted")
    parser.add_argument(
        "--forget", action="store_true", help="tell the broker to keep none for this folder"
    )
    _add_filters(parser)
    _add_seconds(parser)


def _doctor(commands: "Subparsers") -> None:
    text = "say what is about to end, and try out whether the broker does what a fleet needs"
    parser = _command(commands, "doctor", "fleetdoctor", text)
    parser.add_argument("--broker", action="store_true", help="the broker alone")
    parser.add_argument(
        "--restarted",
        action="store_true",
        help="the broker was restarted since: look for what was left there",
    )


def _gc(commands: "Subparsers") -> None:
    text = "clear blobs from the broker that no deployment names"
    parser = _command(commands, "gc", "fleettrust", text, function="gc_command")
    _add_yes(parser)


def _trust(commands: "Subparsers") -> None:
    parser = commands.add_parser("trust", help="change whose signatures count")
    below = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    text = "replace the trusted keys, signed by the present and the new"
    rotate = _command(below, "rotate", "fleettrust", text, function="trust_rotate")
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
    rotate.add_argument("--threshold", type=int, metavar="N", help="signatures needed from now on")
    rotate.add_argument(
        "--new-epoch",
        action="store_true",
        help="begin to count generations anew, where somebody drove them up; keys may stay",
    )
    _add_valid_for(rotate)
    rotate.add_argument(
        "--signed", type=Path, metavar="FILE", help="publish this file, which enough have signed"
    )
    _add_yes(rotate)
    rotate.set_defaults(renew=False)
    text = "let the same keys count for another while"
    renew = _command(below, "renew", "fleettrust", text, function="trust_rotate")
    _add_valid_for(renew)
    _add_yes(renew)
    renew.set_defaults(renew=True, add=[], remove=[], threshold=None, new_epoch=False, signed=None)


def _changing(commands: "Subparsers", name: str, module: str, text: str) -> argparse.ArgumentParser:
    """A command that deploys."""
    parser = _command(commands, name, module, text)
    _add_yes(parser)
    parser.add_argument(
        "--onto",
        type=int,
        metavar="GENERATION",
        help="replace this generation, which somebody else deployed",
    )
    _add_generation(parser)
    parser.add_argument(
        "--first", action="store_true", help="the fleet's first deployment: the broker has none yet"
    )
    return parser


def _add_generation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--generation",
        type=int,
        metavar="N",
        help="the number of the new deployment (default: the one after what is signed and known)",
    )


def _add_yes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")


def _add_filters(parser: argparse.ArgumentParser) -> None:
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


def _add_seconds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seconds", type=float, metavar="N", help="end after so many (default: never by itself)"
    )


def _validity(text: str) -> float | None:
    from edge_agent.config.units import VALIDITY_FORM, parse_validity

    if text == "none":
        return None
    seconds = parse_validity(text)
    if seconds is None:
        raise argparse.ArgumentTypeError(f'{VALIDITY_FORM}, or "none"')
    return seconds


def _percent(text: str) -> int:
    value = int(text.removesuffix("%"))
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError("from 0 to 100")
    return value


def _from_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("a whole number from 1")
    return value


def _key_id(text: str) -> str:
    found = text.strip().lower()
    if len(found) != 64 or not set(found) <= set("0123456789abcdef"):
        raise argparse.ArgumentTypeError("64 hexadecimal digits")
    return found


def _index(text: str) -> str:
    if len(text) != 2 or not text.isdigit():
        raise argparse.ArgumentTypeError("two digits, 00 to 99")
    return text
