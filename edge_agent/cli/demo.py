"""`edge-agent demo`: the main job on one screen, without root, broker or container runtime."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from edge_agent.cli import OK, PROBLEM

if TYPE_CHECKING:
    from edge_agent.cli import Subparsers
    from edge_agent.cli.demoview import Figure, View
    from edge_agent.sim.scene import Scene
    from edge_agent.sim.tally import Tally

T = TypeVar("T")

SECONDS = 40.0  # the story itself takes about 25
SCENES = 11  # in both acts
FLEET = (
    "Three boards of one fleet, each with its runtime and its agent, and an operator with a key. "
    "The broker only carries what was signed."
)


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser(
        "demo", help="watch plugins adjust containers and report over MQTT; needs nothing"
    )
    parser.add_argument("--plain", action="store_true", help="without colour, as it is when piped")
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=SECONDS,
        metavar="N",
        help="take at least N seconds, for reading along (default: %(default)g)",
    )
    parser.add_argument(
        "--act", type=int, choices=(1, 2), help="one board (1), or a fleet of three (2), alone"
    )
    parser.set_defaults(command=demo)


def demo(arguments: argparse.Namespace) -> int:
    """Play the story; 0 only if everything went as told."""
    from edge_agent.cli.demoview import View
    from edge_agent.sim import story
    from edge_agent.sim.stage import Stage
    from edge_agent.sim.tally import Tally

    colour = sys.stdout.isatty() and not arguments.plain and not os.environ.get("NO_COLOR")
    view = View(sys.stdout, colour=colour)
    teller = _Teller(view, arguments.seconds)
    figures: list[Figure] = []
    view.opening()
    if arguments.act != 2:
        tally = Tally()
        with Stage() as stage:
            teller.play(story.SCENES, stage, tally)
            figures = tally.figures(stage.listener)
    if arguments.act != 1:
        print()
        try:
            import tomlkit  # noqa: F401  # the operator's commands edit files with it

            from edge_agent.sim import fleetstory
            from edge_agent.sim.fleetstage import FleetStage
        except ImportError as error:
            view.paragraph(
                f"The second act, a fleet, needs {error.name}: pip install 'edge-agent[demo]'"
            )
        else:
            view.paragraph(FLEET)
            with FleetStage() as fleet:
                teller.play(fleetstory.SCENES, fleet, Tally())
    view.closing(figures, teller.seconds)
    if teller.failed:
        print()
        view.paragraph(f"{teller.failed} of the scenes did not go as told, see above.")
    return PROBLEM if teller.failed else OK


class _Teller:
    """Plays scenes, numbered through, and takes its time."""

    def __init__(self, view: "View", seconds: float) -> None:
        self.failed = 0
        self._view = view
        self._began = time.monotonic()
        self._each_s = seconds / SCENES
        self._number = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def play(
        self, scenes: Sequence[Callable[[T, "Tally"], "Scene"]], stage: T, tally: "Tally"
    ) -> None:
        for play in scenes:
            self._number += 1
            until = time.monotonic() + self._each_s
            scene = play(stage, tally)
            self._view.show(self._number, scene)
            self.failed += not all(claim.holds for claim in scene.claims)
            time.sleep(max(0.0, until - time.monotonic()))


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError("from 0 to 3600")
    return value
