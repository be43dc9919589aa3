"""What carries a watched rollout on: what enrolled nodes signed under this very deployment."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent.fleet_protocol import deployment, keys, libcrypto, signed_states
from edge_agent.fleet_protocol.deployment import Deployment
from edge_agent.fleet_protocol.packing import pack_json
from edge_agent.operator.enrolment import Enrolment
from edge_agent.operator.overview import rows
from edge_agent.operator.rollout import Course, RolloutStatus, decide, lacking, rollout_status
from edge_agent.operator.rollout_driver import follow
from edge_agent.operator.tool_client import Received
from edge_agent.operator.view import View
from edge_agent.store.digest import sha256_hex
from tests.operator.conftest import Home
from tests.operator.peer import Peer
from tests.support.mosquitto import needs_mosquitto

FLEET = "greenhouse"
DIGEST = f"sha256:{'c3' * 32}"
SEEDS = {f"board-{number}": bytes([number]) * 32 for number in range(1, 5)}
KEYS = {name: keys.public_key(libcrypto.public_of(seed)) for name, seed in SEEDS.items()}


def document(generation: int = 7, percent: int = 50, epoch: int = 0) -> Deployment:
    values: dict[str, Any] = {
        "kind": "edge-agent.deployment",
        "fleet": FLEET,
        "generation": generation,
        "issued": "2026-11-23T18:00:00Z",
        "expires": "2027-11-23T18:00:00Z",
        "plugins": [
            {
                "name": "guard",
                "index": "20",
                "releases": [
                    {
                        "version": "1.1.0",
                        "rollout": {"percent": percent, "seed": "s"},
                        "blob": {"digest": DIGEST, "size": 100, "parts": 1, "part_size": 65536},
                    }
                ],
            }
        ],
    }
    payload = deployment.to_payload({**values, "epoch": epoch} if epoch else values)
    return deployment.parse(payload, fleet=FLEET)


ALL = document(percent=100)


def state(
    name: str, of: Deployment = ALL, status: str = "running", number: int = 1, **changes: Any
) -> dict[str, Any]:
    """What a node says that took this deployment and does so with its release."""
    updates = {
        "generation": of.generation,
        "accepted": of.generation,
        "epoch": of.epoch,
        "document": sha256_hex(of.payload),
        "pending": None,
        "rejected": {},
    }
    plugin = {
        "name": "guard",
        "index": "20",
        "version": "1.1.0",
        "digest": DIGEST,
        "status": status,
        "error": "trap: unreachable" if status == "failed" else "",
    }
    return {
        "session": 9,
        "number": number,
        "fleet": FLEET,
        "node": name,
        "time": 5,
        "plugins": [plugin],
        "updates": {**updates, **changes.pop("updates", {})},
        **changes,
    }


def signed(told: dict[str, Any], seed: bytes | None = None) -> bytes:
    seed = SEEDS[told["node"]] if seed is None else seed
    raw = pack_json(told)
    signature = libcrypto.sign(seed, signed_states.to_sign(raw))
    return signed_states.sealed(raw, libcrypto.public_of(seed), signature)


def view(*messages: tuple[str, bytes], strict: bool = True, enrolled: int = 4) -> View:
    """Of a broker that says that all of these nodes are online."""
    chosen = dict(list(KEYS.items())[:enrolled])
    found = View(Enrolment(FLEET, chosen, strict))
    for name, message in messages:
        root = f"edge/v1/{FLEET}/nodes/{name}"
        found.feed(Received(f"{root}/status", b'{"status":"online","session":9}', True))
        found.feed(Received(f"{root}/state", message, True))
    return found


def judged(found: View, of: Deployment = ALL) -> RolloutStatus:
    return rollout_status(found, of, "guard", "1.1.0")


def promotes(found: RolloutStatus, course: Course | None = None) -> bool:
    """Whether a step is passed, however long it holds."""
    course = course or Course(soak_s=0.0)
    actions = {decide(course, found, percent, 1e9, waited_s=0.0) for percent in (10, 100)}
    return bool(actions & {"advance", "done"})


def only(name: str, message: bytes, **more: Any) -> View:
    """Of one node; the other enrolled ones are not heard of."""
    return view((name, message), enrolled=1, **more)


def test_what_an_enrolled_node_signed_under_this_deployment_carries_it_on() -> None:
    found = judged(only("board-1", signed(state("board-1"))))
    assert found.running == ("board-1",)
    assert promotes(found)


BEFORE = document(generation=6, percent=100)
ANOTHER = document(generation=7, percent=99)
FALSE: dict[str, Callable[[], bytes]] = {
    "unsigned": lambda: pack_json(state("board-1")),
    "by another key": lambda: signed(state("board-1"), SEEDS["board-2"]),
    "of another node": lambda: signed(state("board-2"), SEEDS["board-2"]),
    "of another node by this key": lambda: signed(state("board-2"), SEEDS["board-1"]),
    "of another fleet": lambda: signed(state("board-1", fleet="shed")),
    "of no fleet": lambda: signed({k: v for k, v in state("board-1").items() if k != "fleet"}),
    "changed after it was signed": lambda: signed(state("board-1", status="probation")).replace(
        b'"probation"', b'"running"'
    ),
    "cut short": lambda: signed(state("board-1"))[:-9] + b'"}}',
    "of an unknown algorithm": lambda: signed(state("board-1")).replace(
        b'"signed":{', b'"signed":{"algorithm":"ml-dsa-65",'
    ),
    "behind another member": lambda: (
        signed(state("board-1", status="failed"))[:-1]
        + b',"plugins":'
        + pack_json({"a": state("board-1")["plugins"]})[5:-1]
        + b"}"
    ),
    "huge": lambda: signed(state("board-1", more="x" * 300_000)),
    "no state": lambda: b"",
    "garbage": lambda: b'{"signed":{"key":"","sig":""}}',
}
OLD: dict[str, Callable[[], bytes]] = {
    "of the deployment before": lambda: signed(state("board-1", BEFORE)),
    "of another document of this number": lambda: signed(state("board-1", ANOTHER)),
    "of this number in another epoch": lambda: signed(state("board-1", updates={"epoch": 3})),
    "accepted, and still fetching": lambda: signed(state("board-1", updates={"pending": 7})),
    "accepted, and running the one before": lambda: signed(
        state("board-1", updates={"generation": 6})
    ),
    "of an agent that does not name the document": lambda: signed(
        state("board-1", updates={"document": None})
    ),
    "on probation": lambda: signed(state("board-1", status="probation")),
}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("name", FALSE)
def test_what_is_not_its_word_holds_the_step(name: str, strict: bool) -> None:
    found = judged(only("board-1", FALSE[name](), strict=strict))
    assert not found.running
    assert not promotes(found)
    assert found.unproven or found.away  # "no state": nothing is said at all
    assert decide(Course(), found, 100, 0.0, waited_s=1e9) == "timeout"
    told = lacking(Course(), found)
    assert "board-1" in told


@pytest.mark.parametrize("name", OLD)
def test_what_it_said_before_or_on_the_way_holds_the_step(name: str) -> None:
    found = judged(only("board-1", OLD[name]()))
    assert found.pending == ("board-1",)
    assert not promotes(found)


@pytest.mark.parametrize(
    "make", [lambda: pack_json(state("board-1", status="failed")), FALSE["by another key"]]
)
def test_a_failure_that_nobody_signed_holds_the_step_and_takes_nothing_back(
    make: Callable[[], bytes],
) -> None:
    """A broker can stop a rollout. That it could also bring back a release with a known fault
    would be more."""
    found = judged(only("board-1", make()))
    assert not found.failed
    assert decide(Course(abort_percent=0.0), found, 50, 0.0) == "wait"


def test_a_signed_failure_takes_it_back() -> None:
    found = judged(only("board-1", signed(state("board-1", status="failed"))))
    assert found.failed == {"board-1": "trap: unreachable"}
    assert decide(Course(), found, 50, 0.0) == "abort"


def test_an_old_signed_failure_takes_nothing_back() -> None:
    rejected = {"rejected": {DIGEST: "trap"}}
    found = judged(only("board-1", signed(state("board-1", BEFORE, updates=rejected))))
    assert (found.failed, found.pending) == ({}, ("board-1",))


def test_a_refusal_of_this_deployment_counts_by_its_signature() -> None:
    refused = {"reason": "expired", "text": "too late", "generation": 7, "since": 1}
    told = state("board-1", BEFORE, updates={"refused": refused})
    assert "expired" in judged(only("board-1", signed(told))).failed["board-1"]
    assert not judged(only("board-1", pack_json(told))).failed


def test_a_state_of_before_another_is_none() -> None:
    """Of before a restart too: sessions grow over it."""
    good = signed(state("board-1", number=3))
    failed = signed(state("board-1", status="failed", number=4))
    for later in (failed, signed(state("board-1", status="failed", number=1, session=10))):
        found = view(("board-1", good), ("board-1", later), ("board-1", good), enrolled=1)
        assert "(older)" in found.nodes["board-1"].unproven
        assert not promotes(judged(found))
        # Also when the node was cleared away in between.
        found = view(("board-1", later), ("board-1", b""), ("board-1", good), enrolled=1)
        assert not promotes(judged(found))
    same = view(("board-1", good), ("board-1", good), enrolled=1)
    assert promotes(judged(same))


def test_what_stands_behind_it_in_time_is_the_last_word_again() -> None:
    found = view(
        ("board-1", pack_json(state("board-1"))), ("board-1", signed(state("board-1"))), enrolled=1
    )
    assert promotes(judged(found))


def test_nodes_that_somebody_made_up_carry_nothing_on_and_hide_no_failure() -> None:
    ghosts = [(f"ghost-{number}", pack_json(state(f"ghost-{number}"))) for number in range(100)]
    found = judged(view(*ghosts, enrolled=1))
    assert len(found.uncounted) == 100
    assert found.away == ("board-1",)  # the broker brings nothing of it
    assert not promotes(found)
    assert "not enrolled" in lacking(Course(), found)
    bad = signed(state("board-1", status="failed"))
    found = judged(view(*ghosts, ("board-1", bad), enrolled=1))
    assert decide(Course(abort_percent=50.0), found, 50, 0.0) == "abort"


def test_enrolled_nodes_of_which_nothing_comes_count_as_nodes_that_are_away() -> None:
    """So that a broker cannot make "half of them" smaller by keeping the others back."""
    found = judged(view(("board-1", signed(state("board-1")))))
    assert (len(found.running), len(found.away)) == (1, 3)
    assert not promotes(found, Course(soak_s=0.0, min_percent=50.0))


def test_of_nodes_that_are_not_enrolled_failures_and_delays_hold_where_proof_is_asked_for() -> None:
    proven = ("board-1", signed(state("board-1")))
    for status, held in (("failed", True), ("probation", True), ("running", False)):
        other = ("other", pack_json(state("other", status=status)))
        seen = view(proven, other, enrolled=1)
        found = judged(seen)
        assert promotes(found) is not held
        assert not found.failed
        (row,) = rows(seen, ALL)  # what `watch` shows is what is said
        assert row.failed == (status == "failed")


def test_a_fleet_without_enrolled_nodes_believes_as_before() -> None:
    told = [("other", pack_json(state("other"))), ("bad", pack_json(state("bad", status="failed")))]
    found = judged(view(*told, strict=False, enrolled=0))
    assert (found.running, list(found.failed)) == (("other",), ["bad"])
    found = judged(view(told[0], strict=True, enrolled=0))
    assert not promotes(found)


def test_an_agent_of_before_is_read_as_before() -> None:
    """One as agents up to 0.1.0 publish it, and one of today's by a tool that knows no keys."""
    older = state("other", updates={"document": None, "epoch": None})
    for name in ("number", "fleet", "time"):
        del older[name]
    for told in (pack_json(older), signed(state("other"), SEEDS["board-1"])):
        found = view(("other", told), strict=False, enrolled=0)
        assert judged(found).running == ("other",)
        assert not found.nodes["other"].unproven


