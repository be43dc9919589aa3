"""Requests to a node, answered by a real peer with the nodes' own rules."""

import json
from collections.abc import Callable

import pytest

from edge_agent.operator.keyring import read_public
from tests.operator.conftest import Home
from tests.operator.peer import Peer
from tests.support.mosquitto import needs_mosquitto

pytestmark = [pytest.mark.system, needs_mosquitto]
Peers = Callable[..., list[Peer]]


def test_answers_are_shown_until_the_last(home: Home, peers: Peers) -> None:
    (node,) = peers("board-1")
    told = home.fleet("request", "board-1", "restart", "--arg", "plugin=20-guard").splitlines()
    assert told == [
        "board-1 restart: accepted",
        "board-1 restart: running",
        "board-1 restart: succeeded",
    ]
    (request,) = node.requests
    assert (request.verb, request.arguments) == ("restart", {"plugin": "20-guard"})
    (keyid,) = request.signers
    assert keyid == read_public(home.keys / "alice.pem").keyid


def test_without_a_key_that_counts_the_request_is_sent_unsigned_and_that_is_told(
    home: Home, peers: Peers
) -> None:
    (node,) = peers("board-1")
    (home.keys / "alice.key").unlink()
    told = home.fleet("request", "board-1", "sync").splitlines()
    assert told[0] == "none of the trusted keys is here: the request is not signed"
    assert [each.signers for each in node.requests] == [()]


def test_a_node_of_any_version_knows_the_word_for_what_a_command_calls_otherwise(
    home: Home, peers: Peers
) -> None:
    (node,) = peers("board-1")
    told = home.fleet("request", "board-1", "unquarantine", "--arg", "plugin=20-guard")
    assert "board-1 unquarantine: succeeded" in told
    (request,) = node.requests
    assert (request.verb, request.arguments) == ("release", {"plugin": "20-guard"})


def test_true_and_false_are_no_words(home: Home, peers: Peers) -> None:
    (node,) = peers("board-1")
    home.fleet("request", "board-1", "restart", "--arg", "force=true")
    assert node.requests[0].arguments == {"force": True}


def test_a_result_comes_with_the_last_answer(home: Home, peers: Peers) -> None:
    (node,) = peers("board-1")
    told = home.fleet("request", "board-1", "logs", "--arg", "lines=5", "--json").splitlines()
    (line,) = json.loads(told[-1])["result"]["lines"]
    assert line == {"time": 0, "level": "info", "source": "20-guard", "message": "hello"}
    told = home.fleet("request", "board-1", "logs").splitlines()
    assert told[-1].endswith("  info  20-guard  hello")
    assert node.requests[0].arguments["lines"] == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("release",), "plugin must be a plugin as NN-name"),
        (("logs", "--arg", "lines=0"), "lines must be a whole number"),
        (("sync", "--arg", "x=1"), "unknown argument x"),
        (("sync", "--arg", "x"), "NAME=VALUE is meant"),
    ],
)
def test_what_a_node_would_refuse_is_not_sent(
    home: Home, peers: Peers, words: tuple[str, ...], said: str
) -> None:
    (node,) = peers("board-1")
    code, _, errors = home.tried("request", "board-1", *words)
    assert code == 1
    assert said in errors
    assert node.requests == []


def test_a_node_that_never_was_there_is_told_at_once(home: Home, peers: Peers) -> None:
    peers("board-1")
    code, _, errors = home.tried("request", "board-9", "sync", "--timeout", "3600")
    assert code == 1
    assert "no node board-9 has reported to this broker; known are board-1" in errors


def test_a_silent_node_ends_the_wait(home: Home) -> None:
    with home.opened() as fleet:
        status = b'{"status": "lost", "session": 1}'
        fleet.client.publish(f"{fleet.nodes_topic}/board-9/status", status, retain=True)
    code, _, errors = home.tried("request", "board-9", "sync", "--timeout", "0.3")
    assert code == 1
    assert "board-9: no final answer to sync within 0.3 s (last: nothing); is it online?" in errors
