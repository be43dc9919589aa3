"""`edge-agent fleet results` and `request`: what plugins report, and what one node answers."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import chain
from typing import Any, NamedTuple

from edge_agent import REQUEST_COMMANDS
from edge_agent.cli import OK, PROBLEM
from edge_agent.cli.fleet_deploy import opened
from edge_agent.cli.fleet_nodes import unknown_node
from edge_agent.cli.fleet_output import (
    BAD,
    CHANGED,
    GOOD,
    PLAIN,
    QUIET,
    line,
    show_json,
    some,
)
from edge_agent.errors import OperatorError
from edge_agent.fleet_protocol.packing import bytes_as_json
from edge_agent.operator.inbox import Inbox, ask
from edge_agent.operator.results import Item, subject

MAX_REPORT_CHARS = 200  # in a line; --json has all
OUTCOME_STYLES = {
    "ok": PLAIN,
    "adjusted": CHANGED,
    "would_adjust": CHANGED,
    "would_reject": CHANGED,
}
RECORD = "record"
DEFAULT_TIMEOUT_S = 60.0
STATE_STYLES = {"succeeded": GOOD, "failed": BAD}


def results(arguments: argparse.Namespace) -> int:
    """Show the results that waited at the broker for this folder; --follow: also new ones."""
    with opened(arguments) as fleet:
        inbox = Inbox(fleet)
        if arguments.forget:
            inbox.forget()
            if arguments.json:
                show_json({"kept": False})
            else:
                line("the broker keeps no results for this folder any more")
            return OK
        with inbox:
            if inbox.first_time and not arguments.json:
                line(
                    "from now on the broker keeps results for this folder, within its limits",
                    QUIET,
                )
            wanted = Wanted.of(arguments)
            found = inbox.items(arguments.follow, arguments.seconds)
            # Results that are not shown count as read, too.
            for item in chain(found, later(inbox.take_missing)):
                if not wanted.takes(item):
                    continue
                if arguments.json:
                    show_json(item.as_json())
                else:
                    line(*result_line(item))
            if inbox.more:
                print(
                    "more results arrive: run the command again, or with --follow", file=sys.stderr
                )
    return OK


def later(make: Callable[[], Iterable[Item]]) -> Iterator[Item]:
    """The items of `make`, called when the first is needed."""
    yield from make()


class Wanted(NamedTuple):
    """Which results are shown; an empty set means all."""

    nodes: frozenset[str] = frozenset()
    plugins: frozenset[str] = frozenset()
    outcomes: frozenset[str] = frozenset()

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> "Wanted":
        """From --node, --plugin and --outcome."""
        return cls(*map(frozenset, (arguments.node, arguments.plugin, arguments.outcome)))

    def takes(self, item: Item) -> bool:
        """A gap has only a node: it is shown whatever plugins and outcomes are wanted."""
        if self.nodes and item.node not in self.nodes:
            return False
        if item.kind != "record":
            return True
        name = str(item.record.get("plugin", ""))
        return (not self.plugins or bool({name, name[3:]} & self.plugins)) and (
            not self.outcomes or item.record.get("outcome") in self.outcomes
        )


ALL = Wanted()


def result_line(item: Item) -> tuple[str, str]:
    """A record or a gap for people, with its style."""
    if item.kind == "unreadable":
        return (
            f"{item.node or 'unknown node'}: a batch that cannot be read: {item.record['error']}",
            BAD,
        )
    if item.kind != "record":
        count = item.last - item.first + 1
        why = (
            "dropped by the node's full queue"
            if item.kind == "dropped"
            else "missing, or not here yet"
        )
        text = f"{item.node}: {some(count, 'record')} ({item.first} to {item.last}) {why}"
        return text, BAD
    record = item.record
    outcome = str(record.get("outcome", ""))
    words = [
        _clock(record.get("time")),
        item.node,
        str(record.get("plugin", "")),
        str(record.get("event", "")),
        outcome,
        subject(record),
    ]
    if isinstance(adjusted := record.get("adjusted"), list):
        words.append(",".join(map(str, adjusted)))
    if error := record.get("error"):
        words.append(str(error))
    if isinstance(reports := record.get("reports"), list):
        words += [_report(each) for each in reports if isinstance(each, Mapping)]
    return "  ".join(word for word in words if word), OUTCOME_STYLES.get(outcome, BAD)


def _report(report: Mapping[str, Any]) -> str:
    """A plugin's report (`edge.report`), cut to one line."""
    payload = report.get("payload")
    if isinstance(payload, Mapping):  # bytes, in JSON's form for them
        payload = payload.get("base64")
    elif isinstance(payload, bytes):
        payload = bytes_as_json(payload)
        payload = payload["base64"] if isinstance(payload, dict) else payload
    text = str(payload)
    cut = f"{text[:MAX_REPORT_CHARS]}..." if len(text) > MAX_REPORT_CHARS else text
    return f"{report.get('kind') or 'report'}: {cut}"


