"""`edge-agent config check`: is the configuration right?"""

import argparse
from typing import TYPE_CHECKING

from edge_agent.cli import OK, add_config_option

if TYPE_CHECKING:
    from edge_agent.cli import Subparsers
    from edge_agent.config import AgentConfig


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("config", help="check the configuration")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    action = actions.add_parser("check", help="say what is wrong with it, or what it means")
    add_config_option(action)
    action.set_defaults(command=check)


def check(arguments: argparse.Namespace) -> int:
    """Print what the configuration means; ConfigError says what is wrong with it."""
    from edge_agent.config import load_agent_config

    config = load_agent_config(arguments.config)
    print(f"{arguments.config}: in order")
    for name, meaning in describe(config):
        print(f"  {name:10} {meaning}")
    return OK


def describe(config: "AgentConfig") -> list[tuple[str, str]]:
    """The main settings, as a person would tell them."""
    from edge_agent.config.units import format_size

    limits = config.limits
    mqtt = config.mqtt
    return [
        ("node", f"{config.node} of the fleet {config.fleet}"),
        ("plugins", f"{config.plugin_dir}, engine {config.engine}"),
        ("runtimes", ", ".join(str(socket) for socket in config.nri.sockets)),
        ("limits", f"{format_size(limits.memory_bytes)} and {limits.deadline_ms} ms a call"),
        ("mqtt", ", ".join(broker.url for broker in mqtt.brokers) if mqtt else "none, alone"),
    ]
