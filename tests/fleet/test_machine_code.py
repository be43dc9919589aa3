"""Machine code that a deployment names beside a module: taken where it is for this node, signed
for and whole; and in every other case the module runs all the same, compiled by the node."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent.errors import RefusedError, StoreError
from edge_agent.fleet_protocol import deployment
from edge_agent.store.digest import NO_DIGEST
from edge_agent.store.layout import Layout
from edge_agent.store.release import Code, misfit
from tests.fleet.machinecode import (
    CODE,
    MACHINE,
    MODULE,
    NEW,
    OTHER,
    code,
    guard,
    here,
    operator_with_code,
    wanted,
)
from tests.support.blobs import cut
from tests.support.fleetnode import FLEET, KEYS, Board, Operator, plugin, release
from tests.support.shelf import Shelf


@pytest.fixture
def operator(shelf: Shelf) -> Operator:
    return operator_with_code(shelf)


@pytest.fixture
def board(tmp_path: Path, shelf: Shelf) -> Board:
    return Board(tmp_path / "board", shelf, machine=MACHINE)


def test_code_for_this_node_is_fetched_before_the_module_is_run(
    board: Board, operator: Operator
) -> None:
    operator.deploy(guard("1", MODULE, code(CODE)))
    board.start()
    found = wanted(board).code
    assert found is not None
    assert (found.digest, found.path.read_bytes()) == (CODE.blob.digest, CODE.data)
    assert wanted(board).path.read_bytes() == MODULE.data
    assert board.status()["compiled"] == "accept"
    assert board.status()["code"] == {"10-guard": ""}
    assert len(board.plans) == 2, "none, and the module with its code"


def test_node_that_refuses_fetches_nothing_of_it(
    tmp_path: Path, shelf: Shelf, operator: Operator
) -> None:
    board = Board(tmp_path / "board", shelf)
    operator.deploy(guard("1", MODULE, code(CODE)))
    board.start()
    assert (wanted(board).version, wanted(board).code) == ("1", None)
    assert not any(CODE.blob.digest.hex in topic for topic in shelf.asked)
    assert (board.status()["compiled"], board.status()["code"]) == ("refuse", {})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"engine": "wasmtime"}, "engine: wasmtime, here wasmer"),
        ({"version": "7.4.1"}, "engine version: 7.4.1, here 7.4.2"),
        ({"target": "aarch64"}, "target: aarch64, here riscv64"),
        ({"settings": "elf,narrow"}, "settings: elf,narrow, here elf,wide"),
        ({"settings": "elf,wide,fuel=2"}, "settings: elf,wide,fuel=2, here elf,wide"),
        ({"features": ["v", "zbb", "h"]}, "features: this processor lacks h, zbb"),
    ],
)
def test_code_for_others_is_not_fetched_and_the_reason_is_told(
    board: Board, operator: Operator, changes: dict[str, Any], reason: str
) -> None:
    operator.deploy(guard("1", MODULE, code(CODE, **changes)))
    board.start()
    assert (wanted(board).version, wanted(board).code) == ("1", None)
    assert not any(CODE.blob.digest.hex in topic for topic in board.shelf.asked)
    assert board.status()["code"] == {"10-guard": reason}


def test_the_first_that_fits_of_many_is_taken(board: Board, operator: Operator) -> None:
    others = code(OTHER, target="aarch64"), code(OTHER, version="7.5.0")
    operator.deploy(guard("1", MODULE, *others, code(CODE), code(NEW)))
    board.start()
    found = wanted(board).code
    assert found is not None
    assert found.digest == CODE.blob.digest


def test_code_that_counts_is_for_a_plugin_with_a_limit_of_instructions(
    board: Board, operator: Operator
) -> None:
    counting = code(NEW, settings="elf,wide,fuel=2")
    operator.deploy(guard("1", MODULE, code(CODE), counting, limits={"fuel": 1000}))
    board.start()
    found = wanted(board).code
    assert found is not None
    assert found.digest == NEW.blob.digest
    only_plain = code(CODE)
    operator.deploy(guard("2", OTHER, only_plain, limits={"fuel": 1000}))
    board.wait(10)
    assert (wanted(board).version, wanted(board).code) == ("2", None)


def test_of_many_plugins_the_reasons_are_told(
    tmp_path: Path, shelf: Shelf, operator: Operator
) -> None:
    board = Board(tmp_path / "board", shelf, machine=MACHINE)
    misfit = code(CODE, target="aarch64")
    entries = [
        plugin(f"p{number}", release("1", MODULE, code=[misfit if number == 39 else code(CODE)]))
        for number in range(40)
    ]
    operator.deploy(*entries)
    board.start()
    assert len(board.plans[-1].releases) == 40
    told = board.status()["code"]
    assert len(told) == 16
    assert told["10-p39"] == "target: aarch64, here riscv64"


# --- what is refused, and the module is run


def test_code_with_another_content_is_given_up(board: Board, operator: Operator) -> None:
    for number, part in enumerate(CODE.parts):
        board.shelf.publish(f"edge/v1/{FLEET}/blobs/{CODE.blob.digest.hex}/{number}", part[::-1])
    operator.deploy(guard("1", MODULE, code(CODE)))
    board.start()
    board.wait(1)
    assert (wanted(board).version, wanted(board).code) == ("1", None)
    (reason,) = board.status()["code"].values()
    assert reason.startswith("mqtt: ")
    assert not here(board, CODE)
    assert board.status()["pending"] is None


def test_code_that_is_larger_than_declared_is_given_up(board: Board, operator: Operator) -> None:
    small = code(CODE)
    small["blob"] = {**small["blob"], "size": len(CODE.data) - 1}
    operator.deploy(guard("1", MODULE, small))
    board.start()
    board.wait(1)
    assert (wanted(board).version, wanted(board).code) == ("1", None)
    assert "10-guard" in board.status()["code"]


def test_code_that_does_not_come_delays_a_deployment_and_no_more(
    board: Board, operator: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    absent = cut(b"\x7fELF nowhere" * 100)
    operator.deploy(guard("1", MODULE, code(absent)))
    board.start()
    board.wait(60)
    assert board.running() == {}
    assert board.status()["code"] == {"10-guard": "it is not here"}
    with caplog.at_level(logging.WARNING):
        board.wait(600)
    assert (wanted(board).version, wanted(board).code) == ("1", None)
    assert "its module is compiled here" in caplog.text
    assert not any(absent.blob.digest.hex in topic for topic in board.shelf.subscribed)


def test_code_that_does_not_come_is_given_up_however_often_a_sync_is_asked_for(
    board: Board, operator: Operator
) -> None:
    absent = [cut(b"\x7fELF nowhere %d" % number * 100) for number in range(2)]
    entries = [
        plugin(f"p{number}", release("1", MODULE, code=[code(each)]))
        for number, each in enumerate(absent)
    ]
    operator.deploy(*entries)
    board.start()
    for _ in range(8):  # two rounds of seven minutes
        board.wait(120)
        board.updater.sync()
        board.turn()
    assert board.running() == {"10-p0": "1", "10-p1": "1"}


def test_another_deployment_tries_again(board: Board, operator: Operator) -> None:
    topic = f"edge/v1/{FLEET}/blobs/{CODE.blob.digest.hex}/0"
    board.shelf.publish(topic, CODE.parts[0][::-1])
    operator.deploy(guard("1", MODULE, code(CODE)))
    board.start()
    board.wait(1)
    assert wanted(board).code is None
    board.keep("10-guard")
    board.shelf.publish(topic, CODE.parts[0])
    operator.deploy(guard("1", MODULE, code(CODE)))
    board.wait(10)
    found = wanted(board).code
    assert found is not None
    assert not wanted(board).on_probation


def test_a_network_that_is_away_is_no_reason_to_do_without(
    board: Board, operator: Operator
) -> None:
    operator.deploy(guard("1", MODULE, code(CODE)))
    board.updater.start()
    board.updater.step(board.now)
    board.receive(*board.shelf.delivered.popleft())
    board.shelf.away = True
    board.wait(3600)
    assert board.running() == {}
    board.shelf.back()
    board.wait(60)
    found = wanted(board).code
    assert found is not None
    assert found.digest == CODE.blob.digest


def test_code_above_the_nodes_limit_is_given_up_at_once(
    tmp_path: Path, shelf: Shelf, operator: Operator
) -> None:
    board = Board(tmp_path / "board", shelf, machine=MACHINE, max_plugin_bytes=3500)
    assert len(CODE.data) > 3500 > len(MODULE.data)
    operator.deploy(guard("1", MODULE, code(CODE)))
    board.start()
    assert (wanted(board).version, wanted(board).code) == ("1", None)
    assert "max_plugin" in board.status()["code"]["10-guard"]


def test_code_that_too_few_signed_for_is_not_looked_at(
    tmp_path: Path, shelf: Shelf, operator: Operator
) -> None:
    operator.signers = [KEYS[1]]
    board = Board(tmp_path / "board", shelf, machine=MACHINE)
    operator.deploy(guard("1", MODULE, code(CODE)))
    board.start()
    assert board.running() == {}
    assert board.status()["refused"]["reason"] == "signature"
    assert not any("blobs" in topic for topic in shelf.asked)


def test_module_that_is_named_as_code_too_is_kept_as_a_module(
    board: Board, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a disk that refuses it would be asked for ever, at once each time: code that cannot be
    stored is given up, a module is not."""
    full = ["no space", "no space"]

    def failing(add: Callable[..., Any]) -> Callable[..., Any]:
        def added(*given: Any) -> Any:
            if full:
                raise StoreError(full.pop())
            return add(*given)

        return added

    monkeypatch.setattr(Layout, "add_module", failing(Layout.add_module))
    monkeypatch.setattr(Layout, "add_blob", failing(Layout.add_blob))
    operator.deploy(guard("1", MODULE, code(MODULE)))
    board.start()
    assert board.running() == {}
    assert board.status()["trouble"] == "no space"
    board.wait(120)
    assert board.running() == {"10-guard": "1"}
    (stored,) = board.layout.releases()
    assert (stored.name, stored.digest) == ("guard", MODULE.blob.digest)


