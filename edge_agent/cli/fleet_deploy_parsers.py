"""The parsers of the commands that change what nodes run: publish, plan, deploy, sign, rollout."""

from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli.fleet_arguments import (
    add_generation,
    add_yes,
    changing,
    command,
    from_one,
    index,
    percent,
)

if TYPE_CHECKING:
    from edge_agent.cli import Subparsers


def publish(commands: "Subparsers") -> None:
    parser = command(commands, "publish", "fleet_deploy", "put a plugin onto the broker")
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


def plan(commands: "Subparsers") -> None:
    text = "show what deployment.toml would change on which nodes"
    command(commands, "plan", "fleet_deploy", text, function="plan_command")


def deploy(commands: "Subparsers") -> None:
    text = "sign deployment.toml and publish it"
    parser = changing(commands, "deploy", "fleet_deploy", text)
    parser.add_argument(
        "--signed", type=Path, metavar="FILE", help="publish this file, which enough have signed"
    )


def sign(commands: "Subparsers") -> None:
    text = "add your signature to what another operator prepared"
    parser = command(commands, "sign", "fleet_deploy", text)
    parser.add_argument("file", type=Path, metavar="FILE")
    add_generation(parser)
    add_yes(parser)


def rollout(commands: "Subparsers") -> None:
    text = "bring a published version to a part of the nodes, then to more"
    parser = changing(commands, "rollout", "fleet_rollout", text)
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("version", metavar="VERSION")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--percent", type=percent, metavar="N", help="of the nodes (default: the first step)"
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
        help="begin with so many of the nodes that are online",
    )
    what.add_argument("--advance", action="store_true", help="to the next step")
    what.add_argument("--pause", action="store_true", help="hold it: no --advance, no --watch")
    what.add_argument("--resume", action="store_true", help="let it go on")
    parser.add_argument("--index", type=index, metavar="NN", help="a new plugin's place: 00 to 99")
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
        type=from_one,
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


def rollback(commands: "Subparsers") -> None:
    text = "take the newest version of a plugin back"
    parser = changing(commands, "rollback", "fleet_rollout", text)
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "--uninstall",
        action="store_true",
        help="take also an only version back, which ends the plugin and deletes its state",
    )


PARSERS = (publish, plan, deploy, sign, rollout, rollback)
"""In the order of the help text."""
