"""One node through the life of its fleet: documents, disk and decisions are real."""

import math
from pathlib import Path

from edge_agent.fleet.transfer.parts import IDLE_S
from tests.fleet.updating import A, B, C, proven, restarted
from tests.support.fleetnode import (
    TOPICS,
    Board,
    Operator,
    plugin,
    release,
    wasm,
)
from tests.support.shelf import Shelf


def test_node_without_anything_asks_for_the_documents_and_runs_nothing(board: Board) -> None:
    board.start()
    assert board.shelf.subscribed == {TOPICS.deployment, TOPICS.trust}
    assert board.running() == {}
    assert board.turn() == math.inf


def test_deployment_is_fetched_and_run_on_probation(board: Board, operator: Operator) -> None:
    operator.deploy(plugin("guard", release("1.0", A), config="limits: 5"))
    board.start()
    (wanted,) = board.plans[-1].releases
    assert (wanted.identity, wanted.version, wanted.config) == ("10-guard", "1.0", "limits: 5")
    assert wanted.on_probation
    assert wanted.path.read_bytes() == A.data
    assert wanted.size == len(A.data)
    assert board.status()["generation"] == board.status()["accepted"] == 1
    assert board.shelf.subscribed == {TOPICS.deployment, TOPICS.trust}
    assert list((board.folder / "store" / "incoming").iterdir()) == []


def test_nothing_is_switched_until_everything_is_here(board: Board, operator: Operator) -> None:
    proven(board, operator)
    missing = wasm(9)
    operator.deploy(
        plugin("guard", release("2", B)), plugin("logger", release("1", missing), index="20")
    )
    board.wait(2 * IDLE_S)
    assert board.running() == {"10-guard": "1"}
    assert board.status()["pending"] == 2
    assert [each["digest"] for each in board.status()["fetching"]] == [missing.blob.digest]
    operator.upload(missing)
    board.wait(4 * IDLE_S)
    assert board.running() == {"10-guard": "2", "20-logger": "1"}
    assert len(board.plans) == 4, "none, version 1 on probation, kept, and both at once"


def test_plugin_for_other_labels_is_not_fetched(
    tmp_path: Path, shelf: Shelf, operator: Operator
) -> None:
    board = Board(tmp_path / "board", shelf, labels={"board": "rpi3"})
    operator.deploy(
        plugin("guard", release("1", A), select={"labels": {"board": "rpi4"}}),
        plugin("logger", release("1", B), index="20", select={"labels": {"board": "rpi3"}}),
    )
    board.start()
    assert board.running() == {"20-logger": "1"}
    assert not any(A.blob.digest.hex in topic for topic in board.shelf.asked)


def test_rollout_decides_which_release_and_a_node_that_is_not_chosen_keeps_its_own(
    board: Board, operator: Operator
) -> None:
    proven(board, operator)
    none = {"percent": 0, "seed": "x"}
    operator.deploy(plugin("guard", release("2", B, rollout=none), release("1", A)))
    board.wait(1)
    assert board.running() == {"10-guard": "1"}
    assert not board.plans[-1].releases[0].on_probation
    operator.deploy(plugin("guard", release("2", B, rollout=none)))
    board.wait(1)
    assert board.running() == {"10-guard": "1"}
    operator.deploy(plugin("guard", release("2", B, rollout={**none, "percent": 100})))
    board.wait(1)
    assert board.running() == {"10-guard": "2"}


def test_plugin_that_is_in_no_deployment_any_more_ends(board: Board, operator: Operator) -> None:
    proven(board, operator)
    operator.deploy()
    board.wait(1)
    assert board.running() == {}


def test_other_configuration_of_the_same_module_is_on_probation_without_a_transfer(
    board: Board, operator: Operator
) -> None:
    proven(board, operator)
    asked = len(board.shelf.asked)
    operator.deploy(plugin("guard", release("1", A), config="new"))
    board.wait(1)
    (wanted,) = board.plans[-1].releases
    assert (wanted.config, wanted.on_probation) == ("new", True)
    assert len(board.shelf.asked) == asked


def test_two_plugins_may_share_a_module(board: Board, operator: Operator) -> None:
    operator.deploy(plugin("guard", release("1", A)), plugin("logger", release("7", A), index="20"))
    board.start()
    assert board.running() == {"10-guard": "1", "20-logger": "7"}
    assert {each.name for each in board.layout.releases()} == {"guard", "logger"}
    assert len([topic for topic in board.shelf.asked if A.blob.digest.hex in topic]) == A.blob.parts


