"""What a node's disk holds over restarts, damage, a full disk and one that cannot be written."""

import errno
import logging
import os
import subprocess
from pathlib import Path

import pytest

from edge_agent.fleet.transfer.parts import IDLE_S
from edge_agent.store.release import PluginId
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
from tests.support.smalldisk import small_disk


def test_restart_runs_the_same_without_a_broker(board: Board, operator: Operator) -> None:
    proven(board, operator)
    board.shelf.away = True
    board = restarted(board)
    board.updater.start()
    assert board.running() == {"10-guard": "1"}
    assert not board.plans[-1].releases[0].on_probation


def test_probation_begins_again_after_a_restart(board: Board, operator: Operator) -> None:
    operator.deploy(plugin("guard", release("1", A)))
    board.start()
    assert restarted(board).start().plans[-1].releases[0].on_probation


def test_restart_goes_on_with_a_deployment_on_its_way(board: Board, operator: Operator) -> None:
    proven(board, operator)
    missing = wasm(9, 20_000)
    operator.deploy(plugin("guard", release("2", missing)))
    board.wait(1)
    for number in (0, 3):
        board.shelf.publish(TOPICS.blob_part(missing.blob.digest, number), missing.parts[number])
    board.turn()
    asked = len(board.shelf.asked)
    board = restarted(board)
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
    board = restarted(board)
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
        board = restarted(board).start()
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
        assert restarted(board).start().running() == {"10-guard": "1"}


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
        board = restarted(board).start()
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
    board = restarted(board)
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
    board = restarted(board)
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
    board = restarted(board)
    board.start()
    operator.deploy(plugin("guard", release("2", B)))
    board.wait(3600)
    assert board.plans == []
    assert "catalogue.json: is damaged" in board.status()["trouble"]
    board.updater.verdict(PluginId("10-guard"), A.blob.digest, False, "")
    board.updater.quarantine(A.blob.digest, "")
    assert board.updater.unquarantine(PluginId("10-guard")) == 0
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

    board = restarted(board)
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
