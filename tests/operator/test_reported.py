"""What a real node reports is what the operator's view reads: refusals, expiry, trust."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from edge_agent.config.units import Validity
from edge_agent.fleet_protocol import deployment, envelope, topics
from edge_agent.fleet_protocol.deployment import message_name
from edge_agent.fleet_protocol.reported_state import (
    FetchState,
    PluginState,
    Refusal,
    TrustState,
    UpdatesState,
)
from edge_agent.operator import overview
from edge_agent.operator.node_state import Node
from edge_agent.operator.overview import NOTHING, news, snapshot, troubles
from edge_agent.operator.tool_client import Received
from edge_agent.operator.view import View
from tests.fleet.test_hostile import REASONS
from tests.fleet_protocol.trustvectors import LATER
from tests.operator.conftest import Home
from tests.operator.peer import Peer
from tests.support.fleetnode import (
    KEYS,
    NOW,
    TOPICS,
    Board,
    Operator,
    plugin,
    release,
    trust_set,
    wasm,
)
from tests.support.mosquitto import needs_mosquitto
from tests.support.shelf import Shelf

A, B = wasm(1), wasm(2)
Peers = Callable[..., list[Peer]]


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def operator(shelf: Shelf) -> Operator:
    operator = Operator(shelf)
    operator.upload(A)
    operator.upload(B)
    return operator


@pytest.fixture
def board(tmp_path: Path, shelf: Shelf, operator: Operator) -> Board:
    """It runs generation 1."""
    board = Board(tmp_path, shelf)
    operator.deploy(plugin("guard", release("1", A)))
    board.start()
    board.wait(1)
    board.keep("10-guard")
    board.wait(1)
    assert board.running() == {"10-guard": "1"}
    return board


def seen(board: Board) -> Node:
    """As the operator reads what this node publishes."""
    view = View()
    state = {"agent": "0.1.0", "session": 1, "plugins": [], "updates": board.status()}
    for leaf, document in (("status", {"status": "online", "session": 1}), ("state", state)):
        payload = json.dumps(document, allow_nan=False).encode()
        view.feed(Received(f"edge/v1/greenhouse/nodes/board/{leaf}", payload, True))
    return view.nodes["board"]


def sealed(operator: Operator, **head: Any) -> bytes:
    operator.generation = head.pop("generation", operator.generation + 1)
    values = operator.document(plugin("guard", release("2", B)), **head)
    return envelope.seal(deployment.PAYLOAD_TYPE, deployment.to_payload(values), operator.signers)


def signed(operator: Operator, payload: bytes) -> bytes:
    return envelope.seal(deployment.PAYLOAD_TYPE, payload, operator.signers)


def another(operator: Operator) -> bytes:
    """Another document of the generation that runs."""
    return sealed(operator, generation=1)


def older(operator: Operator) -> bytes:
    return sealed(operator, generation=0)


def by_nobody(operator: Operator) -> bytes:
    operator.signers = [KEYS[3]]
    return sealed(operator)


def payload_of(operator: Operator, **head: Any) -> bytes:
    values = operator.document(plugin("guard", release("2", B)), **head)
    return json.dumps({**values, "generation": 2}).encode()


def by_an_algorithm_to_come(operator: Operator) -> bytes:
    """By a key that is trusted, and whose signatures nobody here can check."""
    operator.rotate(trust_set(KEYS[0], LATER, version=2))
    operator.signers = [LATER]
    return sealed(operator)


def under_keys_that_expired(operator: Operator) -> bytes:
    operator.rotate(trust_set(KEYS[0], version=2, validity=Validity(NOW - 1000, NOW - 1)))
    return sealed(operator)


REFUSED: Mapping[str, Callable[[Operator], bytes]] = {
    "oversized": lambda _: b"{" + b" " * topics.MAX_MESSAGE_BYTES + b"}",
    "envelope": lambda _: b"rubbish \x1b[31m",
    "signature": by_nobody,
    "kind": lambda operator: signed(operator, payload_of(operator, kind="another")),
    "fleet": lambda operator: signed(operator, payload_of(operator, fleet="another")),
    "rollback": lambda operator: _after(operator, 2),
    "gap": lambda operator: sealed(operator, epoch=7, generation=1),
    "conflict": another,
    "expired": lambda operator: sealed(
        operator, issued="2026-01-01T00:00:00Z", expires="2026-02-01T00:00:00Z"
    ),
    "malformed": lambda operator: signed(operator, payload_of(operator, plugins=3)),
    "algorithm": by_an_algorithm_to_come,
    "trust-expired": under_keys_that_expired,
    "jump": lambda operator: sealed(operator, generation=1 << 52),
}


def _after(operator: Operator, generation: int) -> bytes:
    """Generation 1 again, once a later one was taken; `board` takes that first."""
    first = sealed(operator, generation=1)
    operator.deploy(plugin("guard", release("1", A)), generation=generation)
    return first


def test_every_reason_is_tried() -> None:
    assert REFUSED.keys() == REASONS


@pytest.mark.parametrize("reason", REFUSED)
def test_the_view_shows_why_a_real_node_refuses_a_deployment(
    board: Board, operator: Operator, reason: str
) -> None:
    raw = REFUSED[reason](operator)
    board.wait(1)
    operator.shelf.publish(TOPICS.deployment, raw)
    board.wait(5)
    node = seen(board)
    refusal = node.refused["deployment"]
    assert (refusal.reason, bool(refusal.text), refusal.since) == (reason, True, int(NOW))
    assert refusal.message == message_name(raw[: topics.MAX_MESSAGE_BYTES + 1])  # no more is read
    view = View()
    view.nodes["board"] = node
    [told] = [each.text for each in troubles(view, {}) if each.text.startswith("refuses")]
    assert told.startswith(f"refuses the deployment ({reason} since 2026-11-24 12:00 UTC): ")
    assert told in [each.text for each in news("board", NOTHING, snapshot(node), {})]
    operator.signers = list(KEYS[:1])
    if reason == "trust-expired":
        over = trust_set(KEYS[0], version=2, validity=Validity(NOW - 1000, NOW - 1))
        operator.rotate(over, trust_set(KEYS[0], version=3))
    operator.deploy(plugin("guard", release("1", A)), generation=3)
    board.wait(5)
    assert seen(board).refused == {}  # a good one came


def test_the_view_shows_why_a_real_node_refuses_a_trust_set(
    board: Board, operator: Operator
) -> None:
    operator.signers = [KEYS[3]]
    operator.rotate(trust_set(KEYS[3], version=2))
    board.wait(5)
    node = seen(board)
    assert node.refused["trust"].reason == "signature"
    assert node.trust_version == 1
    view = View()
    view.nodes["board"] = node
    assert "trusts the keys of version 1, not of 2" in [
        each.text for each in troubles(view, {}, trust_version=2)
    ]
    assert not [each for each in troubles(view, {}, trust_version=1) if "trusts" in each.text]


def test_the_view_shows_that_what_a_real_node_runs_expires(board: Board) -> None:
    assert time.strftime("%Y-%m-%d", time.gmtime(seen(board).expires)) == "2026-12-24"
    assert not seen(board).expired
    board.clock = seen(board).expires + 1.0
    board.wait(7200)
    view = View()
    view.nodes["board"] = seen(board)
    assert "runs generation 1, which expired" in [each.text for each in troubles(view, {})]


def test_the_end_of_a_deployment_is_told_from_its_last_third_on() -> None:
    values = Operator(Shelf()).document()
    found = deployment.parse(deployment.to_payload({**values, "generation": 1}), fleet="greenhouse")
    day = 86_400
    assert overview.of_deployment(None, 0.0) == ""
    assert overview.of_deployment(found, found.expires - 10.1 * day) == ""
    assert (
        overview.of_deployment(found, found.expires - 9.9 * day)
        == "it expires in 10 days: deploy again"
    )
    assert (
        overview.of_deployment(found, found.expires - day) == "it expires in 24 hours: deploy again"
    )
    assert overview.of_deployment(found, found.expires).startswith("it has expired")


def test_what_a_node_reports_has_the_keys_of_the_schema(board: Board, operator: Operator) -> None:
    operator.shelf.publish(TOPICS.deployment, b"rubbish")
    board.wait(5)
    told = board.status()
    assert told.keys() == UpdatesState.__annotations__.keys()
    assert told["refused"].keys() == Refusal.__annotations__.keys()
    assert told["trust"].keys() <= TrustState.__annotations__.keys()
    assert all(each.keys() == FetchState.__annotations__.keys() for each in told["fetching"])
    read = {"identity", "index", "name", "version", "digest", "running", "status", "error"}
    assert read - {"identity"} <= PluginState.__annotations__.keys()


@pytest.mark.system
@needs_mosquitto
def test_a_refusal_is_shown_by_the_commands(published: Home, peers: Peers) -> None:
    peers("board-1")
    published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    with published.opened() as fleet:
        fleet.client.publish(fleet.topics.deployment, b"rubbish", retain=True)
    for words in (("nodes",), ("node", "board-1"), ("watch", "--seconds", "1")):
        assert "refuses the deployment" in published.fleet(*words)
    told = json.loads(published.fleet("nodes", "--json"))
    assert told["refused"]["deployment"]["reason"] == "envelope"
    assert told["refused"]["deployment"]["since"] > 0
