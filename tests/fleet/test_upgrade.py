"""A board's state folder as an agent of 1d2d650 left it: this agent reads all of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edge_agent.config import PluginSettings
from edge_agent.fleet_protocol import signed_requests
from edge_agent.host import pluginstates
from edge_agent.host.crash_policy import CrashPolicy
from edge_agent.store import catalogue_store
from edge_agent.store.digest import NO_DIGEST, Digest
from edge_agent.store.release import Machine, PluginId, Release
from tests.support.fleetnode import Board
from tests.support.shelf import Shelf

LEFT = Path(__file__).parents[1] / "data" / "state-1d2d650"
SAID: dict[str, Any] = json.loads((LEFT / "expected.json").read_text())
MACHINE = Machine(
    "wasmer", "7.4.2", "riscv64", "elf,wide", "elf,wide,fuel=2", frozenset({"v", "b"})
)
CRASHED = "20-" + "n" * 120  # of which the table of crashes has the first 95


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return Path(shutil.copytree(LEFT, tmp_path / "state"))


@pytest.fixture
def board(state: Path) -> Board:
    return Board(state, Shelf(), machine=MACHINE, labels={"site": "north"}).start()


def test_a_board_runs_what_it_ran_and_says_what_it_said(board: Board) -> None:
    assert board.running() == SAID["running"]
    assert board.unusable() == SAID["unusable"]
    assert {key: board.status()[key] for key in SAID["status"]} == SAID["status"]
    assert board.status()["trouble"] == ""


def test_what_was_on_probation_goes_back_to_what_was_proven(board: Board) -> None:
    assert board.running()["10-annotator"] == "2"
    board.reject("10-annotator")
    assert board.running()["10-annotator"] == "1"


def test_what_was_held_against_releases_can_be_lifted(board: Board) -> None:
    assert {
        name: board.updater.unquarantine(PluginId(name))
        for name in ("10-logger", "10-twin", "30-bad")
    } == {
        "10-logger": 1,
        "10-twin": 1,
        "30-bad": 1,
    }
    assert board.status()["rejected"] == board.status()["quarantined"] == {}
    assert board.running()["30-bad"] == "1"


def test_the_catalogue_is_written_again_as_it_was(state: Path, tmp_path: Path) -> None:
    """Byte for byte but for its serial number: an agent of then, installed again, reads it."""
    again = tmp_path / "again" / "catalogue.json"
    catalogue_store.save(again, catalogue_store.load(state / "store" / "catalogue.json"))
    before = json.loads((LEFT / "store" / "catalogue.json").read_bytes())
    assert json.loads(again.read_bytes())["body"] == before["body"]


def test_crashes_are_still_held_against_a_plugin(state: Path) -> None:
    known = json.loads((state / "crashes").read_text())["crashes"]
    (digest,) = [each["digest"] for each in known if each["count"] == 2]
    policy = CrashPolicy(state / "crashes", lambda job: job())
    policy.begin(())
    index, _, name = CRASHED.partition("-")
    held = Release(index, name, Digest.of_hex(digest), 1, "", PluginSettings())
    other = Release(index, name, NO_DIGEST, 1, "", PluginSettings())
    assert policy.why(held).startswith("quarantined: the agent died while it ran, 2 times")
    assert policy.why(other) == ""
    assert policy.unquarantine(PluginId(CRASHED))
    assert policy.why(held) == ""


@pytest.mark.parametrize(
    ("identity", "values"),
    [
        (PluginId("10-guard"), {"count": b"\0\1\2", "ü": b"x"}),
        (PluginId.of("20", "n" * 220), {"k": b"v"}),
    ],
)
def test_a_plugin_finds_what_it_kept(identity: PluginId, values: dict[str, bytes]) -> None:
    raw = (LEFT / "plugin-state" / pluginstates.name_of(identity)).read_bytes()
    assert pluginstates.decode(identity, raw) == values
    assert pluginstates.encode(identity, values) == raw


def test_what_was_asked_is_remembered() -> None:
    raw = (LEFT / "requests.json").read_bytes()
    memory = signed_requests.load(raw)
    assert memory["ab" * 32].has("8f1c", 2e9)
    assert signed_requests.dump(memory) == raw
