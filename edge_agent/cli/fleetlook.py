"""The commands of `edge-agent fleet` that look at nodes, ask them, and read what they report."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import chain
from typing import Any, NamedTuple

from edge_agent.cli import OK, PROBLEM
from edge_agent.cli.fleetdeploy import opened
from edge_agent.cli.fleetout import (
    BAD,
    CHANGED,
    GOOD,
    PLAIN,
    QUIET,
    Cell,
    line,
    show_json,
    show_table,
    some,
    without_state,
)
from edge_agent.errors import OperatorError
from edge_agent.fleet_protocol.packing import bytes_as_json
from edge_agent.operator import expiry, releases
from edge_agent.operator.asking import ask
from edge_agent.operator.inbox import Inbox
from edge_agent.operator.overview import behind, named
from edge_agent.operator.results import Item
from edge_agent.operator.view import Node, View
from edge_agent.store.digest import short
from edge_agent.text import printable
from edge_agent.verbs import COMMANDS

MAX_REPORT_CHARS = 200  # in a line; --json has all

NODE_STYLES = {"online": GOOD, "offline": QUIET, "lost": BAD}
PLUGIN_STYLES = {"running": GOOD, "failed": BAD, "quarantined": BAD}
OUTCOME_STYLES = {"ok": PLAIN, "adjusted": CHANGED}
STATE_STYLES = {"succeeded": GOOD, "failed": BAD}


def nodes(arguments: argparse.Namespace) -> int:
    """One line for each node."""
    with opened(arguments) as fleet:
        view, now = fleet.view(proven=False), fleet.current(proven=False)
    code = show_nodes(view, fleet.settings.name, arguments.json, fleet.trust.version)
    if not fleet.client.may_mark and not arguments.json:
        line("whether that is all is not proven: this account may not write blobs/mark/+", QUIET)
    told = expiry.of_deployment(now.deployment, time.time())
    if told and not arguments.json:
        line(f"generation {now.generation}: {told}", BAD)
    return code


def show_nodes(view: View, fleet: str, as_json: bool, trust_version: int = 0) -> int:
    """What `nodes` prints, with its exit code; `trust_version` is that of fleet.toml."""
    if as_json:
        for node in view.sorted():
            show_json(_node_facts(node))
        return PROBLEM if view.unreadable or view.silent else OK
    if not view.nodes:
        line(f"no node of the fleet {fleet} has reported to this broker yet")
        return OK
    show_table(
        ("node", "status", "gen", "agent", "plugins"),
        [
            (
                node.name,
                Cell(node.status or "-", NODE_STYLES.get(node.status, CHANGED)),
                str(node.generation or "-"),
                node.agent or "-",
                Cell(_plugins(node, trust_version), BAD if _trouble(node) else PLAIN),
            )
            for node in view.sorted()
        ],
    )
    line(f"{view.online} of {some(len(view.nodes), 'node')} online", QUIET)
    if view.silent:
        line(without_state(view), BAD)
    if view.unreadable:
        line(f"{some(view.unreadable, 'node')} say what cannot be read", BAD)
    return PROBLEM if view.silent or view.unreadable else OK


def node(arguments: argparse.Namespace) -> int:
    """Everything of one node."""
    with opened(arguments) as fleet:
        view, names = fleet.view(proven=False), releases.named(fleet.folder)
        trust_version = fleet.trust.version
    found = view.nodes.get(arguments.node)
    if found is None:
        raise _unknown(arguments.node, view)
    show_node(found, names, arguments.json, trust_version)
    return OK


def show_node(found: Node, names: Mapping[str, str], as_json: bool, trust_version: int = 0) -> None:
    """What `node` prints; `names` has digests as `NAME VERSION`."""
    if as_json:
        show_json({**_node_facts(found), "state": found.state})
        return
    line(f"{found.name} is {found.status or 'unknown'}", NODE_STYLES.get(found.status, CHANGED))
    if found.unreadable:
        line(f"  says what cannot be read: {found.unreadable}", BAD)
    if found.unproven:
        line(f"  its state is not its own word: {found.unproven}", BAD)
    for what, text in _about(found):
        line(f"  {what:<11} {text}")
    rows = [
        (
            each.identity,
            each.version or "-",
            Cell(each.status or "-", PLUGIN_STYLES.get(each.status, CHANGED)),
            str(each.events),
            short(each.running),
            each.error,
        )
        for each in found.plugins
    ]
    if rows:
        line("")
        show_table(("plugin", "version", "status", "events", "digest", "error"), rows)
    for digest, reason in found.rejected.items():
        line(f"rejected {named(digest, names)}: {reason}", BAD)
    for fetching in found.fetching:
        trouble = f"; {fetching.trouble}" if fetching.trouble else ""
        text = f"fetching {named(fetching.digest, names)}: {fetching.progress:.0%}{trouble}"
        line(text, BAD if trouble else CHANGED)
    if behind(found, trust_version):
        line(f"trusts the keys of version {found.trust_version}, not of {trust_version}", BAD)
    if found.trust_expired:
        line(f"its trusted keys expired: it takes no deployment; {expiry.RENEW_TRUST}", BAD)
    if told := expiry.of_certificate(found.name, found.certificate, time.time()):
        line(f"its certificate {told}", BAD)
    if found.expired:
        line(f"generation {found.generation}, which it runs, expired: deploy again", BAD)
    for kind, refusal in found.refused.items():
        line(f"refuses the {kind} {refusal}", BAD)


def _unknown(node: str, view: View) -> OperatorError:
    known = ", ".join(sorted(view.nodes)[:10])
    known = f"; known are {known}" if known else ""
    return OperatorError(f"no node {printable(node)} has reported to this broker{known}")


def request(arguments: argparse.Namespace) -> int:
    """Send it and show the answers."""
    given = dict(_argument(text) for text in arguments.arg)
    state = ""
    with opened(arguments) as fleet:
        name = fleet.settings.name
        if fleet.client.kept(f"{fleet.nodes_topic}/{arguments.node}/status") is None:
            raise _unknown(arguments.node, fleet.view())  # one that never was has no session
        signers = fleet.keyring.at_hand(fleet.trust.keys)[:1]  # one is enough for a request
        if not signers and not arguments.json:
            line("no key here that the fleet trusts: the request is not signed", QUIET)
        answers = ask(
            *(fleet.client, name, arguments.node, COMMANDS[arguments.verb], given),
            *(arguments.timeout, signers),
        )
        for answer in answers:
            state = str(answer.get("state"))
            if arguments.json:
                show_json(answer)
            else:
                show_answer(arguments.node, arguments.verb, answer)
    return OK if state == "succeeded" else PROBLEM


def results(arguments: argparse.Namespace) -> int:
    """What waited at the broker for this folder, and with --follow what comes."""
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
                    "from now on the broker keeps results for this folder, within its own bounds",
                    QUIET,
                )
            wanted = Wanted.of(arguments)
            found = inbox.items(arguments.follow, arguments.seconds)
            # What is not shown is read all the same.
            for item in chain(found, later(inbox.take_missing)):
                if not wanted.takes(item):
                    continue
                if arguments.json:
                    show_json(item.as_json())
                else:
                    line(*result_line(item))
            if inbox.more:
                print("results go on coming: run it again, or with --follow", file=sys.stderr)
    return OK


def later(make: Callable[[], Iterable[Item]]) -> Iterator[Item]:
    """What `make` gives, once it is needed."""
    yield from make()


class Wanted(NamedTuple):
    """Which results are shown; an empty set stands for all."""

    nodes: frozenset[str] = frozenset()
    plugins: frozenset[str] = frozenset()
    outcomes: frozenset[str] = frozenset()

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> "Wanted":
        """As --node, --plugin and --outcome say."""
        return cls(*map(frozenset, (arguments.node, arguments.plugin, arguments.outcome)))

    def takes(self, item: Item) -> bool:
        """Of what is missing only the node is known: that is shown whatever else is asked for."""
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
        return f"{item.node or 'nobody'}: a batch that cannot be read: {item.record['error']}", BAD
    if item.kind != "record":
        count = item.last - item.first + 1
        why = "dropped by its full queue" if item.kind == "dropped" else "never came, or not yet"
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
        _subject(record),
    ]
    if isinstance(adjusted := record.get("adjusted"), list):
        words.append(",".join(map(str, adjusted)))
    if error := record.get("error"):
        words.append(str(error))
    if isinstance(reports := record.get("reports"), list):
        words += [_report(each) for each in reports if isinstance(each, Mapping)]
    return "  ".join(word for word in words if word), OUTCOME_STYLES.get(outcome, BAD)


def _report(report: Mapping[str, Any]) -> str:
    """What a plugin said by `edge.report`, as far as a line goes."""
    payload = report.get("payload")
    if isinstance(payload, Mapping):  # bytes, in JSON's form for them
        payload = payload.get("base64")
    elif isinstance(payload, bytes):
        payload = bytes_as_json(payload)
        payload = payload["base64"] if isinstance(payload, dict) else payload
    text = str(payload)
    cut = f"{text[:MAX_REPORT_CHARS]}..." if len(text) > MAX_REPORT_CHARS else text
    return f"{report.get('kind') or 'report'}: {cut}"


def _subject(record: Mapping[str, Any]) -> str:
    pod, container = record.get("pod"), record.get("container")
    parts = [
        str(each.get(key, ""))
        for each, key in ((pod, "namespace"), (pod, "name"), (container, "name"))
        if isinstance(each, Mapping)
    ]
    return "/".join(parts)


def _clock(seconds: object) -> str:
    try:
        return datetime.fromtimestamp(float(str(seconds))).strftime("%H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "--:--:--"


def _node_facts(node: Node) -> dict[str, object]:
    return {
        "node": node.name,
        "status": node.status,
        "agent": node.agent,
        "labels": node.labels,
        "generation": node.generation,
        "trust": node.trust_version,
        "expires": node.expires,
        "expired": node.expired,
        "trust_expired": node.trust_expired,
        "certificate_expires": int(node.certificate.expires) if node.certificate else 0,
        **({"state_missing": True} if node.status and not node.state else {}),
        **({"unreadable": node.unreadable} if node.unreadable else {}),
        "key": node.key_id,
        "enrolled": node.enrolled,
        **({"unproven": node.unproven} if node.unproven else {}),
        "plugins": [each._asdict() for each in node.plugins],
        "rejected": node.rejected,
        "refused": {kind: refusal._asdict() for kind, refusal in node.refused.items()},
    }


def _plugins(node: Node, trust_version: int) -> str:
    found: dict[str, None] = {}
    for each in node.plugins:
        text = f"{each.identity} {each.version}".strip()
        found[text if each.status == "running" else f"{text} ({each.status})"] = None
    if node.unreadable:
        found[f"unreadable {node.unreadable}"] = None
    if node.unproven:
        found[f"not its own word: {node.unproven}"] = None
    if node.rejected:
        found[f"{len(node.rejected)} rejected"] = None
    if behind(node, trust_version):
        found[f"trusts the keys of version {node.trust_version}"] = None
    if node.trust_expired:
        found["its trusted keys expired"] = None
    if node.certificate is not None and (told := node.certificate.ending(time.time())):
        found[f"its certificate {told}"] = None
    if node.expired:
        found["its deployment expired"] = None
    for kind, refusal in node.refused.items():
        found[f"refuses the {kind}: {refusal.reason}"] = None
    return ", ".join(found) or "-"


def _trouble(node: Node) -> bool:
    untold = node.unreadable or node.unproven
    wrong = node.rejected or node.refused or untold or node.expired or node.trust_expired
    ends = node.certificate is not None and node.certificate.ending(time.time())
    return bool(wrong or ends) or any(
        each.status in ("failed", "quarantined") for each in node.plugins
    )


def _about(node: Node) -> Iterator[tuple[str, str]]:
    state = node.state
    engine = state.get("engine")
    memory = state.get("memory")
    yield "agent", " ".join(filter(None, (node.agent, str(state.get("architecture", "")))))
    if isinstance(engine, Mapping):
        yield "engine", f"{engine.get('name')} {engine.get('version')}"
    yield "labels", ", ".join(f"{key}={value}" for key, value in sorted(node.labels.items())) or "-"
    yield "generation", str(node.generation or "none")
    if node.key_id:
        counts = "enrolled" if node.proven else "which is not enrolled"
        yield "key", f"{node.key_id}, {counts}"
    if node.trust_version:
        yield "trust", f"version {node.trust_version}"
    runtimes = state.get("runtimes")
    for each in runtimes if isinstance(runtimes, list) else ():
        if isinstance(each, Mapping):
            words = (str(each.get(key, "")) for key in ("name", "version", "state"))
            yield "runtime", " ".join(filter(None, words)) + f" at {each.get('socket')}"
    for identity, reason in sorted(node.without_code.items()):
        yield "compiles", f"{identity}, although there is machine code: {reason}"
    if isinstance(memory, Mapping) and isinstance(pss := memory.get("pss"), int):
        yield "memory", f"{pss / (1 << 20):.1f} MiB (PSS)"


def _log_line(told: object) -> str:
    if not isinstance(told, Mapping):
        return str(told)
    words = (_clock(told.get("time")), *(told.get(key) for key in ("level", "source", "message")))
    return "  ".join(str(word) for word in words if word)


def _argument(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise OperatorError(f"--arg {text}: NAME=VALUE is meant, such as plugin=20-guard")
    if value in ("true", "false"):
        return name, value == "true"
    return name, int(value) if value.isdigit() else value


def show_answer(node: str, verb: str, answer: Mapping[str, Any]) -> None:
    """One answer to a request."""
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
