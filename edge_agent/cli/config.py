"""`edge-agent config init` and `config check`: writes a first configuration, and checks one."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli import OK, add_config_option
from edge_agent.errors import ConfigError

if TYPE_CHECKING:
    from edge_agent.cli import Subparsers
    from edge_agent.config import AgentConfig


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser("config", help="write a first configuration, or check it")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    action = actions.add_parser("init", help="write an example that explains every key")
    add_config_option(action)
    action.set_defaults(command=init)
    action = actions.add_parser(
        "check", help="print the errors of a configuration, or its main settings"
    )
    add_config_option(action)
    action.set_defaults(command=check)


def init(arguments: argparse.Namespace) -> int:
    """Write the example. ConfigError: the file exists. StoreError: it cannot be written."""
    from edge_agent.config import parse_agent_config
    from edge_agent.store import files

    path = arguments.config.absolute()
    if path.exists() or path.is_symlink():
        raise ConfigError(f"{path} is there already: edit it, and try it with `config check`")
    text = example()
    config = parse_agent_config(path, text, hostname="node")
    files.make_folder(path.parent, 0o755)
    files.write(path, text.encode(), 0o644)
    print(f"wrote {path}: the defaults, with every key explained")
    print(f"plugins go to {config.plugin_dir}; `edge-agent doctor` says what is missing")
    return OK


def example() -> str:
    """The configuration that explains every key."""
    from edge_agent import config

    return Path(config.__file__).with_name("agent.toml").read_text()


def check(arguments: argparse.Namespace) -> int:
    """Print the main settings of a configuration. ConfigError: all that is wrong with it."""
    from edge_agent.config import load_agent_config

    config = load_agent_config(arguments.config)
    print(f"{arguments.config}: in order")
    for name, meaning in describe(config):
        print(f"  {name:10} {meaning}")
    return OK


def describe(config: "AgentConfig") -> list[tuple[str, str]]:
    """The main settings in words."""
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