def test_newer_deployment_takes_the_place_of_one_on_its_way(
    board: Board, operator: Operator
) -> None:
    proven(board, operator)
    missing = wasm(9)
    operator.deploy(plugin("guard", release("2", missing)))
    board.wait(1)
    assert board.status()["pending"] == 2
    operator.deploy(plugin("guard", release("3", C)))
    board.wait(1)
    assert board.running() == {"10-guard": "3"}
    assert not any(missing.blob.digest.hex in topic for topic in board.shelf.subscribed)
    assert not board.layout.incoming(missing.blob.digest).exists()


def test_same_document_again_changes_nothing_and_ends_the_pauses(
    board: Board, operator: Operator
) -> None:
    missing = wasm(9)
    raw = operator.deploy(plugin("guard", release("1", missing)))
    board.start()
    board.wait(8 * IDLE_S)
    operator.upload(missing)
    board.shelf.publish(TOPICS.deployment, raw)  # as after a reconnection
    board.turn()
    assert board.running() == {"10-guard": "1"}
    assert board.status()["refused"] is None


def test_plugin_that_is_too_large_here_is_told_and_never_fetched(
    tmp_path: Path, shelf: Shelf, operator: Operator
) -> None:
    board = Board(tmp_path / "board", shelf, max_plugin_bytes=2048)
    operator.deploy(plugin("guard", release("1", A)))
    board.start()
    (fetching,) = board.status()["fetching"]
    assert fetching["trouble"] == "has 3000 bytes; max_plugin in [updates] allows 2KiB"
    assert board.turn() == math.inf
    assert not any(A.blob.digest.hex in topic for topic in board.shelf.asked)


def test_sources_that_are_not_allowed_here_are_not_used(
    tmp_path: Path, shelf: Shelf, operator: Operator
) -> None:
    board = Board(tmp_path / "board", shelf, sources=("https",))
    operator.deploy(plugin("guard", release("1", A)))
    board.start()
    assert board.status()["fetching"][0]["trouble"] == "[updates] allows none of its sources"
    assert not any(A.blob.digest.hex in topic for topic in board.shelf.asked)


# --- clocks


def test_expired_deployment_that_runs_goes_on(board: Board, operator: Operator) -> None:
    proven(board, operator)
    board = restarted(board, clock=board.clock + 1e8).start()
    assert board.running() == {"10-guard": "1"}
    assert board.status()["expired"]


def test_deployment_that_expires_on_its_way_is_still_carried_out(
    board: Board, operator: Operator
) -> None:
    missing = wasm(9)
    operator.deploy(plugin("guard", release("1", missing)))
    board.start()
    board = restarted(board, clock=board.clock + 1e8).start()
    operator.upload(missing)
    board.wait(10 * IDLE_S)
    assert board.running() == {"10-guard": "1"}


def test_clock_of_1970_takes_what_is_new_and_not_what_expired_before_the_last(
    tmp_path: Path, shelf: Shelf, operator: Operator
) -> None:
    board = Board(tmp_path / "board", shelf, clock=0.0)
    operator.deploy(plugin("guard", release("1", A)))
    board.start()
    assert board.running() == {"10-guard": "1"}
    operator.deploy(
        plugin("guard", release("2", B)),
        issued="2026-11-20T00:00:00Z",
        expires="2026-11-24T10:59:59Z",
    )
    board.wait(1)
    assert board.status()["refused"]["reason"] == "expired"


def test_clock_that_jumps_does_not_disturb_a_transfer(board: Board, operator: Operator) -> None:
    missing = wasm(9)
    operator.deploy(plugin("guard", release("1", missing)))
    board.start()
    for clock in (0.0, 1e10, -5.0, 1.7e9):
        board.clock = clock
        board.wait(IDLE_S)
    operator.upload(missing)
    board.wait(10 * IDLE_S)
    assert board.running() == {"10-guard": "1"}


# --- status


def test_change_is_told_and_no_change_is_not(board: Board, operator: Operator) -> None:
    proven(board, operator)
    changes: list[object] = []
    board.changed = lambda: changes.append(board.status())
    board.wait(3600)
    assert changes == []
    operator.deploy(plugin("guard", release("2", B)))
    board.turn()
    assert changes