class Signing:
    """Peers that sign, and their enrolment by command."""

    def __init__(self, home: Home, peers: Callable[..., list[Peer]]) -> None:
        self.home = home
        self.nodes = [peers(name, seed=seed)[0] for name, seed in SEEDS.items()]

    def enrol(self, *names: str) -> None:
        for name in names:
            self.home.fleet("enrol", name, "--id", KEYS[name].keyid, "--json")


@pytest.mark.system
@needs_mosquitto
def test_a_rollout_of_an_enrolled_fleet_reaches_all(
    published: Home, peers: Callable[..., list[Peer]]
) -> None:
    fleet = Signing(published, peers)
    fleet.enrol(*SEEDS)
    published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    published.fleet("rollout", "guard", "1.1.0", "--nodes", "board-1", "-y")
    with published.opened() as opened:
        steps = list(follow(opened, "guard", "1.1.0", Course(steps=(100,), soak_s=0.0)))
    assert steps[-1].action == "done"
    assert steps[-1].status.running == tuple(SEEDS)


@pytest.mark.system
@needs_mosquitto
def test_in_a_fleet_that_is_enrolled_in_part_the_enrolled_ones_decide(
    published: Home, peers: Callable[..., list[Peer]]
) -> None:
    fleet = Signing(published, peers)
    fleet.enrol("board-2")
    published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    published.fleet("rollout", "guard", "1.1.0", "--nodes", "board-1", "-y")
    quick = ("--watch", "--soak", "0s", "--steps", "100", "--json")
    code, told, _ = published.tried("rollout", "guard", "1.1.0", *quick, "--timeout", "3s")
    last = json.loads(told.splitlines()[-1])
    assert (code, last["action"], last["uncounted"]) == (1, "timeout", ["board-1"])
    assert "not enrolled" in last["lacking"]
    published.fleet("rollout", "guard", "1.1.0", "--resume")
    fleet.enrol("board-1")
    code, told, _ = published.tried("rollout", "guard", "1.1.0", *quick)
    last = json.loads(told.splitlines()[-1])
    assert (code, last["action"]) == (0, "done")
    assert last["running"] == ["board-1", "board-2"]
    assert last["uncounted"] == ["board-3", "board-4"]


