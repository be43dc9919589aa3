"""The demonstration as text: scenes of three columns side by side, in colour on a terminal."""

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, TextIO

from google.protobuf.message import Message

from edge_agent.nri import difference
from edge_agent.sim.plugin_connection import Answer
from edge_agent.text import printable

# Styles of a text: ECMA-48, SGR.
PLAIN, HEAD, GOOD, CHANGED, BAD, QUIET, TITLE = "", "1", "32", "33", "31", "2", "1;36"

ABOUT = (
    "The real agent, in a temporary folder with a simulated container runtime that speaks NRI over "
    "a unix socket, and a small MQTT broker. No root, no network, nothing stays behind."
)
NEXT = (
    ("edge-agent plugin check FILE.wasm", "whether a plugin would run here"),
    ("edge-agent plugin run FILE.wasm --event create_container", "call one, see what it changes"),
    ("edge-agent doctor", "which container runtimes this machine has"),
    ("edge-agent fleet --help", "keys, a fleet folder, deployments, rollouts"),
    ("docs/plugins.md, docs/runtimes.md", "write a plugin, serve a real runtime"),
    ("docs/fleet.md, configs/mosquitto/", "a fleet of your own, in ten minutes"),
)
# Longer lines are harder to read; output that goes to no terminal has the second width.
MAX_COLUMNS, PIPED_COLUMNS = 120, 100
GAP = 2
SHARES = (22, 32, 22)  # of the three columns
MAX_FOUND_CHARS = 300

Piece = tuple[str, str]  # text and style


class Column:
    """One column of a scene, from the top."""

    def __init__(self) -> None:
        self._lines: list[tuple[str, str, int]] = []

    def add(self, head: str, *items: str, style: str = PLAIN, head_style: str = HEAD) -> None:
        """A line at the column's edge, and below it items of one style."""
        self._lines.append((head, head_style, 0))
        for item in items:
            self.item(item, style)

    def item(self, text: str, style: str = PLAIN, depth: int = 1) -> None:
        """A line `depth` steps to the right."""
        self._lines.append((text, style, depth))

    def wrapped(self, width: int) -> Iterator[Piece]:
        """The lines, each cut into pieces of at most `width`."""
        for text, style, depth in self._lines:
            indent = "  " * depth
            for line in textwrap.wrap(
                text,
                width,
                initial_indent=indent,
                subsequent_indent=f"{indent}  ",
                break_on_hyphens=False,
            ):
                yield line, style


@dataclass
class Scene:
    """One step of the demonstration: what it shows, and the checks that failed."""

    title: str
    about: str
    columns: tuple[str, str, str] = ("the runtime asks", "plugins answer", "over MQTT")
    asked: Column = field(default_factory=Column)
    answered: Column = field(default_factory=Column)
    reported: Column = field(default_factory=Column)
    outcome: Piece = ("", GOOD)
    failed: list[str] = field(default_factory=list)

    def check(self, text: str, holds: object, found: object = "") -> None:
        """Note that `text` does not hold; `found` is shown beside it."""
        if not holds:
            self.failed.append(f"{text}; found {str(found)[:MAX_FOUND_CHARS] or 'otherwise'}")


def show_answer(column: Column, answer: Answer) -> None:
    """A plugin's answer to the creation of a container, with the time that it took."""
    column.add(f"{answer.plugin}  {milliseconds(answer.latency_s)}")
    if answer.error:
        column.item("refuses", BAD)
        return
    request_type, reply_type = difference.message_types(answer.method)
    request: Message = request_type.FromString(answer.request)
    found = difference.changes(request, reply_type.FromString(answer.reply))
    styles = {difference.ADDED: GOOD, difference.CHANGED: CHANGED, difference.REMOVED: BAD}
    for change in found:
        column.item(str(change), styles.get(change.mark, PLAIN))
    if not found:
        column.item("no change", QUIET)


def show_results(column: Column, records: Sequence[dict[str, Any]]) -> None:
    """Results as they arrived over MQTT."""
    for record in records:
        column.add(f"#{record['seq']} {record['plugin']}")
        fields = [name.rpartition(".")[2] for name in record.get("adjusted", ())]
        words = f"{record['outcome']} {', '.join(fields)}".rstrip()
        column.item(words, {"adjusted": GOOD, "ok": PLAIN}.get(record["outcome"], BAD))
        if record.get("error"):
            # The other columns show where; the end of the text says why.
            column.item(printable(record["error"].rpartition(": ")[2]), BAD)
        for report in record.get("reports", ()):
            column.item(f"reports {report['kind']}, {len(report['payload'])} B")


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


class View:
    """Writes scenes to `out`; `colour` is for a terminal."""

    def __init__(self, out: TextIO, *, colour: bool) -> None:
        self._out = out
        self._colour = colour
        terminal = shutil.get_terminal_size().columns if out.isatty() else PIPED_COLUMNS
        self._width = min(MAX_COLUMNS, terminal)
        self._widths = [(self._width - 2 * GAP) * share // sum(SHARES) for share in SHARES]

    def opening(self) -> None:
        self._line(("edge-agent demo", TITLE))
        self.paragraph(ABOUT, QUIET)

    def paragraph(self, text: str, style: str = PLAIN) -> None:
        """`text` in lines of the screen's width."""
        for line in textwrap.wrap(text, self._width):
            self._line((line, style))

    def show(self, number: int, scene: Scene) -> None:
        """One finished scene."""
        self._line()
        self._line((f"{number}. {scene.title}", TITLE))
        self.paragraph(scene.about, QUIET)
        self._row([(title, TITLE) for title in scene.columns])
        columns = zip((scene.asked, scene.answered, scene.reported), self._widths, strict=True)
        for row in zip_longest(*(column.wrapped(width) for column, width in columns)):
            self._row([piece or ("", PLAIN) for piece in row])
        text, style = scene.outcome
        self.paragraph(f"=> {text}", style)
        for failure in scene.failed:
            self.paragraph(f"CHECK FAILED: {failure}", BAD)

    def closing(self, figures: Sequence[tuple[str, str]], seconds: float) -> None:
        """The figures of the whole run, and commands to try next."""
        self._line()
        self._line((f"In {seconds:.0f} s", TITLE))
        for name, value in figures:
            self.paragraph(f"{name:<22}{value}")
        self._line()
        self._line(("Next", TITLE))
        for command, purpose in NEXT:
            self._line((command, PLAIN))
            self._line((f"   {purpose}", QUIET))

    def _row(self, row: Sequence[Piece]) -> None:
        pieces: list[Piece] = []
        for (text, style), width in zip(row, self._widths, strict=True):
            pieces += [(text, style), (" " * (width - len(text) + GAP), PLAIN)]
        self._line(*pieces)

    def _line(self, *pieces: Piece) -> None:
        while pieces and not pieces[-1][0].strip():
            pieces = pieces[:-1]
        for text, style in pieces:
            self._out.write(f"\x1b[{style}m{text}\x1b[m" if style and self._colour else text)
        self._out.write("\n")
        self._out.flush()
