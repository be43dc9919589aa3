"""One node through the life of its fleet: documents, disk and decisions are real."""

import errno
import logging
import math
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent import strictjson
from edge_agent.fleet.transfer.window import IDLE_S
from edge_agent.fleet_protocol import deployment
from edge_agent.store import cataloguefile
from edge_agent.store.catalogue import Known
from edge_agent.store.digest import Digest
from tests.support.fleetnode import (
    FLEET,
    KEYS,
    TOPICS,
    Board,
    Operator,
    plugin,
    release,
    trust_set,
    wasm,
)
from tests.support.shelf import Shelf
from tests.support.smalldisk import small_disk

A, B, C = wasm(1), wasm(2), wasm(3)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def operator(shelf: Shelf) -> Operator:
    operator = Operator(shelf)
    for it in (A, B, C):
        operator.upload(it)
    return operator


@pytest.fixture
def board(tmp_path: Path, shelf: Shelf) -> Board:
    return Board(tmp_path / "board", shelf)


def again(board: Board, **changes: object) -> Board:
    """The node after a restart."""
    board.shelf.subscribed.clear()
    board.shelf.delivered.clear()
    return Board(board.folder, board.shelf, **changes)  # type: ignore[arg-type]


def proven(board: Board, operator: Operator) -> None:
    """Version 1 has been deployed, and kept."""
    operator.deploy(plugin("guard", release("1", A)))
    board.start()
    board.keep("10-guard")


# --- deploying


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


# --- probation


def test_kept_release_becomes_the_one_to_go_back_to(board: Board, operator: Operator) -> None:
    proven(board, operator)
    assert not board.plans[-1].releases[0].on_probation
    operator.deploy(plugin("guard", release("2", B)))
    board.wait(1)
    board.reject("10-guard", "trap: unreachable")
    assert board.running() == {"10-guard": "1"}
    assert not board.plans[-1].releases[0].on_probation
    assert board.status()["rejected"] == {B.blob.digest: "trap: unreachable"}
    assert board.layout.has(A.blob.digest)


def test_rejected_release_is_not_tried_again_after_a_restart_or_a_new_generation(
    board: Board, operator: Operator
) -> None:
    proven(board, operator)
    operator.deploy(plugin("guard", release("2", B)))
    board.wait(1)
    board.reject("10-guard")
    board = again(board).start()
    assert board.running() == {"10-guard": "1"}
    operator.deploy(plugin("guard", release("2-again", B)))
    board.wait(1)
    assert board.running() == {"10-guard": "1"}


def test_next_release_of_the_deployment_runs_when_the_first_is_rejected(
    board: Board, operator: Operator
) -> None:
    operator.deploy(plugin("guard", release("2", B), release("1", A)))
    board.start()
    assert board.running() == {"10-guard": "2"}
    board.reject("10-guard")
    assert board.running() == {"10-guard": "1"}
    assert board.plans[-1].releases[0].on_probation, "it has not been proven here"


def test_first_release_ever_that_is_rejected_leaves_nothing(
    board: Board, operator: Operator
) -> None:
    operator.deploy(plugin("guard", release("1", A)))
    board.start()
    board.reject("10-guard")
    assert board.running() == {}


def test_rejected_configuration_brings_the_old_one_back_and_blames_no_module(
    board: Board, operator: Operator
) -> None:
    proven(board, operator)
    operator.deploy(plugin("guard", release("1", A), config="bad"))
    board.wait(1)
    board.reject("10-guard")
    (wanted,) = board.plans[-1].releases
    assert wanted.config == ""
    operator.deploy(plugin("guard", release("1", A), config="good"))
    board.wait(1)
    assert board.plans[-1].releases[0].config == "good"


