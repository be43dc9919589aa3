"""Rollouts that advance by themselves, at a real broker."""

import json
from collections.abc import Callable

import pytest

from edge_agent.errors import OperatorError
from edge_agent.fleet_protocol.deployment import message_name, place
from edge_agent.operator.rollout import Course, Reach, RolloutStatus, decide, lacking
from edge_agent.operator.rollout_driver import follow
from tests.operator.conftest import Home
from tests.operator.peer import Peer
from tests.support.mosquitto import needs_mosquitto
from tests.support.wait import wait_until

Peers = Callable[..., list[Peer]]
LAST = ("--index", "20", "-y")
QUICK = Course(steps=(25, 50, 100), soak_s=0.0, abort_percent=5.0)
NAMES_OF_4 = [f"board-{number}" for number in range(1, 5)]
NAMES = [f"board-{number}" for number in range(12)]


@pytest.mark.system
@needs_mosquitto
def test_a_good_release_reaches_every_node_step_by_step(published: Home, peers: Peers) -> None:
    nodes = peers(*NAMES)
    published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    published.fleet("rollout", "guard", "1.1.0", "--percent", "25", "-y")
    with published.opened() as fleet:
        steps = list(follow(fleet, "guard", "1.1.0", QUICK))
    assert [step.percent for step in steps if step.action == "advance"] == [50, 100]
    assert steps[-1].action == "done"
    assert sorted(steps[-1].status.running) == sorted(NAMES)
    for node in nodes:
        assert node.runs() == {"20-guard": "1.1.0"}
    assert "rollout =" not in (published.path / "deployment.toml").read_text().split("\n\n")[-1]


@pytest.mark.system
@needs_mosquitto
def test_a_bad_release_is_taken_back_at_its_first_step(published: Home, peers: Peers) -> None:
    nodes = peers(*NAMES, dislikes=frozenset(["1.1.0"]))
    published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    published.fleet("rollout", "guard", "1.1.0", "--percent", "25", "-y")
    with published.opened() as fleet:
        steps = list(follow(fleet, "guard", "1.1.0", QUICK))
    assert steps[-1].action == "abort"
    assert all(step.action != "advance" for step in steps)
    assert 0 < len(steps[-1].status.failed) < 12
    assert set(steps[-1].status.failed.values()) == {"trap: unreachable"}
    for node in nodes:
        node.wait_for(3)
        assert node.runs() == {"20-guard": "1.0.0"}
    assert "1.1.0" not in (published.path / "deployment.toml").read_text().split("# version")[-1]


@pytest.mark.system
@needs_mosquitto
def test_the_command_tells_each_step_and_fails_when_it_took_it_back(
    published: Home, peers: Peers
) -> None:
    peers("board-1", dislikes=frozenset(["1.1.0"]))
    published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    code, told, _ = published.tried(
        *(
            "rollout",
            "guard",
            "1.1.0",
            "--percent",
            "100",
            "--watch",
            "--soak",
            "0s",
            "-y",
            "--json",
        )
    )
    last = json.loads(told.splitlines()[-1])
    assert code == 1
    assert (last["action"], last["failed"]) == ("abort", {"board-1": "trap: unreachable"})


@pytest.mark.system
@needs_mosquitto
def test_steps_given_once_are_kept_for_the_next_advance(published: Home, peers: Peers) -> None:
    peers("board-1")
    words = ("--index", "20", "--steps", "5,30,100", "--soak", "10m", "-y")
    published.fleet("rollout", "guard", "1.0.0", *words)
    text = (published.path / "deployment.toml").read_text()
    assert "percent = 5" in text
    published.fleet("rollout", "guard", "1.0.0", "--advance", "-y")
    text = (published.path / "deployment.toml").read_text()
    assert "percent = 30" in text
    assert "steps = [5, 30, 100]" in text
    assert 'soak = "10m"' in text
    told = published.fleet("rollout", "guard", "1.0.0", "--pause", "--json")
    assert json.loads(told) == {"name": "guard", "version": "1.0.0", "held": True}
    code, _, errors = published.tried("rollout", "guard", "1.0.0", "--advance", "-y")
    assert (code, "is held; say --resume first" in errors) == (1, True)
    published.fleet("rollout", "guard", "1.0.0", "--resume")
    published.fleet("rollout", "guard", "1.0.0", "--advance", "-y")
    assert "\nrollout" not in (published.path / "deployment.toml").read_text()


