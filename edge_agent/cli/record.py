"""`edge-agent record`: events of the running agent's plugins into a file, secrets hidden first."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli import OK, PROBLEM, add_config_option

if TYPE_CHECKING:
    from edge_agent.authors.recording import Recorded, Redaction
    from edge_agent.cli import Subparsers

POLL_S = 0.2


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser(
        "record", help="record events that plugins get, for `edge-agent plugin replay`"
    )
    add_config_option(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.edgerec")
    parser.add_argument("--plugin", metavar="NN-name", help="of this plugin only (default: of all)")
    parser.add_argument(
        "--events", metavar="EVENT,...", help="such as create_container (default: all)"
    )
    parser.add_argument(
        "--count", type=int, default=200, metavar="N", help="end after so many (default: 200)"
    )
    parser.add_argument(
        "--seconds", type=float, metavar="S", help="end after this time, with what there is"
    )
    parser.add_argument(
        "--redact",
        default="env",
        metavar="KIND[:GLOB],...",
        help="hide values of env, annotations, labels or args, by the names that fit"
        ' (default: env, all of them; "none" hides nothing)',
    )
    parser.set_defaults(command=record)


def record(arguments: argparse.Namespace) -> int:
    """Until there are enough, the time is over, or Ctrl-C; 1 if there was no event.

    ConfigError: wrong words. NotRunningError, ControlError: no agent answers. StoreError.
    """
    from edge_agent import __version__
    from edge_agent.authors import recording
    from edge_agent.authors.tryout import method_named
    from edge_agent.cli.status import control_socket
    from edge_agent.errors import ConfigError
    from edge_agent.store import files
    from edge_agent.text import printable

    named = []
    for word in filter(None, (arguments.events or "").split(",")):
        if (method := method_named(word)) is None:
            raise ConfigError(f"no such event: {word}")
        named.append(method)
    rules = [] if arguments.redact == "none" else arguments.redact.split(",")
    redaction = recording.Redaction(rules)
    begin = {"plugin": arguments.plugin or "", "events": named, "count": arguments.count}
    taken = _Taken(control_socket(arguments.config), begin, redaction)
    print(f"recording up to {arguments.count} events; Ctrl-C ends it", file=sys.stderr, flush=True)
    taken.until(arguments.seconds)
    head = {"agent": __version__, "redacted": rules, "dropped": taken.dropped}
    files.write(arguments.output, recording.encoded(head, taken.events))
    lost = f", {taken.dropped} were lost" if taken.dropped else ""
    print(f"{len(taken.events)} events in {printable(str(arguments.output))}{lost}")
    return OK if taken.events else PROBLEM


class _Taken:
    """Events of one recording, each redacted as soon as it is here."""

    def __init__(self, socket: Path, begin: dict[str, object], redaction: "Redaction") -> None:
        self._socket = socket
        self._redaction = redaction
        self.events: list[Recorded] = []
        self.dropped = 0
        self._lost_here = 0
        self._number = self._ask(begin=begin)["recording"]

    def until(self, seconds: float | None) -> None:
        """Take until all are here, the time is over or Ctrl-C."""
        import time

        ends = time.monotonic() + seconds if seconds is not None else None
        try:
            while not self._take():
                if ends is not None and time.monotonic() >= ends:
                    self._take()
                    break
                time.sleep(POLL_S)
        except KeyboardInterrupt:
            pass
        self._ask(end=self._number)

    def _take(self) -> bool:
        """All that waits; whether it was the last."""
        from edge_agent.authors import recording

        while True:
            answer = self._ask(take=self._number)
            told, left = answer.get("events"), answer.get("left")
            for each in told if isinstance(told, list) else []:
                event = recording.redacted(recording.from_json(each), self._redaction)
                if event is None:
                    self._lost_here += 1
                else:
                    self.events.append(event)
            self.dropped = int(str(answer.get("dropped", 0))) + self._lost_here
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
