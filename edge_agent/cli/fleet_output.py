"""The output of the commands of the fleet: on a terminal with rich, elsewhere plain lines.

With --json neither: one object, or one for each line.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from edge_agent.cli.status import table as plain_table
from edge_agent.errors import OperatorError
from edge_agent.operator import plan
from edge_agent.operator.enrolment import Enrolment
from edge_agent.operator.fleet import Prepared
from edge_agent.text import MAX_LINE_CHARS, printable

if TYPE_CHECKING:
    from rich.console import Console

    from edge_agent.operator.view import View

# A column is as wide as its widest cell: a long name or error must not hide the other columns.
MAX_CELL_CHARS = 300
GOOD, BAD, CHANGED, QUIET, PLAIN = "green", "red", "yellow", "dim", ""


class Cell(NamedTuple):
    """A text with its style."""

    text: str
    style: str = PLAIN


Row = Sequence[Cell | str]


def on_terminal() -> bool:
    """Whether the output is a terminal and rich is installed."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and _console() is not None


def line(text: str, style: str = PLAIN) -> None:
    """Print one line; control characters in it are escaped (edge_agent/text)."""
    text = printable(text, MAX_LINE_CHARS)
    console = _console() if on_terminal() else None
    if console is None:
        print(text)
    else:
        console.print(text, style=style or None, markup=False, highlight=False)


def lines(text: str) -> None:
    """Print several lines."""
    for each in text.splitlines():
        line(each)


def show_json(value: object) -> None:
    """Print one line of JSON."""
    print(json.dumps(value, separators=(", ", ": "), default=str), flush=True)


def show_table(columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Print a table that fits the terminal."""
    cells = [[_cell(each) for each in row] for row in rows]
    console = _console() if on_terminal() else None
    if console is None:
        print(plain_table(columns, [[cell.text for cell in row] for row in cells]))
    else:
        console.print(rich_table(columns, cells))


def rich_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> object:
    """A table for rich. The first column is shown in full, the last takes the remaining width."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        last = number == len(columns) - 1
        table.add_column(
            column.upper(),
            no_wrap=not last,
            overflow="fold" if last else "ellipsis",
        )
    for row in rows:
        table.add_row(*(Text(cell.text, cell.style) for cell in row))
    return table


def _cell(given: Cell | str) -> Cell:
    text, style = given if isinstance(given, Cell) else (given, PLAIN)
    return Cell(printable(text, MAX_CELL_CHARS), style)


def without_state(view: "View") -> str:
    """The line about nodes without a state."""
    named = ", ".join(view.silent[:5]) + (", ..." if len(view.silent) > 5 else "")
    return f"{some(len(view.silent), 'node')} with a status and without a state: {named}"


def size(count: int) -> str:
    """Bytes for people."""
    for unit, factor in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def some(count: int, what: str) -> str:
    """`3 nodes`, `1 node`."""
    return f"{count} {what}{'s' * (count != 1)}"


def confirm(question: str, arguments: argparse.Namespace) -> None:
    """Ask for confirmation, unless --yes was given. OperatorError: no, or --json or no terminal."""
    if arguments.yes:
        return
    if arguments.json or not sys.stdin.isatty():
        raise OperatorError("nothing was changed: without a terminal to ask at, give --yes")
    print(f"{printable(question, MAX_LINE_CHARS)} [y/N] ", end="", flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise OperatorError("nothing was changed")


@contextmanager
def progress(text: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar over bytes on a terminal, nothing elsewhere; call it with (done, all)."""
    console = _console() if on_terminal() and not quiet else None
    if console is None:
        yield lambda _done, _all: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task(printable(text), total=None)
        yield lambda done, whole: bar.update(task, completed=done, total=whole)


def terminal() -> "Console":
    """The console; only after `on_terminal` returned True."""
    console = _console()
    assert console is not None
    return console


def _console() -> "Console | None":
    """None without the extra `fleet`."""
    try:
        from rich.console import Console
    except ImportError:
        return None
    no_color = bool(os.environ.get("NO_COLOR")) or None
    return Console(highlight=False, markup=False, emoji=False, no_color=no_color)


_UNKNOWN = {
    2: "no named nodes, rings or configuration of a release",
    3: "no monitor mode",
    4: "no one-shot plugins",
}
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
                "monitored": plan.monitored(document),
                "one_shot": plan.one_shot(document),
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
    if only := plan.monitored(document):
        line(f"only monitored, so that it changes and refuses nothing: {_listed(only)}", CHANGED)
    if fresh := plan.one_shot(document):
        line(f"a fresh instance for each event: {_listed(fresh)}", QUIET)
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
            f"{some(len(refusing), 'node')} would refuse it and keep what they run: their agents"
            f" know {_UNKNOWN[document.form]}: {_listed(refusing)}",
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
