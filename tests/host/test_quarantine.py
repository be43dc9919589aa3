"""One door to what a node holds against a plugin, whichever part of the agent holds it."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent.__main__ import main
from edge_agent.control import ask
from edge_agent.host.crash_policy import Lifted, Quarantine, Updates
from edge_agent.sim.runtime import SimRuntime
from edge_agent.store import catalogue_store
from tests.support.agent import Agent

RECORDED = Path(__file__).parents[1] / "data" / "quarantine-1d2d650"


# --- a board with the files of an earlier version


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs an agent")
    shutil.copytree(RECORDED, tmp_path / "agent" / "state")
    trust = tmp_path / "trust"
    trust.mkdir()
    with SimRuntime(tmp_path / "nri.sock") as runtime:
        sockets = [Path(runtime.path)]
        agent = Agent(tmp_path / "agent", sockets=sockets, updates={"trust_dir": str(trust)})
        with agent:
            agent.wait_for(
                lambda status: any(each["name"] == "both" for each in status["plugins"]),
                "the fleet's part has read its catalogue",
            )
            yield agent


HELD = [
    ("10-both", "its crashes are forgotten, 1 of its modules may run again"),
    ("20-host", "its crashes are forgotten"),
    ("30-fleet", "1 of its modules may run again"),
    ("40-rejected", "1 of its modules may run again"),
]


@pytest.mark.parametrize("word", ["unquarantine", "release"])
def test_the_command_lifts_what_an_earlier_version_recorded_wherever_it_stands(
    agent: Agent, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["plugin", word, "-c", str(agent.config_path)]
    for plugin, lifted in HELD:
        assert main([*command, plugin]) == 0
        assert f"{plugin} runs again: {lifted}" in capsys.readouterr().out
    for plugin in (*(plugin for plugin, _ in HELD), "50-none", "60-unknown"):
        assert main([*command, plugin]) == 1
        assert f"nothing is held against {plugin}" in capsys.readouterr().out
    agent.stop()
    state = agent.folder / "state"
    assert json.loads((state / "crashes").read_bytes())["crashes"] == []
    catalogue = catalogue_store.load(state / "store" / "catalogue.json")
    assert (dict(catalogue.quarantined), dict(catalogue.rejected)) == ({}, {})


def test_what_an_earlier_command_asks_is_answered_as_it_was(agent: Agent) -> None:
    assert ask(agent.control_socket, "release", plugin="20-host")["released"] is True
    assert ask(agent.control_socket, "release", plugin="20-host")["released"] is False


# --- by hand


class Host:
    """Holds crashes against some plugins."""

    def __init__(self, *held: str) -> None:
        self.held = set(held)

    def unquarantine(self, identity: str) -> bool:
        found = identity in self.held
        self.held.discard(identity)
        return found


class FleetPart:
    """Answers with a number of modules, or None; `busy`: takes nothing."""

    def __init__(self, modules: int | None, *, busy: bool = False) -> None:
        self.modules, self.busy = modules, busy

    def unquarantine(self, identity: str, done: Callable[[int | None], None]) -> bool:
        del identity
        if not self.busy:
            thread = threading.Thread(target=done, args=(self.modules,))
            thread.start()
            thread.join()
        return not self.busy


@pytest.mark.parametrize(
    ("crashes", "updates", "modules", "problem"),
    [
        (True, None, 0, ""),
        (False, None, 0, "nothing is held against 10-a"),
        (True, FleetPart(0), 0, ""),
        (False, FleetPart(2), 2, ""),
        (True, FleetPart(1), 1, ""),
        (False, FleetPart(0), 0, "nothing is held against 10-a"),
        (False, FleetPart(None), 0, "stays: it failed"),
        (True, FleetPart(None), 0, "its crashes are forgotten; what the fleet's part"),
        (True, FleetPart(0, busy=True), 0, "its crashes are forgotten; what the fleet's part"),
        (False, FleetPart(0, busy=True), 0, "stays: it is busy"),
    ],
)
def test_the_answer_is_true_wherever_the_quarantine_came_from(
    crashes: bool, updates: Updates | None, modules: int, problem: str
) -> None:
    host = Host("10-a") if crashes else Host()
    answers: list[Lifted] = []
    Quarantine(host.unquarantine, lambda: updates).lift("10-a", answers.append)
    [lifted] = answers
    assert (lifted.crashes, lifted.modules) == (crashes, modules)
    assert problem in lifted.problem
    assert bool(lifted.problem) is bool(problem)
    assert lifted.answer["released"] is not bool(problem)
