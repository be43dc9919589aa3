"""`edge-agent record`: events of the running agent's plugins into a file, secrets hidden first."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli import OK, PROBLEM, add_config_option

if TYPE_CHECKING:
    from edge_agent.authors.recording import Redaction, Writer
    from edge_agent.cli import Subparsers

POLL_S = 0.2
DEFAULT_COUNT = 200
STDOUT = Path("-")


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser(
        "record", help="record events that plugins get, for `edge-agent plugin replay`"
    )
    add_config_option(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FILE.edgerec",
        help='"-" is the standard output',
    )
    add_choice(parser)
    parser.add_argument(
        "--seconds", type=float, metavar="S", help="end after this time, with what there is"
    )
    parser.add_argument(
        "--max-size",
        metavar="SIZE",
        help='end before the file is larger, such as "1MiB"',
    )
    parser.set_defaults(command=record)


def add_choice(parser: "argparse.ArgumentParser | argparse._ArgumentGroup") -> None:
    """The options that say what is recorded, and what is hidden of that."""
    parser.add_argument("--plugin", metavar="NN-name", help="of this plugin only (default: of all)")
    parser.add_argument(
        "--events", metavar="EVENT,...", help="such as create_container (default: all)"
    )
    parser.add_argument("--count", type=int, metavar="N", help="end after so many (default: 200)")
    parser.add_argument(
        "--redact",
        metavar="KIND[:GLOB],...",
        help="hide values of env, annotations, labels or args, by the names that fit"
        ' (default: env, and the annotation that has kubectl\'s manifest; "none" hides nothing)',
    )


def chosen_events(arguments: argparse.Namespace) -> list[str]:
    """The methods that --events names; none: all. ConfigError."""
    from edge_agent.errors import ConfigError
    from edge_agent.nri.events import BY_METHOD, method_named

    found = []
    for word in filter(None, (arguments.events or "").split(",")):
        if (method := method_named(word)) not in BY_METHOD:
            raise ConfigError(f"no such event: {word}")
        found.append(str(method))
    return found


def chosen_rules(arguments: argparse.Namespace) -> list[str]:
    """What --redact hides."""
    from edge_agent.config.model import HIDDEN_BY_DEFAULT

    if arguments.redact is None:
        return list(HIDDEN_BY_DEFAULT)
    return [] if arguments.redact == "none" else str(arguments.redact).split(",")


def record(arguments: argparse.Namespace) -> int:
    """Until there are enough, the time is over, the file is full, or Ctrl-C; 1 if there was none.

    ConfigError: wrong words. NotRunningError, ControlError: no agent answers. StoreError.
    """
    from edge_agent import __version__
    from edge_agent.authors import recording
    from edge_agent.cli.status import control_socket
    from edge_agent.store import files
    from edge_agent.text import printable

    named, rules = chosen_events(arguments), chosen_rules(arguments)
    writer = recording.Writer(_max_bytes(arguments.max_size))
    count = DEFAULT_COUNT if arguments.count is None else arguments.count
    begin = {"plugin": arguments.plugin or "", "events": named, "count": count}
    taken = _Taken(control_socket(arguments.config), begin, recording.Redaction(rules), writer)
    print(f"recording up to {count} events; Ctrl-C ends it", file=sys.stderr, flush=True)
    ended = taken.until(arguments.seconds)
    head = {"agent": __version__, "redacted": rules, "dropped": taken.dropped, "ended": ended}
    data = writer.end(head)
    lost = f", {taken.dropped} were lost" if taken.dropped else ""
    if arguments.output != STDOUT:
        files.write(arguments.output, data)
        print(f"{writer.count} events in {printable(str(arguments.output))}{lost}")
        return OK if writer.count else PROBLEM
    if not writer.count:
        print(f"no event came{lost}", file=sys.stderr)
        return PROBLEM
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return OK


def _max_bytes(text: str | None) -> int:
    """ConfigError."""
    from edge_agent.authors.recording import HEAD_BYTES, MAX_FILE_BYTES
    from edge_agent.config.units import parse_size
    from edge_agent.errors import ConfigError

    if text is None:
        return MAX_FILE_BYTES
    found = parse_size(text)
    if found is None or not HEAD_BYTES < found <= MAX_FILE_BYTES:
        raise ConfigError('--max-size must be a size such as "1MiB", from 9KiB to 256MiB')
    return found


class _Taken:
    """Events of one recording, each redacted and packed as soon as it is here."""

    def __init__(
        self,
        socket: Path,
        begin: dict[str, object],
        redaction: "Redaction",
        writer: "Writer",
    ) -> None:
        self._socket = socket
        self._redaction = redaction
        self._writer = writer
        self._full = False
        self._lost_there = self._lost_here = 0
        self._number = self._ask(begin=begin)["recording"]

    @property
    def dropped(self) -> int:
        """Events that the agent had no room for, and those that could not be redacted."""
        return self._lost_there + self._lost_here

    def until(self, seconds: float | None) -> str:
        """Take until all are here, the file is full, the time is over or Ctrl-C; which it was."""
        import time

        ends = time.monotonic() + seconds if seconds is not None else None
        ended = "count"
        try:
            while not self._take():
                if ends is not None and time.monotonic() >= ends:
                    self._take()
                    ended = "time"
                    break
                time.sleep(POLL_S)
        except KeyboardInterrupt:
            ended = "interrupt"
        self._ask(end=self._number)
        return "size" if self._full else ended

    def _take(self) -> bool:
        """All that waits; whether nothing more is to be taken."""
        from edge_agent.authors import recording

        while True:
            answer = self._ask(take=self._number)
            told, left = answer.get("events"), answer.get("left")
            self._lost_there = int(str(answer.get("dropped", 0)))
            for each in told if isinstance(told, list) else []:
                event = recording.redacted(recording.from_json(each), self._redaction)
                if event is None:
                    self._lost_here += 1
                elif not self._writer.add(event):
                    self._full = True
                    return True
            if left == 0:
                return True
            if not told:
                return False

    def _ask(self, **arguments: object) -> dict[str, object]:
        from edge_agent.control import ask
        from edge_agent.errors import ControlError

        answer = ask(self._socket, "record", **arguments)
        if "problem" in answer:
            raise ControlError(str(answer["problem"]))
        return answer
