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
        "--watch", action="store_true", help="advance automatically; go back if too many nodes fail"
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
