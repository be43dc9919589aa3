"""What became of a reply: fields that a runtime drops, two plugins that set the same, updates and
validations that fail. On upstream's own code; nothing of it is told to a plugin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent import Agent, guest
from tests.support.gobuild import require_go
from tests.support.gopeers import NriRuntime
from tests.support.specruntime import SpecRuntime
from tests.support.wait import wait_until

pytestmark = pytest.mark.system

GUARD = {"10-guard": guest("resource-guard")}
LIMITS = {"10-guard": "[default]\nmemory.default = 64Mi\npids.default = 256\n"}
PIDS = "linux.resources.pids.limit"


def failures(agent: Agent, identity: str) -> dict[str, int]:
    found: dict[str, int] = agent.entry(identity)["failures"]
    return found


def test_a_pids_limit_that_nri_0_6_drops_is_told(tmp_path: Path) -> None:
    require_go()
    socket = tmp_path / "nri.sock"
    settings = tmp_path / "agent" / "plugins" / "10-guard.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text('permissions = ["linux.resources", "update"]\n')
    with (
        SpecRuntime(socket, version="1.7.24~ds1") as debian,
        Agent(tmp_path / "agent", sockets=[socket], plugins=GUARD, configs=LIMITS) as agent,
    ):
        agent.wait_running("10-guard")
        assert agent.entry("10-guard")["not_carried"] == ["linux.resources.pids"]
        made = debian.create("web")["linux"]["resources"]
        assert made["memory"]["limit"] == 64 << 20
        assert "pids" not in made
        agent.wait_for(lambda _: failures(agent, "10-guard") == {"dropped": 1}, "it is counted")
        error = agent.entry("10-guard")["error"]
        assert error == f"containerd 1.7.24~ds1 makes containers without {PIDS}"
        agent.wait_for_line(f"10-guard: {error}")
        debian.create("other")
        agent.wait_for(lambda _: failures(agent, "10-guard") == {"dropped": 2}, "each is counted")


def test_a_pids_limit_that_nri_0_8_applies_is_no_news(tmp_path: Path) -> None:
    require_go()
    socket = tmp_path / "nri.sock"
    with (
        SpecRuntime(socket, version="v1.7.28", newer=True) as newer,
        Agent(tmp_path / "agent", sockets=[socket], plugins=GUARD, configs=LIMITS) as agent,
    ):
        agent.wait_running("10-guard")
        made = newer.create("web")["linux"]["resources"]
        assert made["memory"]["limit"] == 64 << 20
        assert made["pids"]["limit"] == 256
        assert "reservation" not in made["memory"]
        # Containers are looked at in order, and this one has something that no NRI applies.
        had = {"resources": {"memory": {"reservation": 128 << 20}}}
        made = newer.create("other", {"linux": had})["linux"]["resources"]["memory"]
        assert made == {"limit": 64 << 20, "swap": 64 << 20, "reservation": 128 << 20}
        agent.wait_for(lambda _: failures(agent, "10-guard") == {"dropped": 1}, "it is counted")
        assert agent.entry("10-guard")["error"] == (
            "containerd v1.7.28 makes containers without linux.resources.memory.reservation"
        )


@pytest.fixture
def two(socket: Path, runtime: NriRuntime, tmp_path: Path) -> Iterator[Agent]:
    del runtime  # only the order: it listens first
    plugins = {"10-first": guest("bench"), "20-second": guest("bench")}
    with Agent(tmp_path / "agent", sockets=[socket], plugins=plugins) as agent:
        agent.wait_running("10-first", "20-second")
        yield agent


def test_two_hosted_plugins_that_set_the_same_are_told_with_each_other(
    runtime: NriRuntime, two: Agent
) -> None:
    told = runtime.create_container("c1").error
    assert told  # to whoever asked for the container, and to nobody else
    two.wait_for(
        lambda _: failures(two, "10-first") == failures(two, "20-second") == {"conflict": 1},
        "both are told",
    )
    first, second = two.entry("10-first")["error"], two.entry("20-second")["error"]
    assert "set by 20-second too" in first
    assert "set by 10-first too" in second
    # The runtime names one of the fields, the first that its map gave it; we name all.
    assert "10-first" in told
    assert "20-second" in told
    for error in (first, second):
        assert "annotations edge.bench/plugin" in error
        assert "env EDGE_BENCH" in error
    assert any(key in told for key in ("edge.bench/plugin", "EDGE_BENCH"))


def test_plugins_that_set_different_fields_are_at_peace(runtime: NriRuntime, agent: Agent) -> None:
    agent.put("10-guard", guest("resource-guard"), config=LIMITS["10-guard"])
    agent.put("20-bench", guest("bench"))
    agent.wait_running("10-guard", "20-bench")
    for number in range(3):
        assert runtime.create_container(f"c{number}").error == ""
    wait_until(lambda: agent.entry("20-bench")["events"] == 3, "all were answered")
    assert failures(agent, "10-guard") == failures(agent, "20-bench") == {}


def test_an_update_that_the_runtime_refuses_is_counted_and_told(
    runtime: NriRuntime, agent: Agent
) -> None:
    agent.put("10-edge", guest("edge"))
    agent.wait_running("10-edge")
    runtime.create_container("c1")
    runtime.updates(refuse="not today")
    runtime.create_container("c2", annotations={"edge.test/update": "c1 33554432"})
    agent.wait_for(lambda _: failures(agent, "10-edge") == {"update_refused": 1}, "it is counted")
    error = agent.entry("10-edge")["error"]
    assert error.startswith("the runtime did not update")
    assert "not today" in error


def test_a_validation_that_fails_is_told_to_whose_adjustment_it_was(
    runtime: NriRuntime, agent: Agent
) -> None:
    agent.put("10-bench", guest("bench"))
    agent.put("20-guard", guest("resource-guard"), config=LIMITS["10-guard"])
    agent.put("90-validator", guest("validator"), config="deny env EDGE_BENCH\n")
    agent.wait_running("10-bench", "20-guard", "90-validator")
    assert "EDGE_BENCH" in runtime.create_container("c1").error
    agent.wait_for(lambda _: failures(agent, "10-bench") == {"validation": 1}, "it is counted")
    error = agent.entry("10-bench")["error"]
    assert error.startswith("its adjustment was rejected by 90-validator: env EDGE_BENCH is denied")
    assert failures(agent, "20-guard") == {}  # the reason names who it was
    assert failures(agent, "90-validator") == {}  # it did what it is for


def test_what_docker_fails_or_drops_is_told_without_a_later_event(tmp_path: Path) -> None:
    require_go()
    socket = tmp_path / "nri.sock"
    config = "[default]\npids.default = 7\n"
    plugins = {"10-pids": guest("resource-guard"), "20-bench": guest("bench")}
    with (
        NriRuntime(socket, name="docker", version="29.7.2", owners=False, careless=True) as docker,
        Agent(
            tmp_path / "agent", sockets=[socket], plugins=plugins, configs={"10-pids": config}
        ) as agent,
    ):
        agent.wait_running("10-pids", "20-bench")
        docker.wait_for_plugins("10-pids", "20-bench")
        docker.create_container("c1", pod={"id": "c1", "name": "/c1"})
        agent.wait_for(lambda _: failures(agent, "10-pids") == {"dropped": 1}, "it drops pids")
        agent.wait_for(lambda _: failures(agent, "20-bench") == {"unsupported": 1}, "it fails")
        error = agent.entry("20-bench")["error"]
        assert error == "docker 29.7.2 takes no annotations from a plugin and fails the creation"
