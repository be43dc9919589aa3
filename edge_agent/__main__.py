"""`edge-agent`: finds the command, runs it and turns errors into exit codes."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from edge_agent import __version__, lazy_import  # noqa: F401 - before all that it puts off
from edge_agent.cli import PROBLEM, USAGE
from edge_agent.errors import EdgeAgentError
from edge_agent.text import MAX_LINE_CHARS, printable

COMMANDS = {
    "run": "edge_agent.cli.run",
    "status": "edge_agent.cli.status",
    "doctor": "edge_agent.cli.doctor",
    "config": "edge_agent.cli.config",
    "plugin": "edge_agent.cli.plugin",
    "record": "edge_agent.cli.record",
    "store": "edge_agent.cli.store",
    "demo": "edge_agent.cli.demo",
    "fleet": "edge_agent.cli.fleet",
    "service": "edge_agent.cli.service",
    "version": "edge_agent.cli.version",
}
OPERATORS = ("demo", "fleet")
"""Commands that a board's package does not carry (docs/install.md)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command: 0 all is well, 1 a problem was found, 2 wrong usage."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] and words[0] in OPERATORS and words[0] in missing_commands():
        print(  # noqa: T201
            f"edge-agent {words[0]}: not installed here. The Debian package edge-agent-fleet adds"
            " this command; pip install 'edge-agent[fleet]' brings it along (docs/install.md)",
            file=sys.stderr,
        )
        return USAGE
    parsed = make_parser(words[:1]).parse_args(words)
    if not hasattr(parsed, "command"):
        make_parser([]).print_help(sys.stderr)
        return USAGE
    try:
        code: int = parsed.command(parsed)
        sys.stdout.flush()
        return code
    except EdgeAgentError as error:
        for line in str(error).splitlines():  # a name in it may be a guest's or a peer's
            print(printable(line, MAX_LINE_CHARS), file=sys.stderr)  # noqa: T201
        return PROBLEM
    except KeyboardInterrupt:
        return 128 + 2  # as a shell reports SIGINT
    except BrokenPipeError:
        # The reader left (`edge-agent status | head`); keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PROBLEM


class _Parser(argparse.ArgumentParser):
    """argparse makes a formatter for each option that it is told of. By itself that imports
    shutil with bz2 and lzma, 0.4 MB, for the terminal's width."""

    def _get_formatter(self) -> argparse.HelpFormatter:
        try:
            columns = int(os.environ.get("COLUMNS") or os.get_terminal_size().columns)
        except (OSError, ValueError):
            columns = 80
        return self.formatter_class(prog=self.prog, width=max(columns, 22) - 2)  # type: ignore[call-arg]


def missing_commands() -> list[str]:
    """The operator's commands that are not part of this installation."""
    from importlib.util import find_spec

    return [name for name in OPERATORS if find_spec(COMMANDS[name]) is None]


def make_parser(names: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for the commands `names`, so that `run` loads no other command's file.

    No known name, as for `--help`: all commands.
    """
    parser = _Parser(
        prog="edge-agent",
        description="Policy and telemetry plugins (NRI, WebAssembly) for containers.",
    )
    parser.add_argument("--version", action="version", version=f"edge-agent {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    known = [name for name in names if name in COMMANDS]
    if not known:
        missing = missing_commands()
        known = [name for name in COMMANDS if name not in missing]
        if missing:
            parser.epilog = f"not installed: {', '.join(missing)} (package edge-agent-fleet)"
    for name in known:
        import_module(COMMANDS[name]).add_parser(subparsers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