@pytest.mark.system
@needs_mosquitto
def test_a_rollout_ends_when_somebody_else_deploys(published: Home, peers: Peers) -> None:
    peers("board-1")
    published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    record = published.path / "deployed.toml"
    with published.opened() as fleet, published.opened() as other:
        steps = follow(fleet, "guard", "1.0.0", Course(soak_s=3600))
        assert next(steps).action in ("wait", "soak")
        before = record.read_text()
        other.deploy()
        record.write_text(before)  # theirs is another folder
        with pytest.raises(OperatorError, match="another operator deployed"):
            for _ in steps:
                pass


def with_nodes(running: int = 0, pending: int = 0, away: int = 0, failed: int = 0) -> RolloutStatus:
    names = iter(range(1000))

    def take(count: int) -> tuple[str, ...]:
        return tuple(f"n{next(names)}" for _ in range(count))

    return RolloutStatus(
        take(running), take(pending), take(away), dict.fromkeys(take(failed), "trap")
    )


@pytest.mark.parametrize(
    ("found", "percent", "settled_s", "paused", "action"),
    [
        (with_nodes(running=9, pending=1), 10, 0, False, "wait"),
        (with_nodes(running=10), 10, 59, False, "soak"),
        (with_nodes(running=10), 10, 60, False, "advance"),
        (with_nodes(running=10, away=5), 10, 60, False, "advance"),
        (with_nodes(running=10), 10, 60, True, "paused"),
        (with_nodes(running=10), 100, 60, False, "done"),
        (with_nodes(), 10, 60, False, "wait"),
        (with_nodes(), 100, 60, False, "wait"),
        (with_nodes(away=3), 100, 3599, False, "wait"),
        (with_nodes(running=1, away=99), 10, 60, False, "advance"),
        (with_nodes(running=1, away=99, failed=1), 10, 60, False, "abort"),
        (with_nodes(running=95, failed=5), 10, 60, False, "advance"),
        (with_nodes(running=94, failed=6), 10, 60, False, "abort"),
        (with_nodes(running=94, failed=6), 10, 60, True, "abort"),
        (with_nodes(pending=94, failed=6), 10, 0, False, "abort"),
        (with_nodes(running=2, failed=1), 100, 60, False, "abort"),
    ],
)
def test_decisions(
    found: RolloutStatus, percent: int, settled_s: float, paused: bool, action: str
) -> None:
    assert decide(Course(), found, percent, settled_s, paused) == action


def test_a_step_needs_as_many_nodes_as_were_asked_for() -> None:
    course = Course(at_least=3, min_percent=50, timeout_s=600)
    assert course.needed(4) == 3
    assert course.needed(9) == 5
    found = with_nodes(running=4, away=5)
    assert decide(course, found, 10, 60, waited_s=599) == "wait"
    assert decide(course, found, 10, 60, waited_s=600) == "timeout"
    assert lacking(course, found).startswith("4 of 5 nodes needed run it (n4, n5")
    assert decide(course, with_nodes(running=5, away=4), 10, 60) == "advance"
    pending = with_nodes(running=8, pending=1)
    assert decide(course, pending, 10, 60, waited_s=600) == "timeout"
    assert lacking(course, pending) == "1 nodes are still to come (n8)"
    assert decide(Course(timeout_s=0), found, 10, 0, waited_s=1e9) == "soak"
    assert decide(Course(timeout_s=0), with_nodes(away=1), 10, 0, waited_s=1e9) == "wait"


