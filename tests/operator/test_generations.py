"""Which number a deployment gets: counted from what is signed, whatever nodes and brokers say."""

import json
from collections.abc import Callable

import pytest

from edge_agent import strictjson
from edge_agent.errors import OperatorError
from edge_agent.fleet_protocol import deployment, envelope
from edge_agent.fleet_protocol.deployment import MAX_GENERATION_STEP
from edge_agent.fleet_protocol.keys import SigningKey
from edge_agent.operator.deploy import Current, Deployed, Numbers, ahead, chosen, numbers
from edge_agent.operator.fleet import Fleet
from edge_agent.operator.tool_client import Received
from edge_agent.operator.view import View
from tests.operator.conftest import Home
from tests.operator.peer import Peer
from tests.support.mosquitto import needs_mosquitto

Peers = Callable[..., list[Peer]]
HIGHEST = strictjson.MAX_INTEGER
INSTALL = ("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")


def lie(fleet: Fleet, node: str, accepted: int) -> None:
    """What a board may write to its own topics, and a broker to all."""
    state = {"agent": "0.1.0", "session": 1, "updates": {"generation": 0, "accepted": accepted}}
    for leaf, document in (("status", {"status": "online", "session": 1}), ("state", state)):
        topic = f"{fleet.nodes_topic}/{node}/{leaf}"
        fleet.client.publish(topic, json.dumps(document).encode(), retain=True)


def forge(fleet: Fleet, generation: int, *signers: SigningKey) -> None:
    """An empty deployment at the broker, signed by these keys."""
    document = {"kind": deployment.KIND, "fleet": "greenhouse", "generation": generation}
    times = {"issued": "2026-11-24T11:00:00Z", "expires": "2026-12-24T11:00:00Z"}
    payload = strictjson.dumps({**document, **times, "plugins": []})
    raw = envelope.seal(deployment.PAYLOAD_TYPE, payload, signers)
    fleet.client.publish(fleet.topics.deployment, raw, retain=True)


def key(home: Home, name: str) -> SigningKey:
    return SigningKey.from_pem((home.keys / f"{name}.key").read_text())


def with_bob(home: Home) -> Home:
    """Two keys, of which both must sign."""
    bob = Home(home.keys.parent / "bob", home.port, home.capsys)
    bob.fleet("keygen", "bob")
    bob.path = home.path
    public = str(bob.keys / "bob.pem")
    home.tried("trust", "rotate", "--add", public, "--threshold", "2", "-y")
    sealed = str(home.path / "trust-2.dsse.json")
    bob.fleet("sign", sealed, "-y")
    home.fleet("trust", "rotate", "--add", public, "--signed", sealed, "-y")
    return bob


@pytest.mark.system
@needs_mosquitto
def test_a_board_that_lies_does_not_drive_the_count_up(published: Home, peers: Peers) -> None:
    (node, _) = peers("board-1", "board-2")
    published.fleet(*INSTALL)
    node.wait_for(1)
    with published.opened() as fleet:
        lie(fleet, "mallory", HIGHEST - 1)
    told = published.fleet("deploy", "-y")
    assert "1 node would refuse it" in told
    assert "mallory" in told
    assert "deployed generation 2" in told
    node.wait_for(2)
    assert node.generation == 2
    assert "deployed generation 3" in published.fleet("deploy", "-y")
    node.wait_for(3)


@pytest.mark.system
@needs_mosquitto
def test_one_key_of_two_does_not_drive_the_count_up(published: Home, peers: Peers) -> None:
    bob = with_bob(published)
    with published.opened() as fleet:
        forge(fleet, HIGHEST - 1, key(published, "alice"))
    code, told, _ = published.tried(*INSTALL)
    assert code == 1
    assert "the broker has no valid deployment of this fleet: 1 of 2 trusted keys signed it" in told
    assert "generation 1 for the fleet" in told
    sealed = str(published.path / "deployment-1.dsse.json")
    bob.fleet("sign", sealed, "-y")
    (node,) = peers("board-1")
    assert "deployed generation 1" in bob.fleet("deploy", "--signed", sealed, "-y")
    node.wait_for(1)


@pytest.mark.system
@needs_mosquitto
def test_nobody_signs_a_number_far_ahead_that_another_prepared_without_saying_so(
    published: Home,
) -> None:
    bob = with_bob(published)
    with published.opened() as fleet:
        document = fleet.draft().document("greenhouse", HIGHEST, 1_764_000_000.0)
    stolen = envelope.seal(deployment.PAYLOAD_TYPE, document.payload, [key(published, "alice")])
    file = published.path / "deployment-9.dsse.json"
    file.write_bytes(stolen)
    code, _, errors = bob.tried("sign", str(file), "-y")
    assert code == 1
    assert f"it is generation {HIGHEST} of epoch 0, and the next here is 1 of epoch 0" in errors
    assert file.read_bytes() == stolen
    code, _, errors = bob.tried("sign", str(file), "-y", "--generation", str(HIGHEST))
    assert (code, f"nodes take 1 to {MAX_GENERATION_STEP}" in errors) == (1, True)


