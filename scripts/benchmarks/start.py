"""From nothing to a plugin that the runtime knows: seconds of the wall clock."""

import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.benchmarks import guests
from scripts.benchmarks.contestants import (
    NATIVE,
    WAZERO,
    Agent,
    Contestant,
    NativeDaemon,
    WazeroHost,
)
from scripts.benchmarks.figures import Aim

COLD, WARM = "compiled at this start", "compiled before"
_AIM_MS = 500.0


def measure(folder: Path, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Start everybody in turn, several times."""
    rounds = 2 if quick else 7
    times: dict[str, list[float]] = {}
    for number in range(rounds):
        say(f"starting, round {number + 1} of {rounds}")
        for name, contestant, cold in _contestants(folder):
            if cold:
                shutil.rmtree(contestant.folder, ignore_errors=True)
            with contestant:
                times.setdefault(name, []).append(contestant.start_s * 1e3)
    return {
        "rounds": rounds,
        "contestants": {
            name: {"median_ms": statistics.median(each), "low_ms": min(each), "high_ms": max(each)}
            for name, each in times.items()
        },
    }


def aims(result: dict[str, Any]) -> list[Aim]:
    """The agent with one C plugin, first and later starts."""
    return [
        Aim(
            f"start with one C plugin, {what}",
            result["contestants"][f"edge-agent, 1 C plugin, {what}"]["median_ms"],
            _AIM_MS,
            "ms",
        )
        for what in (COLD, WARM)
    ]


def _contestants(folder: Path) -> list[tuple[str, Contestant, bool]]:
    found: list[tuple[str, Contestant, bool]] = []
    for name, modules in (
        ("1 C plugin", guests.c_plugins(1)),
        ("20 C plugins", guests.c_plugins(20)),
        ("1 Go plugin", guests.go_plugins(1)),
    ):
        where = folder / name.replace(" ", "-")
        found += [
            (f"edge-agent, {name}, {COLD}", Agent(where, modules), True),
            (f"edge-agent, {name}, {WARM}", Agent(where, modules), False),
        ]
    found += [
        (NATIVE, NativeDaemon(folder / "native"), True),
        (
            WAZERO,
            WazeroHost(folder / "wazero", "10-annotator", guests.go_plugin()),
            True,
        ),
    ]
    return found