def test_rings_come_before_percentages() -> None:
    course = Course(steps=(10, 50), rings=("ring=canary", "ring=early"))
    reach, seen = Reach(0, ("a",)), []
    while (following := course.following(reach)) is not None:
        reach = following
        seen.append(str(reach))
    assert seen == [
        "1 named node and ring=canary",
        "1 named node and ring=canary and ring=early",
        "1 named node and ring=canary and ring=early and 10 %",
        "1 named node and ring=canary and ring=early and 50 %",
        "1 named node and ring=canary and ring=early and 100 %",
    ]


def without_canaries(count: int, percent: int) -> list[str]:
    """Names of which none is among the first `percent` of the rollout of guard 1.1.0."""
    names = (f"node-{number}" for number in range(1000))
    return [each for each in names if place("guard 1.1.0", each) >= percent][:count]


@pytest.mark.system
@needs_mosquitto
def test_a_step_that_chooses_no_node_is_not_passed(published: Home, peers: Peers) -> None:
    nodes = peers(*without_canaries(3, 34), dislikes=frozenset(["1.1.0"]))
    published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    code, told, _ = published.tried(
        *("rollout", "guard", "1.1.0", "--steps", "34,100", "--soak", "0s", "--timeout", "3s"),
        *("--watch", "-y"),
    )
    assert code == 1
    assert "guard 1.1.0 at 34 %: none of the 3 nodes known is in it" in told
    assert "held, since no further node came to run it: no known node is in this step" in told
    assert "advanced" not in told
    assert all(node.runs() == {"20-guard": "1.0.0"} for node in nodes)
    assert "paused = true" in (published.path / "deployment.toml").read_text()
    code, _, errors = published.tried("rollout", "guard", "1.1.0", "--advance", "-y")
    assert (code, "is held" in errors) == (1, True)


@pytest.mark.system
@needs_mosquitto
def test_a_release_that_no_node_runs_is_never_done(published: Home, peers: Peers) -> None:
    """All are offline, or there is none at all."""
    words = ("--index", "20", "--soak", "0s", "--timeout", "3s", "--watch", "-y")
    code, told, _ = published.tried("rollout", "guard", "1.0.0", "--percent", "100", *words)
    assert (code, "no known node is in this step" in told) == (1, True)
    for node in peers("board-1", "board-2", "board-3"):
        node.die()
    with published.opened() as fleet:
        wait_until(lambda: fleet.view().online == 0, "all are lost")
    code, told, _ = published.tried("rollout", "guard", "1.1.0", "--percent", "100", *words)
    assert code == 1
    assert "done" not in told
    assert "0 of 1 nodes needed run it (board-1, board-2, board-3)" in told


@pytest.mark.system
@needs_mosquitto
def test_a_canary_that_ran_it_and_was_lost_passes_no_step(published: Home, peers: Peers) -> None:
    (node,) = peers("board-1")
    published.fleet("rollout", "guard", "1.0.0", "--percent", "50", "--nodes", "board-1", *LAST)
    node.wait_for(1)
    with published.opened() as fleet:
        wait_until(lambda: fleet.view().nodes["board-1"].plugins, "it tells that it runs it")
        assert fleet.view().nodes["board-1"].plugins[0].status == "running"
        node.die()
        wait_until(lambda: fleet.view().online == 0, "it is lost")
    words = ("--soak", "0s", "--timeout", "3s", "--watch", "-y")
    code, told, _ = published.tried("rollout", "guard", "1.0.0", *words)
    assert (code, "advanced" in told, "1 away" in told) == (1, False, True), told