def test_rejection_while_another_deployment_is_on_its_way(board: Board, operator: Operator) -> None:
    proven(board, operator)
    operator.deploy(plugin("guard", release("2", B)))
    board.wait(1)
    missing = wasm(9)
    operator.deploy(plugin("guard", release("3", missing)))
    board.wait(1)
    board.reject("10-guard")
    assert board.running() == {"10-guard": "1"}
    assert board.status()["pending"] == 3
    board = again(board).start()
    assert board.status()["pending"] == 3
    operator.upload(missing)
    board.wait(5 * IDLE_S)
    assert board.running() == {"10-guard": "3"}


@pytest.mark.parametrize(
    ("identity", "digest"),
    [("10-guard", B.blob.digest), ("20-guard", A.blob.digest), ("10-folder", A.blob.digest)],
)
def test_word_on_something_else_changes_nothing(
    board: Board, operator: Operator, identity: str, digest: Digest
) -> None:
    operator.deploy(plugin("guard", release("1", A)))
    board.start()
    before = list(board.plans)
    board.updater.verdict(identity, digest, False, "late")
    assert board.plans == before
    assert board.status()["rejected"] == {}


def test_word_on_a_proven_release_changes_nothing(board: Board, operator: Operator) -> None:
    proven(board, operator)
    board.reject("10-guard")
    assert board.running() == {"10-guard": "1"}


# --- quarantine


def test_quarantined_module_gives_way_to_the_one_before_for_good(
    board: Board, operator: Operator
) -> None:
    proven(board, operator)
    operator.deploy(plugin("guard", release("2", B)))
    board.wait(1)
    board.keep("10-guard")
    for _ in range(2):  # the host says so with each start
        board.updater.quarantine(B.blob.digest, "the agent died in it")
    assert board.running() == {"10-guard": "1"}
    assert not board.plans[-1].releases[0].on_probation
    assert board.status()["quarantined"] == {B.blob.digest: "the agent died in it"}
    board = again(board).start()
    assert board.running() == {"10-guard": "1"}
    operator.deploy(plugin("guard", release("3", C)))
    board.wait(1)
    assert board.running() == {"10-guard": "3"}


def test_release_request_lifts_it(board: Board, operator: Operator) -> None:
    proven(board, operator)
    board.updater.quarantine(A.blob.digest, "died")
    assert board.running() == {}
    assert board.unusable() == {"10-guard": "died"}  # the host may have to refuse containers
    assert board.updater.unquarantine("20-other") == 0
    assert board.running() == {}
    assert board.updater.unquarantine("10-guard") == 1
    assert board.running() == {"10-guard": "1"}
    assert board.unusable() == {}
    assert again(board).start().running() == {"10-guard": "1"}


def test_a_module_that_is_gone_from_the_disk_is_missed(board: Board, operator: Operator) -> None:
    proven(board, operator)
    board.layout.blob(A.blob.digest).unlink()
    board = again(board).start()
    [missed] = board.plans[0].releases
    assert (missed.identity, missed.version) == ("10-guard", "1")
    assert "not on this node's disk" in missed.unusable
    assert board.running() == {"10-guard": "1"}  # the broker has it still


def test_a_first_release_that_is_rejected_is_not_missed(board: Board, operator: Operator) -> None:
    operator.deploy(plugin("guard", release("1", A)))
    board.start()
    board.reject("10-guard")
    assert board.running() == board.unusable() == {}


def test_release_request_lets_a_rejected_release_be_tried_again(
    board: Board, operator: Operator
) -> None:
    proven(board, operator)
    operator.deploy(plugin("guard", release("2", B)))
    board.wait(1)
    board.reject("10-guard")
    assert board.updater.unquarantine("10-guard") == 1
    board.turn()
    assert board.running() == {"10-guard": "2"}
    assert board.plans[-1].releases[0].on_probation


# --- the disk


def test_restart_runs_the_same_without_a_broker(board: Board, operator: Operator) -> None:
    proven(board, operator)
    board.shelf.away = True
    board = again(board)
    board.updater.start()
    assert board.running() == {"10-guard": "1"}
    assert not board.plans[-1].releases[0].on_probation


