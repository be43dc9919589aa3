"""`edge-agent demo`: the main job on one screen, without root, broker or container runtime."""

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING

from edge_agent.cli import OK, PROBLEM

if TYPE_CHECKING:
    from edge_agent.cli import Subparsers
    from edge_agent.cli.demoview import View

SECONDS = 16.0  # the story itself takes about 9


def add_parser(subparsers: "Subparsers") -> None:
    parser = subparsers.add_parser(
        "demo", help="watch plugins adjust containers and report over MQTT; needs nothing"
    )
    parser.add_argument(
        "--plain", action="store_true", help="text without colour, as it is when piped"
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=SECONDS,
        metavar="N",
        help="take at least N seconds, for reading along (default: %(default)g)",
    )
    parser.set_defaults(command=demo)


def demo(arguments: argparse.Namespace) -> int:
    """Play the story; 0 only if everything went as told."""
    from edge_agent.cli.demoview import PlainView
    from edge_agent.sim import story
    from edge_agent.sim.stage import Stage
    from edge_agent.sim.tally import Tally

    view = PlainView() if arguments.plain or not sys.stdout.isatty() else _terminal_view()
    began = time.monotonic()
    tally = Tally()
    failed = 0
    view.opening()
    with Stage() as stage:
        for number, play in enumerate(story.SCENES, 1):
            with view.playing():
                scene = play(stage, tally)
            view.show(number, scene)
            failed += not scene.as_told
            with view.playing():
                _wait_until(began + arguments.seconds * number / len(story.SCENES))
        view.closing(tally.figures(stage.listener), time.monotonic() - began)
    if failed:
        view.not_as_told(failed)
    return PROBLEM if failed else OK


def _terminal_view() -> "View":
    from edge_agent.cli.demoview import PlainView

    try:
        from edge_agent.cli.demoterminal import TerminalView
    except ImportError:  # the extra `demo` is not installed
        return PlainView()
    return TerminalView(no_color=bool(os.environ.get("NO_COLOR")))


def _wait_until(when: float) -> None:
    time.sleep(max(0.0, when - time.monotonic()))


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError("from 0 to 3600")
    return value
