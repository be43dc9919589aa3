"""The screen of `watch` and `rollout --watch` on a terminal, with rich; redrawn after changes."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from edge_agent.cli.fleet_output import BAD, CHANGED, GOOD, QUIET
from edge_agent.operator import overview
from edge_agent.operator.deploy import Current
from edge_agent.operator.overview import Row, rows, troubles
from edge_agent.operator.view import View
from edge_agent.text import MAX_LINE_CHARS, printable

BAR_WIDTH = 16
MAX_TROUBLES = 5
MAX_LINES = 200  # kept; as many as fit are shown


class Screen:
    """A context manager: `draw` replaces the screen's content."""

    def __init__(
        self,
        console: Console,
        fleet: str,
        url: str,
        names: Mapping[str, str],
        trust_version: int = 0,
    ) -> None:
        """`names` has digests as `NAME VERSION`; `trust_version` is that of fleet.toml."""
        self._trust_version = trust_version
        self._console = console
        self._fleet = fleet
        self._url = url
        self._names = names
        self._lines: deque[Text] = deque(maxlen=MAX_LINES)
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.__exit__(None, None, None)

    def say(self, text: str, style: str) -> None:
        """Add a line with the time below; older lines scroll away."""
        self.append(f"{datetime.now().strftime('%H:%M:%S')}  {text}", style)

    def append(self, text: str, style: str) -> None:
        """Add a line that has a time of its own."""
        self._lines.append(_line(text, style))

    def draw(self, view: View, current: Current, trouble: str, headline: str = "") -> None:
        """Draw the present fleet. `trouble`: why there is no connection to the broker."""
        self._live.update(self.content(view, current, trouble, headline), refresh=True)

    def content(self, view: View, current: Current, trouble: str, headline: str = "") -> Group:
        """The content for `draw`, with as many lines below as the terminal has room for."""
        parts: list[RenderableType] = [self._head(view, current, trouble)]
        if headline:
            parts.append(_line(headline, "bold"))
        releases = rows(view, current.deployment)
        if releases:
            parts += [Text(), _releases(releases)]
        wrong = troubles(view, self._names, self._trust_version, time.time())
        if wrong:
            parts.append(Text())
            for each in wrong[:MAX_TROUBLES]:
                parts.append(_line(f"{each.node}  {each.text}", BAD))
            if len(wrong) > MAX_TROUBLES:
                parts.append(Text(f"and {len(wrong) - MAX_TROUBLES} more", BAD))
        used = len(parts) + max(0, len(releases) - 1)
        room = max(0, self._console.height - 1 - used - 1)  # the cursor's line, an empty one
        if room and self._lines:
            parts += [Text(), *list(self._lines)[-room:]]
        return Group(*parts)

    def _head(self, view: View, current: Current, trouble: str) -> Text:
        head = Text(no_wrap=True, overflow="ellipsis")
        head.append(self._fleet, "bold")
        generation = f"generation {current.generation}" if current.generation else "no deployment"
        head.append(f"  {generation}  ", BAD if current.problem else "")
        if told := overview.of_deployment(current.deployment, time.time()):
            head.append(f"{told}  ", BAD)
        online, known = view.online, len(view.nodes)
        head.append(f"{online} of {known} nodes online", GOOD if online == known else CHANGED)
        head.append(_safe(f"  {trouble or self._url}"), BAD if trouble else QUIET)
        return head


def _line(text: str, style: str) -> Text:
    return Text(_safe(text), style, no_wrap=True, overflow="ellipsis")


def _safe(text: str) -> str:
    """Makes text safe to draw: names and errors come from nodes or the broker."""
    return printable(text, MAX_LINE_CHARS)


def _releases(found: Sequence[Row]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for number in range(5):
        table.add_column(
            no_wrap=True, overflow="ellipsis", justify="right" if number == 3 else "left"
        )
    last = ""
    for row in found:
        words = [f"{row.running} run it"] if row.running else []
        words += [f"{count} {word}" for word, count in sorted(row.on_the_way.items())]
        told = Text(_safe(", ".join(words)) or "for no node", QUIET)
        if row.failed:
            told.append(f"{', ' if words else ''}{row.failed} failed", BAD)
        version = row.version if row.percent is None else f"{row.version} {row.percent} %"
        table.add_row(
            Text(_safe(row.identity) if row.identity != last else "", "bold"),
            Text(_safe(version)),
            ProgressBar(
                total=max(row.wanted, 1),
                completed=row.running,
                width=BAR_WIDTH,
                complete_style=GOOD,
                finished_style=GOOD,
            ),
            Text(f"{row.running}/{row.wanted}"),
            told,
        )
        last = row.identity
    return table