def _clock(seconds: object) -> str:
    try:
        return datetime.fromtimestamp(float(str(seconds))).strftime("%H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "--:--:--"


# --- requests


def request(arguments: argparse.Namespace) -> int:
    """Send a request and show its answers."""
    given = dict(_argument(text) for text in arguments.arg)
    _check_options(arguments)
    state = ""
    with opened(arguments) as fleet:
        name = fleet.settings.name
        if fleet.client.kept(f"{fleet.nodes_topic}/{arguments.node}/status") is None:
            raise unknown_node(arguments.node, fleet.view())  # one that never was has no session
        signers = fleet.keyring.at_hand(fleet.trust.keys)[:1]  # one is enough for a request
        if not signers and not arguments.json:
            line("none of the trusted keys is here: the request is not signed", QUIET)
        if arguments.verb == RECORD:
            from edge_agent.cli.fleet_record import record

            return record(fleet, arguments, given, signers)
        timeout_s = DEFAULT_TIMEOUT_S if arguments.timeout is None else arguments.timeout
        answers = ask(
            *(fleet.client, name, arguments.node, REQUEST_COMMANDS[arguments.verb], given),
            *(timeout_s, signers),
        )
        for answer in answers:
            state = str(answer.get("state"))
            if arguments.json:
                show_json(answer)
            else:
                show_answer(arguments.node, arguments.verb, answer)
    return OK if state == "succeeded" else PROBLEM


def _check_options(arguments: argparse.Namespace) -> None:
    """OperatorError: options that this request has no use for, or -o is missing."""
    if arguments.verb == RECORD:
        if arguments.output is None:
            raise OperatorError("record needs -o FILE.edgerec for what the node sends")
        if not arguments.output.parent.is_dir():
            raise OperatorError(f"{arguments.output}: there is no such folder")
        return
    for option in ("output", "plugin", "events", "count", "seconds", "redact"):
        if getattr(arguments, option) is not None:
            raise OperatorError(
                f"--{option} is for record alone; {arguments.verb} takes --arg NAME=VALUE"
            )


def _argument(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise OperatorError(f"--arg {text}: NAME=VALUE is meant, such as plugin=20-guard")
    if value in ("true", "false"):
        return name, value == "true"
    return name, int(value) if value.isdigit() else value


def show_answer(node: str, verb: str, answer: Mapping[str, Any]) -> None:
    """Print one answer to a request."""
    state = str(answer.get("state"))
    reason = f": {answer['reason']}" if answer.get("reason") else ""
    line(f"{node} {verb}: {state}{reason}", STATE_STYLES.get(state, QUIET))
    result = answer.get("result")
    if isinstance(result, Mapping):
        lines = result.get("lines")
        if isinstance(lines, list) and len(result) == 1:
            for each in lines:
                line(f"  {_log_line(each)}")
        else:
            for each in json.dumps(result, indent=2).splitlines():
                line(f"  {each}")


def _log_line(told: object) -> str:
    if not isinstance(told, Mapping):
        return str(told)
    words = (_clock(told.get("time")), *(told.get(key) for key in ("level", "source", "message")))
    return "  ".join(str(word) for word in words if word)