def test_probation_begins_again_after_a_restart(board: Board, operator: Operator) -> None:
    operator.deploy(plugin("guard", release("1", A)))
    board.start()
    assert again(board).start().plans[-1].releases[0].on_probation


def test_restart_goes_on_with_a_deployment_on_its_way(board: Board, operator: Operator) -> None:
    proven(board, operator)
    missing = wasm(9, 20_000)
    operator.deploy(plugin("guard", release("2", missing)))
    board.wait(1)
    for number in (0, 3):
        board.shelf.publish(TOPICS.blob_part(missing.blob.digest, number), missing.parts[number])
    board.turn()
    asked = len(board.shelf.asked)
    board = again(board)
    operator.upload(missing)
    board.start()
    assert board.running() == {"10-guard": "2"}
    parts = [topic for topic in board.shelf.asked[asked:] if missing.blob.digest.hex in topic]
    assert len(parts) == missing.blob.parts - 2


def test_damaged_module_is_fetched_again_and_the_one_before_runs_meanwhile(
    board: Board, operator: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    proven(board, operator)
    operator.deploy(plugin("guard", release("2", B)))
    board.wait(1)
    board.keep("10-guard")
    board.layout.blob(B.blob.digest).write_bytes(B.data[:-1] + b"\0")
    board.shelf.away = True
    board = again(board)
    with caplog.at_level(logging.ERROR):
        board.start()
    assert board.running() == {"10-guard": "1"}
    assert f"{B.blob.digest} is damaged on the disk" in caplog.text
    board.shelf.away = False
    board.wait(3 * IDLE_S)
    assert board.running() == {"10-guard": "2"}
    assert not board.plans[-1].releases[0].on_probation, "it was proven already"


@pytest.mark.system
def test_disk_that_becomes_read_only_runs_on_and_takes_no_deployment_until_it_can(
    tmp_path: Path, shelf: Shelf, operator: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk", 10 * 1024) as disk:
        board = Board(disk / "board", shelf)
        proven(board, operator)
        _remount(disk, "ro")
        operator.deploy(plugin("guard", release("2", B)))
        board.wait(300)
        assert board.running() == {"10-guard": "1"}
        assert board.status()["accepted"] == 1
        assert "must be on a disk that can be written" in board.status()["trouble"]
        board = again(board).start()
        board.wait(300)
        assert board.running() == {"10-guard": "1"}
        assert len([each for each in caplog.records if each.levelno == logging.ERROR]) < 6
        _remount(disk, "rw")
        board.wait(100)
        assert board.running() == {"10-guard": "2"}
        assert board.status()["trouble"] == ""
        _remount(disk, "ro")
        board.reject("10-guard")
        assert board.running() == {"10-guard": "1"}, "now, if not after a restart"
        _remount(disk, "rw")
        board.wait(100)
        assert again(board).start().running() == {"10-guard": "1"}


@pytest.mark.system
def test_damaged_module_on_a_read_only_disk_is_not_run(
    tmp_path: Path, shelf: Shelf, operator: Operator
) -> None:
    with small_disk(tmp_path / "disk", 10 * 1024) as disk:
        board = Board(disk / "board", shelf)
        proven(board, operator)
        operator.deploy(plugin("guard", release("2", B)))
        board.wait(1)
        board.keep("10-guard")
        board.layout.blob(B.blob.digest).write_bytes(b"rotten")
        _remount(disk, "ro")
        board = again(board).start()
        assert board.running() == {"10-guard": "1"}
        _remount(disk, "rw")
        board.wait(100)
        assert board.running() == {"10-guard": "2"}
        assert board.layout.blob(B.blob.digest).read_bytes() == B.data


@pytest.mark.system
def test_full_disk_delays_a_deployment_and_disturbs_nothing(
    tmp_path: Path, shelf: Shelf, operator: Operator
) -> None:
    with small_disk(tmp_path / "disk", 10 * 1024) as disk:
        board = Board(disk / "board", shelf)
        proven(board, operator)
        (disk / "other").write_bytes(bytes(4 << 20))
        operator.deploy(plugin("guard", release("2", B)))
        board.wait(300)
        assert board.running() == {"10-guard": "1"}
        assert "the disk is full" in board.status()["fetching"][0]["trouble"]
        (disk / "other").unlink()
        board.wait(4000)
        assert board.running() == {"10-guard": "2"}


@pytest.mark.system
def test_what_came_of_a_deployment_that_another_followed_makes_room_for_that(
    tmp_path: Path, shelf: Shelf, operator: Operator
) -> None:
    # 8 MiB stay free on any disk: here one of the two modules finds room, and never both.
    abandoned, stored, wanted = (wasm(number, 3 << 20) for number in (7, 8, 9))
    with small_disk(tmp_path / "disk", 17 * 1024) as disk:
        board = Board(disk / "board", shelf)
        operator.upload(stored)
        for number, part in enumerate(abandoned.parts[: abandoned.blob.parts // 2]):
            shelf.publish(TOPICS.blob_part(abandoned.blob.digest, number), part)
        operator.deploy(
            plugin("guard", release("1", stored)),
            plugin("logger", release("1", abandoned), index="20"),
        )
        board.start()
        board.wait(60)
        assert board.layout.has(stored.blob.digest)
        assert board.layout.incoming(abandoned.blob.digest).is_dir()
        operator.upload(wanted)
        operator.deploy(plugin("guard", release("2", wanted)))
        board.wait(4000)
        assert board.running() == {"10-guard": "2"}, board.status()


def test_what_came_of_a_module_that_nobody_wants_any_more_goes_with_the_next_start(
    board: Board, operator: Operator
) -> None:
    proven(board, operator)
    left = board.layout.incoming(B.blob.digest)
    left.mkdir()
    (left / "zlib-1024-3-0").write_bytes(bytes(1024))  # the process was killed in between
    board = again(board)
    board.start()
    assert not left.exists()
    assert board.running() == {"10-guard": "1"}


def test_disk_that_cannot_list_what_came_runs_what_is_there(
    board: Board, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    proven(board, operator)
    operator.deploy(plugin("guard", release("2", wasm(9))))
    board.wait(1)
    listed, broken = os.listdir, str(board.folder / "store" / "incoming")

    def failing(path: object = ".") -> list[str]:
        if str(path) == broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return listed(path)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(os, "listdir", failing)
    board = again(board)
    board.start()
    assert board.running() == {"10-guard": "1"}


def _remount(disk: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", disk], check=True)


def test_only_what_runs_and_what_ran_before_is_kept(board: Board, operator: Operator) -> None:
    for version, it in enumerate((A, B, C), 1):
        operator.deploy(plugin("guard", release(str(version), it)))
        board.wait(1) if board.plans else board.start()
        board.keep("10-guard")
    assert not board.layout.has(A.blob.digest)
    assert board.layout.has(B.blob.digest)
    assert board.layout.has(C.blob.digest)


def test_what_came_for_a_deployment_on_its_way_is_kept(board: Board, operator: Operator) -> None:
    operator.deploy(plugin("guard", release("1", A)))
    board.start()
    missing = wasm(9)
    operator.deploy(
        plugin("guard", release("2", B)), plugin("logger", release("1", missing), index="20")
    )
    board.wait(1)
    assert board.layout.has(B.blob.digest)
    board.keep("10-guard")
    assert board.layout.has(B.blob.digest)


def test_catalogue_that_says_nothing_stops_the_fleet_part_and_says_so(
    board: Board, operator: Operator
) -> None:
    proven(board, operator)
    for path in (board.folder / "store").glob("catalogue*.json"):
        path.write_bytes(b"{}")
    board = again(board)
    board.start()
    operator.deploy(plugin("guard", release("2", B)))
    board.wait(3600)
    assert board.plans == []
    assert "catalogue.json: is damaged" in board.status()["trouble"]
    board.updater.verdict("10-guard", A.blob.digest, False, "")
    board.updater.quarantine(A.blob.digest, "")
    assert board.updater.unquarantine("10-guard") == 0
    board.updater.sync()


def test_catalogue_that_cannot_be_read_for_a_while_is_read_once_it_can(
    board: Board,
    operator: Operator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    proven(board, operator)
    opened = os.open

    def failing(path: object, *more: object, **options: object) -> int:
        if "catalogue" in str(path):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)
        return opened(path, *more, **options)  # type: ignore[arg-type]

    board = again(board)
    with monkeypatch.context() as patched, caplog.at_level(logging.ERROR):
        patched.setattr(os, "open", failing)
        board.start()
        board.wait(3600)
        assert board.running() == {}
        assert caplog.text.count("no deployment is taken") == 1
    board.wait(3600)
    assert board.running() == {"10-guard": "1"}
    operator.deploy(plugin("guard", release("2", B)))
    board.wait(1)
    assert board.running() == {"10-guard": "2"}


def test_sync_looks_at_everything_again(board: Board, operator: Operator) -> None:
    proven(board, operator)
    board.layout.blob(A.blob.digest).write_bytes(b"rotten")
    asked = len(board.shelf.asked)
    board.updater.sync()
    board.turn()
    assert board.layout.blob(A.blob.digest).read_bytes() == A.data
    assert {TOPICS.deployment, TOPICS.trust} <= set(board.shelf.asked[asked:])
    assert board.running() == {"10-guard": "1"}


# --- trust


def test_rotated_trust_is_followed_and_remembered(board: Board, operator: Operator) -> None:
    proven(board, operator)
    operator.rotate(trust_set(*KEYS[1:3], version=2, threshold=2))
    operator.deploy(plugin("guard", release("2", B)))
    board.wait(1)
    assert board.running() == {"10-guard": "2"}
    assert board.status()["trust"]["version"] == 2
    board = again(board).start()
    assert board.status()["trust"]["version"] == 2
    operator.signers = [KEYS[0]]
    operator.deploy(plugin("guard", release("3", C)))
    board.wait(1)
    assert board.running() == {"10-guard": "2"}
    assert board.status()["refused"]["reason"] == "signature"


def test_deployment_that_comes_before_the_trust_it_needs_is_taken_after_it(
    board: Board, operator: Operator
) -> None:
    board.start()
    operator.signers = [KEYS[1]]
    operator.deploy(plugin("guard", release("1", A)))
    board.wait(1)
    assert board.running() == {}
    operator.signers = [KEYS[0]]
    operator.rotate(trust_set(KEYS[1], version=2))
    board.wait(2)
    assert board.running() == {"10-guard": "1"}
    assert board.status()["refused"] is None


def test_an_epoch_that_comes_before_the_trust_set_that_begins_it_is_taken_after_it(
    board: Board, operator: Operator
) -> None:
    proven(board, operator)
    operator.deploy(plugin("guard", release("2", B)), epoch=2, generation=1)
    board.wait(1)
    assert board.status()["refused"]["reason"] == "gap"
    assert board.running() == {"10-guard": "1"}
    operator.rotate(trust_set(KEYS[0], version=2))
    board.wait(2)
    assert board.running() == {"10-guard": "2"}
    assert (board.status()["epoch"], board.status()["accepted"]) == (2, 1)


def test_a_node_whose_number_was_driven_up_follows_a_new_epoch_and_nothing_older(
    board: Board, operator: Operator
) -> None:
    """As agents of 0.1.0 let it happen: their catalogue is read, and there is a way on."""
    proven(board, operator)
    path = board.folder / "store" / "catalogue.json"
    before = cataloguefile.load(path)
    cataloguefile.save(path, replace(before, known=Known(strictjson.MAX_INTEGER, "ab", 0.0)))
    board = again(board).start()
    operator.deploy(plugin("guard", release("2", B)))
    board.wait(1)
    assert board.status()["refused"]["reason"] == "rollback"
    operator.rotate(trust_set(*KEYS[:2], version=2))
    operator.deploy(plugin("guard", release("2", B)), epoch=2, generation=1)
    board.wait(1)
    assert board.running() == {"10-guard": "2"}
    operator.deploy(plugin("guard", release("3", C)), generation=strictjson.MAX_INTEGER)
    board.wait(1)
    assert board.status()["refused"]["reason"] == "rollback"
    board = again(board).start()
    assert board.status()["refused"]["reason"] == "rollback"
    assert board.running() == {"10-guard": "2"}
    operator.deploy(plugin("guard", release("3", C)), epoch=2, generation=2)
    board.wait(1)
    assert board.running() == {"10-guard": "3"}


def test_one_document_cannot_use_up_the_numbers(board: Board, operator: Operator) -> None:
    proven(board, operator)
    operator.deploy(plugin("guard", release("2", B)), generation=strictjson.MAX_INTEGER)
    board.wait(1)
    assert board.status()["refused"]["reason"] == "jump"
    operator.deploy(plugin("guard", release("2", B)), generation=2)
    board.wait(1)
    assert board.running() == {"10-guard": "2"}


def test_a_rejection_goes_when_its_deployment_goes(board: Board, operator: Operator) -> None:
    proven(board, operator)
    operator.deploy(plugin("guard", release("2", B), release("1", A)))
    board.wait(1)
    board.reject("10-guard")
    assert board.status()["rejected"] == {B.blob.digest: "trap"}
    operator.deploy(plugin("guard", release("2", B), release("1", A), report="errors"))
    board.wait(1)
    board.keep("10-guard")
    assert board.status()["rejected"] == {B.blob.digest: "trap"}  # it is still named
    operator.deploy(plugin("guard", release("1", A), report="errors"))
    board.wait(1)
    assert board.status()["rejected"] == {}
    assert again(board).start().status()["rejected"] == {}
    operator.deploy(plugin("guard", release("2", B), release("1", A), report="errors"))
    board.wait(1)
    assert board.running() == {"10-guard": "2"}  # named anew, it is tried anew


def test_a_rejected_configuration_is_forgotten_with_its_deployment(
    board: Board, operator: Operator
) -> None:
    proven(board, operator)
    operator.deploy(plugin("guard", release("1", A), config="bad"))
    board.wait(1)
    board.reject("10-guard")
    (held,) = board.status()["rejected"]
    assert held.startswith(f"{A.blob.digest}+")
    board = again(board).start()
    assert list(board.status()["rejected"]) == [held]
    operator.deploy(plugin("guard", release("1", A), config="mended"))
    board.wait(1)
    assert board.status()["rejected"] == {}


# --- configuration as part of a release


SECOND_KIND = {"kind": deployment.KIND_2}


def configured(board: Board) -> str:
    """What Configure gets."""
    return board.plans[-1].releases[0].config


def test_a_releases_own_configuration_is_tried_kept_and_taken_back(
    board: Board, operator: Operator
) -> None:
    proven(board, operator)
    old, new = release("1", A), release("1+2", A, config="new", permissions=["env"])
    operator.deploy(plugin("guard", new, old), **SECOND_KIND)
    board.wait(1)
    assert board.running() == {"10-guard": "1+2"}
    assert (configured(board), board.plans[-1].releases[0].on_probation) == ("new", True)
    assert board.plans[-1].releases[0].settings.permissions == ("env",)
    board = again(board).start()
    assert (configured(board), board.plans[-1].releases[0].on_probation) == ("new", True)
    board.keep("10-guard")
    assert not board.plans[-1].releases[0].on_probation
    operator.deploy(plugin("guard", old))
    board.wait(1)
    assert (board.running(), configured(board)) == ({"10-guard": "1"}, "")


def test_a_releases_own_configuration_that_fails_condemns_neither_module_nor_the_one_before(
    board: Board, operator: Operator
) -> None:
    proven(board, operator)
    old, bad = release("1", A), release("1+2", A, config="bad")
    operator.deploy(plugin("guard", bad, old), **SECOND_KIND)
    board.wait(1)
    board.reject("10-guard")
    assert (board.running(), configured(board)) == ({"10-guard": "1"}, "")
    (held,) = board.status()["rejected"]
    assert held.startswith(f"{A.blob.digest}+")
    board = again(board).start()
    assert (board.running(), configured(board)) == ({"10-guard": "1"}, "")
    operator.deploy(plugin("guard", release("1+3", A, config="good"), old), **SECOND_KIND)
    board.wait(1)
    assert (board.running(), configured(board)) == ({"10-guard": "1+3"}, "good")
    assert board.status()["rejected"] == {}


def test_node_without_trusted_keys_says_so_and_runs_on(
    board: Board, operator: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    proven(board, operator)
    (board.folder / "trust" / "0.pem").unlink()
    operator.deploy(plugin("guard", release("2", B)))
    board = again(board)
    with caplog.at_level(logging.ERROR):
        board.start()
        board.wait(10)
    assert board.running() == {"10-guard": "1"}
    assert "no key is trusted" in board.status()["trust"]["trouble"]
    assert "nobody is trusted here" in board.status()["refused"]["text"]
    assert sum("no deployment can be taken" in line for line in caplog.messages) == 1


# --- what is not taken


def test_refused_documents_change_nothing_are_counted_and_logged_once(
    board: Board, operator: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    proven(board, operator)
    before = {path: path.read_bytes() for path in sorted(board.folder.rglob("*.json"))}
    with caplog.at_level(logging.WARNING):
        for number in range(50):
            board.shelf.publish(TOPICS.deployment, b"rubbish %d" % number)
            board.shelf.publish(TOPICS.trust, b"{}" * number or b"x")
            board.wait(1)
    refused = board.status()["refused"]
    assert refused["reason"] == board.status()["trust"]["refused"]["reason"] == "envelope"
    assert (refused["count"], refused["generation"]) == (50, None)
    assert len(caplog.records) == 2
    assert {path: path.read_bytes() for path in sorted(board.folder.rglob("*.json"))} == before
    assert board.running() == {"10-guard": "1"}


def test_rubbish_between_good_documents_that_are_known_fills_no_log(
    board: Board, operator: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    proven(board, operator)
    operator.rotate(trust_set(KEYS[0], KEYS[1], version=2))
    board.wait(2)
    deployment, trust = (board.shelf.retained[topic] for topic in (TOPICS.deployment, TOPICS.trust))
    with caplog.at_level(logging.WARNING):
        for _ in range(20):  # a broker has what it needs for this
            for documents in ((b"rubbish", b"rubbish"), (deployment, trust)):
                board.shelf.publish(TOPICS.deployment, documents[0])
                board.shelf.publish(TOPICS.trust, documents[1])
                board.wait(2)
    assert len(caplog.records) == 2
    assert board.status()["refused"] is None


def test_flood_of_documents_is_looked_at_once_a_second(board: Board, operator: Operator) -> None:
    proven(board, operator)
    board.wait(5)
    for number in range(1000):
        board.shelf.publish(TOPICS.deployment, b"%d" % number)
    good = operator.deploy(plugin("guard", release("2", B)))
    board.turn()
    assert board.status()["refused"]["count"] == 1
    board.wait(1)
    assert board.running() == {"10-guard": "2"}
    assert good


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ({"generation": 1}, "conflict"),
        ({"expires": "2026-11-24T11:59:59Z"}, "expired"),
        ({"generation": 1, "plugins": []}, "conflict"),
    ],
)
def test_refusal_has_the_protocols_reason(
    board: Board, operator: Operator, head: dict[str, object], reason: str
) -> None:
    proven(board, operator)
    operator.deploy(plugin("guard", release("2", B)), **head)
    board.wait(1)
    refused = board.status()["refused"]
    assert refused["reason"] == reason
    assert refused["generation"] == head.get("generation", 2)
    assert board.running() == {"10-guard": "1"}


def test_older_generation_is_refused_after_a_restart_too(board: Board, operator: Operator) -> None:
    old = operator.deploy(plugin("guard", release("1", A)))
    board.start()
    operator.deploy(plugin("guard", release("2", B)))
    board.wait(1)
    board.shelf.retained[TOPICS.deployment] = old
    board = again(board).start()
    assert board.status()["refused"]["reason"] == "rollback"
    assert board.running() == {"10-guard": "2"}


@pytest.mark.parametrize(
    "topic",
    [
        f"{TOPICS.blobs}/",
        f"{TOPICS.blobs}/{A.blob.digest.hex}",
        f"{TOPICS.blobs}/{A.blob.digest.hex}/",
        f"{TOPICS.blobs}/{A.blob.digest.hex}/x",
        f"{TOPICS.blobs}/{A.blob.digest.hex}/-1",
        f"{TOPICS.blobs}/{A.blob.digest.hex}/0/0",
        f"{TOPICS.blobs}/{A.blob.digest.hex}/{'9' * 5000}",
        f"{TOPICS.blobs}/../../etc/0",
        f"{TOPICS.blobs}/{'f' * 64}/0",
        f"edge/v1/{FLEET}/elsewhere",
    ],
)
def test_rubbish_on_any_topic_changes_nothing(board: Board, operator: Operator, topic: str) -> None:
    proven(board, operator)
    operator.deploy(plugin("guard", release("2", wasm(9))))
    board.wait(1)
    before = sorted(board.folder.rglob("*"))
    for payload in (b"", b"x", bytes(70_000)):
        board.receive(topic, payload)
        board.turn()
    assert sorted(board.folder.rglob("*")) == before
    assert board.running() == {"10-guard": "1"}


# --- clocks


def test_expired_deployment_that_runs_goes_on(board: Board, operator: Operator) -> None:
    proven(board, operator)
    board = again(board, clock=board.clock + 1e8).start()
    assert board.running() == {"10-guard": "1"}
    assert board.status()["expired"]


def test_deployment_that_expires_on_its_way_is_still_carried_out(
    board: Board, operator: Operator
) -> None:
    missing = wasm(9)
    operator.deploy(plugin("guard", release("1", missing)))
    board.start()
    board = again(board, clock=board.clock + 1e8).start()
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


def test_rejection_under_one_name_leaves_what_is_proven_under_another(
    board: Board, operator: Operator
) -> None:
    # The same module, which one of its configurations does not suit.
    guard = plugin("guard", release("1", A), config="good")
    operator.deploy(guard)
    board.start()
    board.keep("10-guard")
    operator.deploy(guard, plugin("logger", release("1", A), config="bad", index="20"))
    board.wait(1)
    board.reject("20-logger")
    board.wait(1)
    assert board.running() == {"10-guard": "1"}
    assert not board.plans[-1].releases[0].on_probation
    board = again(board)
    board.start()
    assert board.running() == {"10-guard": "1"}
    # Nor does it go back to one before, which the same deployment names second.
    operator.deploy(plugin("guard", release("1", A), release("0", B), config="good"))
    board.wait(1)
    assert board.running() == {"10-guard": "1"}


def test_word_on_another_configuration_of_the_module_changes_nothing(
    board: Board, operator: Operator
) -> None:
    operator.deploy(plugin("guard", release("1", A), config="first"))
    board.start()
    first = board.updater._catalogue.plugins["10-guard"].current.setup
    operator.deploy(plugin("guard", release("1", A), config="second"))
    board.wait(1)
    second = board.updater._catalogue.plugins["10-guard"].current.setup
    board.updater.verdict("10-guard", A.blob.digest, False, "late", first)
    board.updater.verdict("10-guard", A.blob.digest, True, "late", first)
    assert board.plans[-1].releases[0].on_probation
    assert board.status()["rejected"] == {}
    board.updater.verdict("10-guard", A.blob.digest, True, "", second)
    assert not board.plans[-1].releases[0].on_probation
