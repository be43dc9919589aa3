"""Whose documents a node takes, and what comes of those that it does not."""

import logging
from dataclasses import replace

import pytest

from edge_agent import strictjson
from edge_agent.store import catalogue_store
from edge_agent.store.catalogue import Known
from tests.fleet.updating import A, B, C, proven, restarted
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


def test_rotated_trust_is_followed_and_remembered(board: Board, operator: Operator) -> None:
    proven(board, operator)
    operator.rotate(trust_set(*KEYS[1:3], version=2, threshold=2))
    operator.deploy(plugin("guard", release("2", B)))
    board.wait(1)
    assert board.running() == {"10-guard": "2"}
    assert board.status()["trust"]["version"] == 2
    board = restarted(board).start()
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
    before = catalogue_store.load(path)
    catalogue_store.save(path, replace(before, known=Known(strictjson.MAX_INTEGER, "ab", 0.0)))
    board = restarted(board).start()
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
    board = restarted(board).start()
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


def test_node_without_trusted_keys_says_so_and_runs_on(
    board: Board, operator: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    proven(board, operator)
    (board.folder / "trust" / "0.pem").unlink()
    operator.deploy(plugin("guard", release("2", B)))
    board = restarted(board)
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
    board = restarted(board).start()
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
