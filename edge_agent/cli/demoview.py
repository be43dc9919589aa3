"""The demonstration as text: three columns side by side, in colour where somebody watches."""

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import TextIO

from edge_agent.sim.scene import Line, Scene, Tone

TITLE = "edge-agent demo"
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
# Longer lines do not read better; where no terminal says how wide it is, all columns fit in less.
WIDEST, PIPED = 120, 100
_GAP = 2
_SHARES = (22, 32, 22)  # of the three columns
# ECMA-48, SGR.
_TITLE = "1;36"
_STYLES = {
    Tone.PLAIN: "",
    Tone.HEAD: "1",
    Tone.GOOD: "32",
    Tone.CHANGED: "33",
    Tone.BAD: "31",
    Tone.QUIET: "2",
}

Figure = tuple[str, str]
Piece = tuple[str, str]  # text and style


class View:
    """Shows scenes as they are played; `colour` is for a terminal."""

    def __init__(self, out: TextIO, *, colour: bool) -> None:
        self._out = out
        self._colour = colour
        terminal = shutil.get_terminal_size().columns if out.isatty() else PIPED
        self._width = min(WIDEST, terminal)
        self._widths = [(self._width - 2 * _GAP) * share // sum(_SHARES) for share in _SHARES]

    def opening(self) -> None:
        """What is about to be seen."""
        self._line((TITLE, _TITLE))
        self.paragraph(ABOUT, _STYLES[Tone.QUIET])

    def paragraph(self, text: str, style: str = "") -> None:
        for line in textwrap.wrap(text, self._width):
            self._line((line, style))

    def show(self, number: int, scene: Scene) -> None:
        """One scene, played."""
        self._line()
        self._line((f"{number}. {scene.title}", _TITLE))
        self.paragraph(scene.said, _STYLES[Tone.QUIET])
        self._row([(title, _TITLE) for title in scene.columns])
        columns = (scene.asked, scene.answered, scene.heard)
        pieces = [list(_wrapped(*column)) for column in zip(columns, self._widths, strict=True)]
        for row in zip_longest(*pieces, fillvalue=("", "")):
            self._row(row)
        if scene.outcome is not None:
            self.paragraph(f"=> {scene.outcome.text}", _STYLES[scene.outcome.tone])
        for claim in scene.claims:
            if not claim.holds:
                found = claim.found[:300] or "otherwise"
                self.paragraph(f"NOT AS TOLD: {claim.text}; found {found}", _STYLES[Tone.BAD])

    def closing(self, figures: Sequence[Figure], seconds: float) -> None:
        """What it all amounted to, and what to try next."""
        self._line()
        self._line((f"In {seconds:.0f} s", _TITLE))
        for name, value in figures:
            self.paragraph(f"{name:<22}{value}")
        self._line()
        self._line(("Next", _TITLE))
        for command, what in NEXT:
            self._line((f"{command}", ""))
            self._line((f"   {what}", _STYLES[Tone.QUIET]))

    def _row(self, row: Sequence[Piece]) -> None:
        pieces: list[Piece] = []
        for (text, style), width in zip(row, self._widths, strict=True):
            pieces += [(text, style), (" " * (width - len(text) + _GAP), "")]
        self._line(*pieces)

    def _line(self, *pieces: Piece) -> None:
        while pieces and not pieces[-1][0].strip():
            pieces = pieces[:-1]
        for text, style in pieces:
            self._out.write(f"\x1b[{style}m{text}\x1b[m" if style and self._colour else text)
        self._out.write("\n")
        self._out.flush()


def _wrapped(lines: Sequence[Line], width: int) -> Iterator[Piece]:
    """What goes on, where the column is too narrow, a step further to the right."""
    for line in lines:
        indent = "  " * line.indent
        for text in textwrap.wrap(
            line.text,
            width,
            initial_indent=indent,
            subsequent_indent=f"{indent}  ",
            break_on_hyphens=False,
        ):
            yield text, _STYLES[line.tone]
