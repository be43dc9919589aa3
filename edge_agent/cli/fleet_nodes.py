"""`edge-agent fleet nodes` and `node`: status and state of nodes."""

import argparse
import time
from collections.abc import Iterator, Mapping

from edge_agent.cli import OK, PROBLEM
from edge_agent.cli.fleet_deploy import opened
from edge_agent.cli.fleet_output import (
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
from edge_agent.operator import overview, releases
from edge_agent.operator.node_state import Node
from edge_agent.operator.overview import behind, named
from edge_agent.operator.view import View
from edge_agent.store.digest import short
from edge_agent.text import printable

NODE_STYLES = {"online": GOOD, "offline": QUIET, "lost": BAD}
PLUGIN_STYLES = {"running": GOOD, "failed": BAD, "quarantined": BAD}


def nodes(arguments: argparse.Namespace) -> int:
    """One line for each node."""
    with opened(arguments) as fleet:
        view, now = fleet.view(proven=False), fleet.current(proven=False)
    code = show_nodes(view, fleet.settings.name, arguments.json, fleet.trust.version)
    if not fleet.client.may_mark and not arguments.json:
        line("this list may be incomplete: this account may not write blobs/mark/+", QUIET)
    told = overview.of_deployment(now.deployment, time.time())
    if told and not arguments.json:
        line(f"generation {now.generation}: {told}", BAD)
    return code


def show_nodes(view: View, fleet: str, as_json: bool, trust_version: int = 0) -> int:
    """Print the table of `nodes`; the exit code. `trust_version` is that of fleet.toml."""
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
        line(f"{some(view.unreadable, 'node')} sent messages that cannot be read", BAD)
    return PROBLEM if view.silent or view.unreadable else OK


def node(arguments: argparse.Namespace) -> int:
    """Show everything that one node reports."""
    with opened(arguments) as fleet:
        view, names = fleet.view(proven=False), releases.named(fleet.folder)
        trust_version = fleet.trust.version
    found = view.nodes.get(arguments.node)
    if found is None:
        raise unknown_node(arguments.node, view)
    show_node(found, names, arguments.json, trust_version)
    return OK


def show_node(found: Node, names: Mapping[str, str], as_json: bool, trust_version: int = 0) -> None:
    """Print the facts of one node; `names` has digests as `NAME VERSION`."""
    if as_json:
        show_json({**_node_facts(found), "state": found.state})
        return
    line(f"{found.name} is {found.status or 'unknown'}", NODE_STYLES.get(found.status, CHANGED))
    if found.unreadable:
        line(f"  sent a message that cannot be read: {found.unreadable}", BAD)
    if found.unproven:
        line(f"  its state is not proven: {found.unproven}", BAD)
    for what, text in _about(found):
        line(f"  {what:<11} {text}")
    rows = [
        (
            each.identity,
            each.version or "-",
            Cell(each.status or "-", PLUGIN_STYLES.get(each.status, CHANGED)),
            str(each.events),
            short(each.running),
            "; ".join(filter(None, (each.monitored, each.error))),
        )
        for each in found.plugins
    ]
    if rows:
        line("")
        show_table(("plugin", "version", "status", "events", "digest", "remarks"), rows)
    for digest, reason in found.rejected.items():
        line(f"rejected {named(digest, names)}: {reason}", BAD)
    for fetching in found.fetching:
        trouble = f"; {fetching.trouble}" if fetching.trouble else ""
        text = f"fetching {named(fetching.digest, names)}: {fetching.progress:.0%}{trouble}"
        line(text, BAD if trouble else CHANGED)
    if behind(found, trust_version):
        line(f"trusts the keys of version {found.trust_version}, not of {trust_version}", BAD)
    if found.trust_expired:
        line(f"its trusted keys expired: it accepts no deployment; {overview.RENEW_TRUST}", BAD)
    if told := overview.of_certificate(found.name, found.certificate, time.time()):
        line(f"its certificate {told}", BAD)
    if found.expired:
        line(f"generation {found.generation}, which it runs, expired: deploy again", BAD)
    for kind, refusal in found.refused.items():
        line(f"refuses the {kind} {refusal}", BAD)


def unknown_node(node: str, view: View) -> OperatorError:
    known = ", ".join(sorted(view.nodes)[:10])
    known = f"; known are {known}" if known else ""
    return OperatorError(f"no node {printable(node)} has reported to this broker{known}")


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
        text = f"{each.identity} {each.version}".strip() + ", monitored" * bool(each.monitored)
        found[text if each.status == "running" else f"{text} ({each.status})"] = None
    if node.unreadable:
        found[f"unreadable {node.unreadable}"] = None
    if node.unproven:
        found[f"not proven: {node.unproven}"] = None
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
