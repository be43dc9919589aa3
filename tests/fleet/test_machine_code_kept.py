"""What becomes of machine code that a node has: rollback, removal, restart, damage."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.store import catalogue_store
from edge_agent.store.release import Machine
from tests.fleet.machinecode import (
    CODE,
    MACHINE,
    MODULE,
    NEW,
    OTHER,
    again,
    code,
    guard,
    here,
    operator_with_code,
    wanted,
)
from tests.support.fleetnode import Board, Operator, wasm
from tests.support.shelf import Shelf


@pytest.fixture
def operator(shelf: Shelf) -> Operator:
    return operator_with_code(shelf)


@pytest.fixture
def board(tmp_path: Path, shelf: Shelf) -> Board:
    return Board(tmp_path / "board", shelf, machine=MACHINE)


def test_rollback_runs_the_code_of_before(board: Board, operator: Operator) -> None:
    operator.deploy(guard("1", MODULE, code(CODE)))
    board.start()
    board.keep("10-guard")
    operator.deploy(guard("2", OTHER, code(NEW)))
    board.wait(10)
    found = wanted(board).code
    assert found is not None
    assert found.digest == NEW.blob.digest
    assert here(board, CODE)
    assert here(board, NEW)
    board.reject("10-guard")
    found = wanted(board).code
    assert (wanted(board).version, found and found.digest) == ("1", CODE.blob.digest)


def test_what_neither_runs_nor_ran_before_is_removed(board: Board, operator: Operator) -> None:
    operator.deploy(guard("1", MODULE, code(CODE)))
    board.start()
    board.keep("10-guard")
    operator.deploy(guard("2", OTHER, code(NEW)))
    board.wait(10)
    board.keep("10-guard")
    assert here(board, CODE), "of the release before"
    operator.deploy(guard("3", wasm(1)))
    operator.deploy()
    board.wait(10)
    assert not here(board, CODE)
    assert not here(board, NEW)


def test_the_same_module_by_other_code_is_no_new_release(board: Board, operator: Operator) -> None:
    operator.deploy(guard("1", MODULE))
    board.start()
    board.keep("10-guard")
    operator.deploy(guard("1", MODULE, code(CODE)))
    board.wait(10)
    assert not wanted(board).on_probation
    found = wanted(board).code
    assert found is not None
    assert found.digest == CODE.blob.digest
    operator.deploy(guard("1", MODULE, code(NEW)))
    board.wait(10)
    assert not wanted(board).on_probation
    assert not here(board, CODE), "no release is run by it any more"


def test_code_outlives_a_restart_without_a_broker(board: Board, operator: Operator) -> None:
    operator.deploy(guard("1", MODULE, code(CODE)))
    board.start()
    found = wanted(again(board)).code
    assert found is not None
    assert found.path.read_bytes() == CODE.data


@pytest.mark.parametrize(
    "machine",
    [
        pytest.param(None, id="refused"),
        pytest.param(replace(MACHINE, version="7.5.0"), id="another engine"),
        pytest.param(replace(MACHINE, settings="elf,narrow"), id="other settings"),
        pytest.param(replace(MACHINE, features=frozenset()), id="another processor"),
    ],
)
def test_code_of_before_is_not_run_where_it_does_not_belong_any_more(
    board: Board, operator: Operator, machine: Machine | None
) -> None:
    operator.deploy(guard("1", MODULE, code(CODE)))
    board.start()
    board.keep("10-guard")
    after = again(board, machine)
    assert all(each.code is None for plan in after.plans for each in plan.releases)
    assert wanted(after).version == "1"
    assert not wanted(after).on_probation
    assert not here(after, CODE)


def test_code_that_was_damaged_on_the_disk_is_not_run(board: Board, operator: Operator) -> None:
    operator.deploy(guard("1", MODULE, code(CODE)))
    board.start()
    path = board.layout.blob(CODE.blob.digest)
    path.chmod(0o644)
    path.write_bytes(CODE.data[:-1] + b"?")
    after = again(board)
    assert (wanted(after).version, wanted(after).code) == ("1", None)
    assert not path.exists()


def test_catalogue_of_an_older_agent_and_for_one_is_readable(
    board: Board, operator: Operator
) -> None:
    operator.deploy(guard("1", MODULE, code(CODE)))
    board.start()
    path = board.folder / "store" / "catalogue.json"
    catalogue = catalogue_store.load(path)
    (kept,) = catalogue.plugins.values()
    assert kept.current.code is not None
    body = json.loads(path.read_bytes())["body"]["plugins"]["10-guard"]["current"]
    assert catalogue_store.read_release(body) == kept.current
    assert body.keys() == {
        *("code", "config", "digest", "index", "name", "settings", "size", "version")
    }
    assert body["code"].keys() == {
        *("digest", "engine", "features", "settings", "size", "target", "version")
    }
    del body["code"]
    assert catalogue_store.read_release(body) == replace(kept.current, code=None)
