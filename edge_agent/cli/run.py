"""`edge-agent run`: the agent itself."""

import argparse
import os
import sys
from typing import TYPE_CHECKING

from edge_agent.cli import add_config_option

if TYPE_CHECKING:
    from edge_agent.cli import Subparsers


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser(
        "run", help="serve the container runtimes until SIGTERM; SIGHUP re-reads everything"
    )
    add_config_option(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Read the configuration, start the log and hand over."""
    from edge_agent import logs, notify, process
    from edge_agent.config import load_agent_config

    environment = dict(os.environ)  # as the service manager gave it
    process.keep_heap_small()
    config = load_agent_config(arguments.config)
    handler = logs.start(
        config.log,
        no_color=bool(os.environ.get("NO_COLOR")),
        journal=os.environ.get("JOURNAL_STREAM", ""),
    )
    try:
        from edge_agent import agent

        notifier = notify.from_environment(os.environ, os.getpid())
        code = agent.run(config, arguments.config, notifier)
    finally:
        logs.stop(handler)
    if code == agent.AGAIN:
        # The same process, for whoever watches it, with everything else new.
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    if code == agent.BUSY:
        os._exit(0)
    return code
