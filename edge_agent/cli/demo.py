"""`edge-agent demo`: the agent at work on one screen, without root, broker or container runtime."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from edge_agent.cli import OK, PROBLEM

if TYPE_CHECKING:
    from edge_agent.cli import Subparsers
    from edge_agent.sim.demo_view import Scene, View

T = TypeVar("T")

SECONDS = 40.0  # the scenes themselves take about 25
SCENES = 11  # in both acts
FLEET = (
    "Three boards of one fleet, each with its runtime and its agent, and an operator with a key. "
    "The broker only carries what was signed."
)


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser(
        "demo", help="show plugins at work on a simulated board, then a fleet of three"
    )
    parser.add_argument("--plain", action="store_true", help="without colours, as in a pipe")
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=SECONDS,
        metavar="N",
        help="last at least N seconds, to be read (default: %(default)g)",
    )
    parser.add_argument(
        "--act",
        type=int,
        choices=(1, 2),
        help="only the act about one board (1), or about a fleet of three (2)",
    )
    parser.set_defaults(command=demo)


def demo(arguments: argparse.Namespace) -> int:
    """Play both acts; 0 only if every check of every scene holds."""
    from edge_agent.sim import board_demo
    from edge_agent.sim.demo_view import View

    colour = sys.stdout.isatty() and not arguments.plain and not os.environ.get("NO_COLOR")
    view = View(sys.stdout, colour=colour)
    player = _Player(view, arguments.seconds)
    figures: list[tuple[str, str]] = []
    view.opening()
    if arguments.act != 2:
        with board_demo.stage() as board:
            player.play(board_demo.SCENES, board)
            figures = board.figures()
    if arguments.act != 1:
        print()
        try:
            import tomlkit  # noqa: F401  # the operator's commands edit files with it

            from edge_agent.sim import fleet_demo
        except ImportError as error:
            view.paragraph(
                f"The second act, a fleet, needs {error.name}: pip install 'edge-agent[demo]'"
            )
        else:
            view.paragraph(FLEET)
            with fleet_demo.stage() as fleet:
                player.play(fleet_demo.SCENES, fleet)
    view.closing(figures, player.seconds)
    if player.failed:
        print()
        view.paragraph(f"Checks failed in {player.failed} of the scenes, see above.")
    return PROBLEM if player.failed else OK


class _Player:
    """Plays scenes, numbered through, each for its share of the time."""

    def __init__(self, view: "View", seconds: float) -> None:
        self.failed = 0
        self._view = view
        self._began = time.monotonic()
        self._each_s = seconds / SCENES
        self._number = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def play(self, scenes: Sequence[Callable[[T], "Scene"]], stage: T) -> None:
        for play in scenes:
            self._number += 1
            until = time.monotonic() + self._each_s
            scene = play(stage)
            self._view.show(self._number, scene)
            self.failed += bool(scene.failed)
            time.sleep(max(0.0, until - time.monotonic()))


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError("from 0 to 3600")
    return value
