"""What a deployment would change on which nodes, for people and as JSON."""

from collections.abc import Sequence

from edge_agent.cli.fleet_output import (
    BAD,
    CHANGED,
    GOOD,
    QUIET,
    Cell,
    line,
    show_json,
    show_table,
    some,
    without_state,
)
from edge_agent.operator import plan
from edge_agent.operator.enrolment import Enrolment
from edge_agent.operator.fleet import Prepared

MAX_NAMED = 20  # nodes of a step; --json has all
_STYLES = {"install": GOOD, "replace": CHANGED, "settings": CHANGED, "remove": BAD}


def show_plan(prepared: Prepared, as_json: bool) -> None:
    """Show what a deployment would change on which nodes."""
    view, document = prepared.view, prepared.deployment
    if as_json:
        show_json(
            {
                "fleet": document.fleet,
                "generation": document.generation,
                "epoch": document.epoch,
                "over": prepared.current.generation,
                "nodes": len(view.nodes),
                "online": view.online,
                "ahead": list(prepared.ahead),
                "changes": [change._asdict() for change in prepared.changes],
                "unrestricted": plan.unrestricted(document),
                "steps": [each._asdict() for each in plan.steps(view, document)],
                "differences": [
                    each._asdict()
                    for each in plan.differences(view, prepared.current.deployment, document)
                ],
                "refusing": plan.refusing(view, document),
                "code": [each._asdict() for each in plan.codes(view, document)],
                "enrolled": len(view.enrolment.keys),
                "require_signed_states": view.enrolment.strict,
            }
        )
        return
    if prepared.current.problem:
        line(f"the broker has no valid deployment of this fleet: {prepared.current.problem}", BAD)
    over = prepared.current.generation
    epoch = f" of epoch {document.epoch}" if document.epoch else ""
    line(
        f"generation {document.generation}{epoch} for the fleet {document.fleet}, "
        + (f"over generation {over}" if over else "the first")
    )
    if prepared.ahead:
        line(
            f"{some(len(prepared.ahead), 'node')} would refuse it: they report that they accepted"
            f" a later one, of which nothing signed is known here: {_listed(prepared.ahead)}",
            BAD,
        )
    if view.silent:
        line(without_state(view), BAD)
    if not view.nodes:
        line("no node has reported yet; nodes take it when they connect", CHANGED)
    elif not prepared.changes:
        line(f"nothing changes on the {some(len(view.nodes), 'node')} known", QUIET)
    else:
        show_table(
            ("plugin", "change", "from", "to", "nodes"),
            [_group_row(group) for group in plan.grouped(prepared.changes)],
        )
    if free := plan.unrestricted(document):
        line(
            f"may change everything, hooks on the node included: {_listed(free)}"
            ' (permissions = ["*"] in deployment.toml)',
            CHANGED,
        )
    for code in plan.codes(view, document):
        line(
            f"machine code for {code.target} of {code.name} {code.version}, which"
            f" {some(len(code.nodes), 'node')} would run unchecked: {code.digest}",
            CHANGED,
        )
    for step in plan.steps(view, document):
        _show_step(step)
    if plan.steps(view, document):
        show_enrolment(view.enrolment)
    for each in plan.differences(view, prepared.current.deployment, document):
        _show_difference(each)
    if any(each.kind == "settings" and each.before == each.after for each in prepared.changes):
        line("this changes on all of them at once; in steps: edge-agent fleet rollout NAME", QUIET)
        line("  VERSION+2 --config-file FILE, a release with its own configuration", QUIET)
    if refusing := plan.refusing(view, document):
        line(
            f"{some(len(refusing), 'node')} would refuse it: their agents know no named nodes,"
            f" rings or configuration of a release: {_listed(refusing)}",
            BAD,
        )


def show_enrolment(enrolment: Enrolment) -> None:
    """Warn that a watched rollout has no proof of nodes' states."""
    if not enrolment.keys and not enrolment.strict:
        line(
            "no node is enrolled: a watched rollout relies on the broker, and a dishonest"
            " one could advance it (edge-agent fleet enrol NODE)",
            QUIET,
        )


def _show_step(step: plan.Step) -> None:
    head = f"{step.name} {step.version} at {step.reach}"
    if step.nodes:
        names = _listed(step.nodes, MAX_NAMED)
        line(f"{head}: {len(step.nodes)} of {some(step.all, 'node')}: {names}")
    else:
        line(f"{head}: none of the {some(step.all, 'node')} known is in it", BAD)


def _show_difference(difference: plan.Difference) -> None:
    line(f"{difference.identity}: configuration on {some(difference.nodes, 'node')}")
    for each in difference.text.splitlines():
        style = {"+": GOOD, "-": BAD}.get(each[:1], QUIET)
        line(f"  {each}", style)


def _group_row(group: plan.Group) -> Sequence[Cell | str]:
    away = f" ({group.offline} not online)" if group.offline else ""
    return (
        group.identity,
        Cell(group.kind, _STYLES.get(group.kind, BAD)),
        group.before or "-",
        group.after or "-",
        f"{len(group.nodes)}{away}: {_listed(group.nodes)}",
    )


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
