"""Rollouts that advance by themselves, at a real broker."""

import json
from collections.abc import Callable

import pytest

from edge_agent.errors import OperatorError
from edge_agent.operator.course import follow
from edge_agent.operator.rollout import Course, Standing, decide
from tests.operator.conftest import Home
from tests.operator.peer import Peer
from tests.support.mosquitto import needs_mosquitto

Peers = Callable[..., list[Peer]]
QUICK = Course(steps=(25, 50, 100), soak_s=0.0, abort_percent=5.0)
NAMES = [f"board-{number}" for number in range(12)]


@needs_mosquitto
def test_a_good_release_reaches_every_node_step_by_step(published: Home, peers: Peers) -> None:
    nodes = peers(*NAMES)
    published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    published.fleet("rollout", "guard", "1.1.0", "--percent", "25", "-y")
    with published.opened() as fleet:
        steps = list(follow(fleet, "guard", "1.1.0", QUICK))
    assert [step.percent for step in steps if step.action == "advance"] == [50, 100]
    assert steps[-1].action == "done"
    assert sorted(steps[-1].standing.running) == sorted(NAMES)
    for node in nodes:
        assert node.runs() == {"20-guard": "1.1.0"}
    assert "rollout =" not in (published.path / "deployment.toml").read_text().split("\n\n")[-1]


@needs_mosquitto
def test_a_bad_release_is_taken_back_at_its_first_step(published: Home, peers: Peers) -> None:
    nodes = peers(*NAMES, dislikes=frozenset(["1.1.0"]))
    published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    published.fleet("rollout", "guard", "1.1.0", "--percent", "25", "-y")
    with published.opened() as fleet:
        steps = list(follow(fleet, "guard", "1.1.0", QUICK))
    assert steps[-1].action == "abort"
    assert all(step.action != "advance" for step in steps)
    assert 0 < len(steps[-1].standing.failed) < 12
    assert set(steps[-1].standing.failed.values()) == {"trap: unreachable"}
    for node in nodes:
        node.wait_for(3)
        assert node.runs() == {"20-guard": "1.0.0"}
    assert "1.1.0" not in (published.path / "deployment.toml").read_text().split("# version")[-1]


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
        with pytest.raises(OperatorError, match="somebody else deployed"):
            for _ in steps:
                pass


def standing(running: int = 0, pending: int = 0, away: int = 0, failed: int = 0) -> Standing:
    names = iter(range(1000))

    def take(count: int) -> tuple[str, ...]:
        return tuple(f"n{next(names)}" for _ in range(count))

    return Standing(take(running), take(pending), take(away), dict.fromkeys(take(failed), "trap"))


@pytest.mark.parametrize(
    ("found", "percent", "settled_s", "paused", "action"),
    [
        (standing(running=9, pending=1), 10, 0, False, "wait"),
        (standing(running=10), 10, 59, False, "soak"),
        (standing(running=10), 10, 60, False, "advance"),
        (standing(running=10, away=5), 10, 60, False, "advance"),
        (standing(running=10), 10, 60, True, "paused"),
        (standing(running=10), 100, 60, False, "done"),
        (standing(), 10, 60, False, "advance"),
        (standing(running=95, failed=5), 10, 60, False, "advance"),
        (standing(running=94, failed=6), 10, 60, False, "abort"),
        (standing(running=94, failed=6), 10, 60, True, "abort"),
        (standing(pending=94, failed=6), 10, 0, False, "abort"),
        (standing(running=2, failed=1), 100, 60, False, "abort"),
    ],
)
def test_decisions(
    found: Standing, percent: int, settled_s: float, paused: bool, action: str
) -> None:
    assert decide(Course(), found, percent, settled_s, paused) == action


def test_any_failure_aborts_at_a_threshold_of_zero() -> None:
    course = Course(abort_percent=0)
    assert decide(course, standing(running=999, failed=1), 10, 0) == "abort"
    assert decide(course, standing(running=999), 10, 60) == "advance"


def test_the_last_step_is_every_node_whatever_was_given() -> None:
    course = Course(steps=(5, 20))
    assert [course.next_step(percent) for percent in (0, 5, 20, 50, 100)] == [5, 20, 100, 100, None]