# --- the form


def test_old_agents_pass_over_it() -> None:
    """It is a field of a release, and unknown ones there are ignored: the kind stays the first."""
    entries = [guard("1", MODULE, code(CODE))]
    assert deployment.kind_of(entries) == deployment.KIND


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"engine": ""}, "engine"),
        ({"version": 7}, "version"),
        ({"target": "a b"}, "target"),
        ({"settings": "x" * 1025}, "settings"),
        ({"settings": "new\nline"}, "settings"),
        ({"features": "v"}, "features"),
        ({"features": ["v"] * 33}, "features"),
        ({"blob": {"digest": "sha256:00", "size": 9}}, "digest"),
        ({"kernel": "6.1"}, "kernel"),
        ({"sources": []}, "sources"),
    ],
)
def test_wrong_form_is_refused(operator: Operator, changes: dict[str, Any], problem: str) -> None:
    operator.generation = 1
    document = operator.document(guard("1", MODULE, code(CODE, **changes)))
    with pytest.raises(RefusedError, match=problem) as error:
        deployment.to_payload(document)
    assert error.value.reason == "malformed"


@pytest.mark.parametrize("key", ["engine", "version", "target", "settings", "features", "blob"])
def test_nothing_that_code_assumes_may_be_left_unsaid(operator: Operator, key: str) -> None:
    operator.generation = 1
    whole = code(CODE)
    del whole[key]
    with pytest.raises(RefusedError):
        deployment.to_payload(operator.document(guard("1", MODULE, whole)))


def test_misfit_names_one_thing_and_not_all_of_a_long_text() -> None:
    made_for = Code("wasmer", "7.4.2", "riscv64", "x" * 1000, (), NO_DIGEST, 1)
    assert len(misfit(made_for, MACHINE, False)) < 300
