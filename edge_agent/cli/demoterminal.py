"""The demonstration on a terminal, with `rich` (extra `demo`)."""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

from rich import box
from rich.console import Console, ConsoleOptions, Group
from rich.measure import Measurement
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from edge_agent.cli.demoview import ABOUT, NEXT, TITLE, Figure, View, columns, unmet
from edge_agent.sim.scene import Line, Scene, Tone

WIDEST = 120  # longer lines do not read better
STYLES = {
    Tone.PLAIN: "",
    Tone.HEAD: "bold",
    Tone.GOOD: "green",
    Tone.CHANGED: "yellow",
    Tone.BAD: "red",
    Tone.QUIET: "dim",
}


class TerminalView(View):
    """Three columns side by side; below each scene, what came of it."""

    def __init__(self, no_color: bool = False) -> None:
        self._console = Console(no_color=no_color, highlight=False)
        self._console.width = min(self._console.width, WIDEST)
        self._arrow = "→" if "utf" in self._console.encoding else "->"

    def opening(self) -> None:
        self._console.print()
        self._console.print(Text(TITLE, "bold cyan"))
        self._console.print(Text(ABOUT, "dim"))

    def act(self, about: str) -> None:
        self._console.print()
        self._console.print(Rule(style="bold cyan"))
        self._console.print(Text(about, "dim"))

    def left_out(self, why: str) -> None:
        self._console.print()
        self._console.print(Text(why, "yellow"))

    def playing(self) -> AbstractContextManager[object]:
        return self._console.status("", spinner="dots")

    def show(self, number: int, scene: Scene) -> None:
        title = Text.assemble((f"{number} ", "cyan"), (scene.title, "bold"))
        self._console.print()
        self._console.print(Rule(title, align="left", style="cyan"))
        self._console.print(Text(scene.said, "dim"))
        self._console.print(self._table(scene))
        if scene.outcome is not None:
            outcome = Text.assemble(
                f"{self._arrow} ", (scene.outcome.text, STYLES[scene.outcome.tone])
            )
            self._console.print(Padding(outcome, (0, 1)))
        for text in unmet(scene):
            self._console.print(Padding(Text(f"not as told: {text}", "bold red"), (0, 1)))

    def closing(self, figures: Sequence[Figure], seconds: float) -> None:
        self._console.print()
        self._console.print(Rule(Text(f"In {seconds:.0f} s", "bold"), align="left", style="cyan"))
        table = Table(box=None, show_header=False, pad_edge=True)
        for name, value in figures:
            table.add_row(Text(name, "dim"), value)
        self._console.print(table)
        self._console.print()
        self._console.print(Text("Next", "bold"))
        for command, what in NEXT:
            self._console.print(Padding(Text.assemble((command, "cyan")), (0, 0, 0, 1)))
            self._console.print(Padding(Text(what, "dim"), (0, 0, 0, 3)))
        self._console.print()

    def not_as_told(self, scenes: int) -> None:
        self._console.print(
            Text(f"{scenes} of the scenes did not go as told, see above.", "bold red")
        )

    def _table(self, scene: Scene) -> Table:
        table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False, header_style="cyan")
        for title, ratio in zip(scene.columns, (22, 30, 24), strict=True):
            table.add_column(title, ratio=ratio)
        table.add_row(*(Group(*map(_Hanging, lines)) for lines in columns(scene)))
        return table


class _Hanging:
    """A line that goes on, where its column is too narrow, a step further to the right."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> Iterator[Text]:
        indent = "  " * self._line.indent
        for text in textwrap.wrap(
            self._line.text,
            options.max_width,
            initial_indent=indent,
            subsequent_indent=f"{indent}  ",
            break_on_hyphens=False,
        ):
            yield Text(text, STYLES[self._line.tone])

    def __rich_measure__(self, _console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, options.max_width)
