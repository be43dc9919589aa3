"""The demonstration as plain text: for pipes, logs and machines without `rich`."""

import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from edge_agent.sim.scene import Line, Scene

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
_WIDTH = 78

Figure = tuple[str, str]


class View(ABC):
    """Shows scenes as they are played."""

    @abstractmethod
    def opening(self) -> None:
        """What is about to be seen."""

    @abstractmethod
    def act(self, about: str) -> None:
        """Another act begins."""

    @abstractmethod
    def left_out(self, why: str) -> None:
        """Something is not played here."""

    @abstractmethod
    def playing(self) -> AbstractContextManager[object]:
        """While nothing new is shown."""

    @abstractmethod
    def show(self, number: int, scene: Scene) -> None:
        """One scene, played."""

    @abstractmethod
    def closing(self, figures: Sequence[Figure], seconds: float) -> None:
        """What it all amounted to, and what to try next."""

    @abstractmethod
    def not_as_told(self, scenes: int) -> None:
        """So many scenes went otherwise."""


class PlainView(View):
    """Every line as text, one below the other."""

    def opening(self) -> None:
        print(TITLE)
        self._paragraph(ABOUT)

    def act(self, about: str) -> None:
        print()
        self._paragraph(about)

    def left_out(self, why: str) -> None:
        print()
        self._paragraph(why)

    @contextmanager
    def playing(self) -> Iterator[None]:
        yield

    def show(self, number: int, scene: Scene) -> None:
        print(f"\n{number}. {scene.title}")
        self._paragraph(scene.said)
        for title, lines in zip(scene.columns, columns(scene), strict=True):
            print(f"   {title}:")
            for line in lines:
                indent = "     " + "  " * line.indent
                print(
                    textwrap.fill(
                        line.text, _WIDTH, initial_indent=indent, subsequent_indent=indent + "  "
                    )
                )
        if scene.outcome is not None:
            self._paragraph(f"=> {scene.outcome.text}")
        for text in unmet(scene):
            self._paragraph(f"NOT AS TOLD: {text}")

    def closing(self, figures: Sequence[Figure], seconds: float) -> None:
        print(f"\nIn {seconds:.0f} s")
        for name, value in figures:
            print(f"   {name:<22} {value}")
        print("\nNext")
        for command, what in NEXT:
            print(f"   {command}\n      {what}")

    def not_as_told(self, scenes: int) -> None:
        print(f"\n{scenes} of the scenes did not go as told, see above.")

    def _paragraph(self, text: str) -> None:
        print(textwrap.fill(text, _WIDTH, initial_indent="   ", subsequent_indent="   "))


def columns(scene: Scene) -> tuple[list[Line], list[Line], list[Line]]:
    """In the order of their titles."""
    return scene.asked, scene.answered, scene.heard


def unmet(scene: Scene) -> list[str]:
    """What did not hold, with what was found instead."""
    return [
        f"{claim.text}; found {claim.found[:300] or 'otherwise'}"
        for claim in scene.claims
        if not claim.holds
    ]