@pytest.mark.system
@needs_mosquitto
def test_where_most_nodes_are_ahead_nothing_is_deployed_without_a_word(
    published: Home, peers: Peers
) -> None:
    """A broker that lost its data, and a folder that is behind."""
    (node,) = peers("board-1")
    for _ in range(3):
        published.fleet(*INSTALL)
    node.wait_for(3)
    with published.opened() as fleet:
        fleet.client.publish(fleet.topics.deployment, b"", retain=True)
    published.path.joinpath("deployed.toml").unlink()
    code, _, errors = published.tried("deploy", "-y")
    assert code == 1
    assert "1 of 1 nodes say that they accepted up to generation 3" in errors
    assert "--generation 4" in errors
    with published.opened() as fleet:
        assert fleet.client.kept(fleet.topics.deployment) is None
    assert "deployed generation 4" in published.fleet("deploy", "-y", "--generation", "4")
    node.wait_for(4)


@pytest.mark.system
@needs_mosquitto
def test_a_fleet_whose_numbers_were_used_up_goes_on_in_a_new_epoch(
    published: Home, peers: Peers
) -> None:
    (node,) = peers("board-1")
    alice = key(published, "alice")
    with published.opened() as fleet:  # with 0.1.0, which signed what a node said
        for generation in range(1, HIGHEST, HIGHEST // 2):
            forge(fleet, generation, alice)
        forge(fleet, HIGHEST, alice)
    node.known = deployment.Known(HIGHEST, "of what 0.1.0 accepted")
    code, _, errors = published.tried(*INSTALL, "--onto", str(HIGHEST))
    assert (code, "trust rotate --new-epoch" in errors) == (1, True)
    published.fleet("trust", "rotate", "--new-epoch", "-y")
    assert "epoch = 2" in (published.path / "fleet.toml").read_text()
    told = published.fleet(*INSTALL, "--onto", str(HIGHEST))
    assert "generation 1 of epoch 2 for the fleet greenhouse" in told
    node.wait_for_order((2, 1))
    assert node.runs() == {"20-guard": "1.0.0"}
    assert "deployed generation 2" in published.fleet("deploy", "-y")
    node.wait_for_order((2, 2))
    with published.opened() as fleet:
        forge(fleet, HIGHEST, alice)  # what the thief has kept
    assert node.deployment is not None
    published.fleet("deploy", "-y", "--onto", str(HIGHEST))
    node.wait_for_order((2, 3))


@pytest.mark.system
@needs_mosquitto
def test_after_a_rotation_the_folders_own_deployment_is_still_believed(
    published: Home,
) -> None:
    published.fleet(*INSTALL)
    bob = Home(published.keys.parent / "bob", published.port, published.capsys)
    bob.fleet("keygen", "bob")
    bob.path = published.path
    words = ("--add", str(bob.keys / "bob.pem"), "-y")
    published.fleet("trust", "rotate", *words)
    bob.fleet("trust", "rotate", "--remove", "alice", "-y")
    with bob.opened() as fleet:
        assert (fleet.current().generation, fleet.current().problem) == (1, "")
    assert "generation 2 for the fleet greenhouse, over generation 1" in bob.fleet("plan")
    (published.path / "deployed.toml").unlink()
    with bob.opened() as fleet:
        assert fleet.current().problem == "0 of 1 trusted keys signed it"


def test_what_a_node_accepted_counts_in_its_own_epoch() -> None:
    """It still runs the document of the epoch before, whose number was driven up."""
    view = View()
    updates = {"generation": HIGHEST, "accepted": 1, "epoch": 2, "pending": 1}
    state = json.dumps({"session": 1, "updates": updates}).encode()
    view.feed(Received("edge/v1/greenhouse/nodes/board-1/state", state, True))
    assert ahead(view, 2, 2) == []
    assert [node.name for node in ahead(view, 2, 1)] == ["board-1"]
    assert [node.name for node in ahead(view, 1, HIGHEST)] == ["board-1"]


def found(generation: int, epoch: int = 0) -> Current:
    document = deployment.Deployment("f", generation, 0.0, 1.0, (), b"", epoch)
    return Current(b"", document, "")


@pytest.mark.parametrize(
    ("now", "last", "epoch", "expected"),
    [
        (Current(None, None, ""), None, 0, Numbers(0, 0, 1)),
        (found(41), None, 0, Numbers(0, 41, 42)),
        (found(41), Deployed(43, ""), 0, Numbers(0, 43, 44)),
        (found(41), None, 2, Numbers(2, 0, 42)),  # nodes of 0.1.0 follow
        (found(MAX_GENERATION_STEP - 1), None, 2, Numbers(2, 0, MAX_GENERATION_STEP)),
        (found(MAX_GENERATION_STEP), None, 2, Numbers(2, 0, 1)),
        (found(HIGHEST), Deployed(HIGHEST, ""), 2, Numbers(2, 0, 1)),
        (found(1, 2), Deployed(HIGHEST, ""), 2, Numbers(2, 1, 2)),
        (found(1, 2), None, 0, Numbers(2, 1, 2)),  # a folder that is behind
    ],
)
def test_numbers(now: Current, last: Deployed | None, epoch: int, expected: Numbers) -> None:
    assert numbers(now, last, epoch) == expected


def test_the_operators_own_word_stays_within_what_nodes_take() -> None:
    found = Numbers(0, 41, 42)
    assert chosen(found, None) == 42
    assert chosen(found, 1000) == 1000
    assert chosen(found, 41 + MAX_GENERATION_STEP) == 41 + MAX_GENERATION_STEP
    for word in (41, 0, 42 + MAX_GENERATION_STEP):
        with pytest.raises(OperatorError, match="cannot follow 41"):
            chosen(found, word)