@pytest.mark.system
@needs_mosquitto
def test_canaries_by_name_by_label_and_by_count_come_first(published: Home, peers: Peers) -> None:
    (*others,) = peers("board-1", "board-2", "board-3")
    (canary,) = peers("board-4", labels={"ring": "canary"})
    published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    told = published.fleet(
        *("rollout", "guard", "1.1.0", "--nodes", "board-2", "--steps", "ring=canary,100", "-y")
    )
    assert "guard 1.1.0 at 1 named node: 1 of 4 nodes: board-2" in told
    for node in (*others, canary):
        node.wait_for(2)
    assert [node.runs()["20-guard"] for node in (*others, canary)] == [
        *("1.0.0", "1.1.0", "1.0.0", "1.0.0")
    ]
    told = published.fleet("rollout", "guard", "1.1.0", "--advance", "-y")
    assert "at 1 named node and ring=canary: 2 of 4 nodes: board-2, board-4" in told
    canary.wait_for(3)
    assert canary.runs() == {"20-guard": "1.1.0"}
    told = published.fleet("rollout", "guard", "1.1.0", "--count", "3", "-y", "--json")
    (step,) = json.loads(told.splitlines()[0])["steps"]
    first = sorted(NAMES_OF_4, key=lambda name: place("guard 1.1.0", name))[:3]
    assert set(step["nodes"]) == {"board-2", "board-4", *first}
    for words, said in (
        (("--nodes", "board-9"), "no node board-9 has reported"),
        (("--count", "9"), "only 4 that guard is for are online"),
        (("--ring", "canary"), "is no ring"),
    ):
        code, _, errors = published.tried("rollout", "guard", "1.1.0", *words, "-y")
        assert (code, said in errors) == (1, True), errors
    published.fleet("rollout", "guard", "1.1.0", "--advance", "-y")
    for node in (*others, canary):
        node.wait_for(5)
        assert node.runs() == {"20-guard": "1.1.0"}


@pytest.mark.system
@needs_mosquitto
def test_an_only_release_that_fails_goes_no_further_and_uninstalls_nothing(
    published: Home, peers: Peers
) -> None:
    (good,) = peers("board-1")
    peers("board-2", dislikes=frozenset(["1.0.0"]))
    code, told, _ = published.tried(
        *("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "--watch", "-y")
    )
    assert (code, "too many failed" in told) == (1, True)
    good.wait_for(2)
    assert good.runs() == {"20-guard": "1.0.0"}
    assert "percent = 0" in (published.path / "deployment.toml").read_text()


@pytest.mark.system
@needs_mosquitto
def test_a_refusal_of_another_message_takes_no_rollout_back(published: Home, peers: Peers) -> None:
    """As a node says for a moment after each deployment that follows what it refused."""
    (node,) = peers("board-1")
    published.fleet("rollout", "guard", "1.0.0", "--percent", "50", "--nodes", "board-1", *LAST)
    node.wait_for(1)
    refused = {"reason": "signature", "text": "no", "since": 1, "generation": None}
    updates = {"generation": 0, "accepted": 0, "refused": {**refused, "message": "ab" * 8}}
    state = {"session": 1, "agent": "0.2.0", "plugins": [], "updates": updates}
    words = ("--soak", "0s", "--timeout", "3s", "--watch", "-y")
    with published.opened() as fleet:
        fleet.client.publish(f"{fleet.nodes_topic}/board-1/state", packed(state), retain=True)
        code, told, _ = published.tried("rollout", "guard", "1.0.0", *words)
        assert (code, "failed" in told, "1 nodes needed run it" in told) == (1, False, True), told
        published.fleet("rollout", "guard", "1.0.0", "--resume")
        name = message_name(fleet.client.kept(fleet.topics.deployment) or b"")
        updates["refused"] = {**refused, "message": name}
        fleet.client.publish(f"{fleet.nodes_topic}/board-1/state", packed(state), retain=True)
        code, told, _ = published.tried("rollout", "guard", "1.0.0", *words)
        assert (code, "too many failed: taken back" in told) == (1, True), told


def packed(value: object) -> bytes:
    return json.dumps(value).encode()


def test_any_failure_aborts_at_a_threshold_of_zero() -> None:
    course = Course(abort_percent=0)
    assert decide(course, with_nodes(running=999, failed=1), 10, 0) == "abort"
    assert decide(course, with_nodes(running=999), 10, 60) == "advance"


def test_the_last_step_is_every_node_whatever_was_given() -> None:
    course = Course(steps=(5, 20))
    assert [course.next_step(percent) for percent in (0, 5, 20, 50, 100)] == [5, 20, 100, 100, None]
