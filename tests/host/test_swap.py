"""Replacement under upstream's own runtime side, with containers created without pause."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.host.versions import version, versions_of
from tests.support.agent import Agent, guest
from tests.support.gobuild import require_go
from tests.support.gopeers import NriRuntime
from tests.support.goplugin import NativePlugin

pytestmark = pytest.mark.system

SWAPS = 3
LIFE = ["PostCreateContainer", "StartContainer"]


@pytest.mark.parametrize("crowd", [0, 14], ids=["alone", "among many"])
@pytest.mark.parametrize(
    ("careless", "linger_ms"), [(False, 0), (True, 50)], ids=["containerd", "cri-o"]
)
def test_every_container_is_adjusted_by_exactly_one_version(
    tmp_path: Path, careless: bool, linger_ms: int, crowd: int
) -> None:
    """Above 12 plugins upstream's order of equal indexes is not stable; careless runtimes
    send events between a plugin's synchronisation and its registration."""
    require_go()
    socket = tmp_path / "nri.sock"
    with (
        NriRuntime(socket, owners=False, careless=careless, linger_ms=linger_ms) as runtime,
        Agent(tmp_path / "agent", sockets=[socket], level="warning") as agent,
    ):
        names = [f"{20 + number}-crowd" for number in range(crowd)]
        for name in names:
            agent.put(name, guest("event-logger"))
        agent.put("10-bench", version(0))
        agent.wait_running("10-bench", *names)
        runtime.wait_for_plugins("10-bench", *names)  # a careless runtime lists them later
        runtime.burst_start(life=LIFE, pause_us=500)
        for number in range(1, SWAPS + 1):
            restarts = agent.entry("10-bench")["restarts"]
            agent.put("10-bench", version(number))
            agent.wait_replaced("10-bench", restarts)
        made_so_far = runtime.burst_made()
        runtime.wait_for_burst(made_so_far + 20)
        made = runtime.burst_stop()
    assert Counter(len(versions_of(container)) for container in made) == {1: len(made)}
    assert not [container.errors for container in made if container.errors]
    order = [versions_of(container)[0] for container in made]
    assert order == sorted(order)  # and never back to an earlier one
    assert set(order) == set(range(SWAPS + 1))


@pytest.mark.parametrize("older", [False, True], ids=["current", "NRI 0.12.0"])
def test_a_validator_is_replaced_without_failing_a_creation(tmp_path: Path, older: bool) -> None:
    """Runtimes before NRI 0.12.5 fail a creation when a validator closes (docs/adr/0005)."""
    require_go()
    socket = tmp_path / "nri.sock"
    with (
        NriRuntime(socket, owners=False, older=older) as runtime,
        Agent(tmp_path / "agent", sockets=[socket], level="warning") as agent,
        NativePlugin(socket, idx="05", name="setter", env={"WANTED": "yes"}, trace=False),
    ):
        agent.put("90-validator", guest("validator"), config="deny env FORBIDDEN\n")
        agent.wait_running("90-validator")
        runtime.burst_start(life=LIFE, pause_us=500)
        for number in range(SWAPS):
            restarts = agent.entry("90-validator")["restarts"]
            agent.put("90-validator", config=f"deny env FORBIDDEN_{number}\n")
            agent.wait_replaced("90-validator", restarts)
            runtime.wait_for_burst(runtime.burst_made() + 20)
        agent.put("90-validator", config="deny env WANTED\n")
        agent.wait_replaced("90-validator", SWAPS)
        runtime.wait_for_burst(runtime.burst_made() + 20)
        made = runtime.burst_stop()
        # The creations were moments to leave at: nobody waits to be closed in one of them.
        runtime.wait_for_sessions(2)
    refused = [container for container in made if container.errors]
    assert refused, "the last policy refuses"
    assert made[-1] is refused[-1]
    assert made.index(refused[0]) == len(made) - len(refused)  # none before the last policy
    assert all("90-validator" in text for each in refused for text in each.errors.values())


def test_an_idle_runtime_is_served_by_the_new_version_too(
    runtime: NriRuntime, agent: Agent
) -> None:
    agent.put("10-bench", version(1))
    agent.wait_running("10-bench")
    agent.put("10-bench", version(2))
    agent.wait_running("10-bench")
    assert "edge.bench/plg002" in runtime.create_container().annotations
    runtime.wait_for_plugins("10-bench")  # once: the old session has left


def test_a_changed_configuration_replaces_the_guest(runtime: NriRuntime, agent: Agent) -> None:
    agent.put("10-guard", guest("resource-guard"), config="[default]\nmemory.default = 64Mi\n")
    agent.wait_running("10-guard")
    assert runtime.create_container("c1").memory_limit == 64 << 20
    agent.put("10-guard", config="[default]\nmemory.default = 32Mi\n")
    agent.wait_replaced("10-guard", 0)
    assert runtime.create_container("c2").memory_limit == 32 << 20


def test_a_broken_new_file_leaves_the_old_version_at_work(
    runtime: NriRuntime, agent: Agent
) -> None:
    agent.put("10-bench", version(1))
    agent.wait_running("10-bench")
    for broken in (version(2)[:-100], b"not a module"):
        agent.put("10-bench", broken)
        agent.wait_for(lambda status: status["plugins"][0].get("error"), "the error is told")
        assert "edge.bench/plg001" in runtime.create_container().annotations
        agent.put("10-bench", version(1))
        agent.wait_running("10-bench")
    agent.put("10-bench", version(3))
    agent.wait_replaced("10-bench", 0)
    assert "edge.bench/plg003" in runtime.create_container().annotations


def test_a_new_version_that_fails_while_it_starts_never_takes_over(
    runtime: NriRuntime, agent: Agent
) -> None:
    agent.put("10-hostile", guest("hostile"), config="* : ok\n")
    agent.wait_running("10-hostile")
    for config in ("configure:trap\n", "synchronize:loop\n"):
        agent.put("10-hostile", config=config)
        agent.wait_for(
            lambda status: "10-hostile" and status["plugins"][0]["failures"], "the failure is told"
        )
        outcome = runtime.create_container()
        assert outcome.error == ""
        assert "10-hostile" in outcome.called


def test_the_state_of_a_plugin_survives_its_replacement(runtime: NriRuntime, agent: Agent) -> None:
    agent.put("10-edge", guest("edge"))
    agent.wait_running("10-edge")
    assert runtime.create_container("c1").annotations["edge.test/count"] == "1"
    agent.put("10-edge", config="anything\n")
    agent.wait_replaced("10-edge", 0)
    assert runtime.create_container("c2").annotations["edge.test/count"] == "2"


def test_plugins_come_and_go_without_touching_the_others(runtime: NriRuntime, agent: Agent) -> None:
    agent.put("10-bench", version(1))
    agent.wait_running("10-bench")
    since = agent.entry("10-bench")["since"]
    agent.put("20-edge", guest("edge"))
    agent.wait_running("20-edge")
    runtime.wait_for_plugins("10-bench", "20-edge")
    agent.remove("20-edge")
    agent.wait_for(lambda status: len(status["plugins"]) == 1, "20-edge is gone")
    outcome = runtime.create_container()
    assert outcome.error == ""
    assert "edge.test/count" not in outcome.annotations
    runtime.wait_for_plugins("10-bench")
    assert agent.entry("10-bench")["since"] == since