@pytest.mark.system
@needs_mosquitto
def test_enrolling_compares_keys_and_takes_no_other_silently(
    home: Home, peers: Callable[..., list[Peer]], tmp_path: Path
) -> None:
    (plain,) = peers("plain")
    (node,) = peers("board-1", seed=SEEDS["board-1"])
    known, other = KEYS["board-1"], KEYS["board-2"]
    code, _, errors = home.tried("enrol", plain.name, "-y")
    assert (code, "it is not signed" in errors) == (1, True)
    code, _, errors = home.tried("enrol", "nobody", "-y")
    assert (code, "no state of nobody" in errors) == (1, True)
    code, _, errors = home.tried("enrol", node.name, "--id", other.keyid)
    assert (code, known.keyid in errors) == (1, True)
    code, _, errors = home.tried("enrol", node.name)  # nobody can be asked
    assert (code, "give --yes" in errors) == (1, True)
    assert not (home.path / "nodes.toml").exists()
    assert f"key         {known.keyid}, which is not enrolled" in home.fleet("node", node.name)

    pem = tmp_path / "node.pem"
    pem.write_text(keys.public_pem(other))
    assert "is enrolled" in home.fleet("enrol", node.name, "--key", str(pem))
    told = home.fleet("node", node.name)
    assert "not proven" in told
    assert "(key)" in told
    assert "not proven" in home.fleet("nodes")
    code, _, errors = home.tried("enrol", node.name, "-y")
    assert (code, "give --replace" in errors) == (1, True)
    home.fleet("enrol", node.name, "--id", known.keyid, "--replace")
    assert f"key         {known.keyid}, enrolled" in home.fleet("node", node.name)
    assert "is enrolled already" in home.fleet("enrol", node.name, "--id", known.keyid)
    assert json.loads(home.fleet("enrol", node.name, "--remove", "-y", "--json")) == {
        "node": node.name,
        "key": known.keyid,
        "enrolled": False,
    }
    code, _, errors = home.tried("enrol", node.name, "--remove", "-y")
    assert (code, "is not enrolled" in errors) == (1, True)


@pytest.mark.system
@needs_mosquitto
def test_the_plan_says_what_a_watched_rollout_cannot_know(
    published: Home, peers: Callable[..., list[Peer]]
) -> None:
    fleet = Signing(published, peers)
    published.fleet("rollout", "guard", "1.0.0", "--percent", "50", "--index", "20", "-y")
    assert published.fleet("plan").count("no node is enrolled") == 1
    fleet.enrol("board-1")
    assert "no node is enrolled" not in published.fleet("plan")
