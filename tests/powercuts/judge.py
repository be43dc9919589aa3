"""What the world knows of the work that is cut, and whether a board is whole by it."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.boards.fleet import FleetSide
from tests.powercuts.cutlog import Deployed, Told, broken, known, late_releases, went_on
from tests.powercuts.observer import retain, retained
from tests.powercuts.writelog import Cut, Write, requests

Serve = Callable[[], tuple[dict[str, Any], list[Told]]]
"""Runs the agent on what a cut left: the facts of cutlog.broken, and what the broker was told."""


class Judge:
    """Notes what is done while writes are logged, then looks at what cuts left of it."""

    def __init__(self, fleet: FleetSide, log: Path) -> None:
        self.told: list[Told] = []
        self.outcomes: Counter[str] = Counter()
        self._fleet, self._log = fleet, log
        self._deployed: list[Deployed] = []
        self._first: dict[str, bytes] = {}  # what was retained with the first deployment
        self._parts: list[tuple[str, int]] = []
        self._requests: list[Write] = []

    # --- while it works

    def length(self) -> int:
        """Of the log, in bytes."""
        return self._log.stat().st_size if self._log.exists() else 0

    def begins(self, part: str) -> None:
        """What is done from now on has this name."""
        self._parts.append((part, self.length()))

    def deploys(self, limit: int, deploy: Callable[[], object], bad: bool = False) -> None:
        """`deploy` gives the fleet a generation that gives containers `limit` bytes.

        `bad`: once its release is rejected, and the one before was kept.
        """
        logged = self.length()
        deploy()
        self._deployed.append(Deployed(self._fleet.deployed(), logged, limit, bad))
        self._first = self._first or retained(self._fleet)

    def ends(self, told: Sequence[Told]) -> None:
        """The work, of which the broker was told this."""
        self.told = list(told)
        self._requests = requests(self._log)

    # --- what was done

    @property
    def log(self) -> Sequence[Write]:
        return self._requests

    def begin_of_parts(self) -> list[int]:
        """How many requests came before each."""
        ends = [each.end for each in self._requests]
        return [bisect_right(ends, logged) for _, logged in self._parts]

    def part(self, state: Cut) -> str:
        """In which the power went."""
        begun = bisect_right(self.begin_of_parts(), state.requests)
        return self._parts[max(begun, 1) - 1][0]

    def summary(self) -> str:
        begins = self.begin_of_parts()
        logged = self._requests[begins[0] :]
        flushes = sum(each.flush for each in logged)
        sizes: Counter[str] = Counter()
        for (name, _), begin, end in zip(
            self._parts, begins, (*begins[1:], len(self._requests)), strict=True
        ):
            sizes[name] += end - begin
        parts = ", ".join(f"{size} while {name}" for name, size in sizes.items())
        return (
            f"{len(logged)} requests, {flushes} of them flushes: {parts}\n"
            f"{len(self.told)} messages; generation {self._fleet.deployed()}"
        )

    # --- what came of it

    def judge(self, state: Cut, serve: Serve, how: str = "") -> list[str]:
        """What is wrong with what this cut left; `how` it was looked at."""
        logged = self._requests[state.requests - 1].end if state.requests else 0
        wrong = self._judge(state, serve, logged, how)
        return [f"request {state.requests}, {state.fate.value}{how}: {each}" for each in wrong]

    def finds(self, state: Cut, serve: Serve) -> list[str]:
        """As `judge`, of a disk that has lost what was flushed, or was damaged, on purpose."""
        return self._judge(state, serve, self._requests[-1].end, None)

    def _judge(self, state: Cut, serve: Serve, logged: int, how: str | None) -> list[str]:
        broker = self._fleet.broker
        # A broker that knows the first deployment alone: a board that forgot later ones takes it.
        broker.stop()
        broker.forget()
        broker.start()
        retain(self._fleet, self._first)
        facts: dict[str, Any]
        after: list[Told] = []
        try:
            facts, after = serve()
        except AssertionError as error:
            facts = {"trouble": str(error)}
        before = known(self.told, logged, self._deployed)
        if how is not None:
            self._count(state, facts, went_on(before, after), how)
        return broken(before, facts, after)

    def _count(self, state: Cut, facts: dict[str, Any], same_stream: bool, how: str) -> None:
        whats = [f"power gone while {self.part(state)}{how}", f"writes {state.fate.value}{how}"]
        if "trouble" not in facts:
            numbers = "go on" if same_stream else "begin in a new stream"
            generation = facts["status"]["updates"]["generation"]
            whats += [f"generation {generation:2} runs{how}", f"numbers of results {numbers}{how}"]
            whats += [f"rejected, {each}{how}" for each in late_releases(facts)]
        self.outcomes.update(whats)
