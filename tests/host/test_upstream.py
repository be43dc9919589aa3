"""The agent as upstream's own runtime side sees it: order, owners, conflicts, restarts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.host.versions import version
from tests.support.agent import Agent, guest, rename_into
from tests.support.gobuild import go_annotator_module, require_go
from tests.support.gopeers import NriRuntime
from tests.support.goplugin import NativePlugin
from tests.support.wait import wait_until

pytestmark = pytest.mark.system

ANNOTATIONS, ENV, MEMORY_LIMIT = 1, 6, 8  # numbers of NRI's enum Field


def test_a_wasm_plugin_stands_between_two_native_ones(
    runtime: NriRuntime, agent: Agent, socket: Path
) -> None:
    agent.put("50-bench", guest("bench"))
    agent.wait_running("50-bench")
    with (
        NativePlugin(socket, idx="10", name="before", annotations={"before": "yes"}),
        NativePlugin(socket, idx="90", name="after", annotations={"after": "yes"}),
    ):
        runtime.wait_for_plugins("10-before", "50-bench", "90-after")
        outcome = runtime.create_container("c1")
        assert outcome.plugins == ["10-before", "50-bench", "90-after"]
        assert outcome.annotations == {"before": "yes", "edge.bench/plugin": "c", "after": "yes"}
        assert outcome.owner("c1", ANNOTATIONS, "edge.bench/plugin") == "50-bench"
        assert outcome.owner("c1", ENV, "EDGE_BENCH") == "50-bench"


def test_a_conflict_with_a_native_plugin_is_the_runtimes_to_find(
    runtime: NriRuntime, agent: Agent, socket: Path
) -> None:
    agent.put("50-bench", guest("bench"))
    agent.wait_running("50-bench")
    with NativePlugin(socket, idx="10", name="native", env={"EDGE_BENCH": "mine"}):
        runtime.wait_for_plugins("10-native", "50-bench")
        error = runtime.create_container().error
        assert "10-native" in error
        assert "50-bench" in error
        assert "EDGE_BENCH" in error


def test_two_wasm_plugins_are_merged_by_the_runtime(runtime: NriRuntime, agent: Agent) -> None:
    agent.put("10-guard", guest("resource-guard"), config="[default]\nmemory.default = 64Mi\n")
    agent.put("20-bench", guest("bench"))
    agent.wait_running("10-guard", "20-bench")
    outcome = runtime.create_container("c1")
    assert outcome.plugins == ["10-guard", "20-bench"]
    assert outcome.memory_limit == 64 << 20
    assert outcome.owner("c1", MEMORY_LIMIT) == "10-guard"


def test_a_validator_rejects_what_another_plugin_did(
    runtime: NriRuntime, agent: Agent, socket: Path
) -> None:
    agent.put("90-validator", guest("validator"), config="deny env FORBIDDEN\n")
    agent.wait_running("90-validator")
    with NativePlugin(socket, idx="10", name="native", env={"FORBIDDEN": "x"}):
        runtime.wait_for_plugins("10-native", "90-validator")
        error = runtime.create_container().error
        assert "90-validator" in error
        assert "FORBIDDEN" in error
    wait_until(lambda: runtime.create_container().error == "", "the native plugin is gone")


def test_an_upstream_go_plugin_runs_unmodified(runtime: NriRuntime, agent: Agent) -> None:
    require_go()
    agent.put("10-go", go_annotator_module())
    agent.wait_running("10-go")
    outcome = runtime.create_container()
    assert outcome.annotations == {"edge.example/annotator": "go"}
    assert outcome.env == {"EDGE_AGENT": "go"}
    assert runtime.run_pod().error == ""


def test_an_old_generation_plugin_is_served_through_state_change(
    runtime: NriRuntime, agent: Agent
) -> None:
    agent.put("10-old", guest("old-gen"))
    agent.wait_running("10-old")
    assert runtime.run_pod("p1").error == ""
    assert runtime.create_container(pod="p1").annotations == {"edge.test/old-gen": "seen"}
    agent.wait_for_line("event 1 pod p1")


def test_unsolicited_updates_arrive_after_the_event(runtime: NriRuntime, agent: Agent) -> None:
    agent.put("10-edge", guest("edge"))
    agent.wait_running("10-edge")
    runtime.create_container("c1")
    outcome = runtime.create_container("c2", annotations={"edge.test/update": "c1 33554432"})
    assert outcome.error == ""
    wait_until(lambda: runtime.updates(), "the update arrives")
    assert "c1" in str(runtime.updates()[0])
    runtime.updates(refuse="no")
    runtime.create_container("c3", annotations={"edge.test/update": "c1 16777216"})
    agent.wait_for_line("did not update")
    assert runtime.create_container("c4").error == ""


def test_a_runtime_that_is_restarted_is_served_again(tmp_path: Path) -> None:
    require_go()
    socket = tmp_path / "nri.sock"
    with Agent(tmp_path / "agent", sockets=[socket]) as agent:
        agent.put("10-bench", version(1))
        agent.put("20-edge", guest("edge"))
        agent.wait_for(lambda status: len(status["plugins"]) == 2, "it waits for a runtime")
        for _ in range(2):
            with NriRuntime(socket) as runtime:
                agent.wait_running("10-bench", "20-edge")
                outcome = runtime.create_container()
                assert outcome.plugins == ["10-bench", "20-edge"]
                runtime.kill()
            agent.wait_for(
                lambda status: status["runtimes"][0]["state"] == "waiting", "it is missed"
            )


def test_an_agent_that_was_killed_comes_back(runtime: NriRuntime, agent: Agent) -> None:
    agent.put("10-bench", guest("bench"))
    agent.wait_running("10-bench")
    agent.kill()
    assert runtime.create_container("c1").error == ""
    agent.start()
    agent.wait_running("10-bench")
    assert runtime.create_container("c2").plugins == ["10-bench"]


def test_two_runtimes_at_a_time(tmp_path: Path) -> None:
    require_go()
    one, two = tmp_path / "one.sock", tmp_path / "two.sock"
    with (
        NriRuntime(one) as first,
        NriRuntime(two, name="cri-o", version="v1.34.0") as second,
        Agent(tmp_path / "agent", sockets=[one, two, tmp_path / "absent.sock"]) as agent,
    ):
        agent.put("10-edge", guest("edge"))
        agent.wait_running("10-edge", runtimes=2)
        assert first.create_container("c1").error == ""
        assert second.create_container("c2").annotations == {"edge.test/count": "2"}
        second.kill()
        assert first.create_container("c3").error == ""


def test_a_split_synchronisation_arrives_whole(tmp_path: Path) -> None:
    require_go()
    socket = tmp_path / "nri.sock"
    with (
        NriRuntime(
            socket,
            fill=(20, 900, 10_000),  # 9 MB: three parts
            request_timeout_ms=20_000,
        ) as runtime,
        Agent(
            tmp_path / "agent", sockets=[socket], limits={"memory": "128MiB", "deadline": "9s"}
        ) as agent,
    ):
        agent.put("10-logger", guest("event-logger"))
        agent.wait_running("10-logger")
        agent.wait_for_line("900")
        assert runtime.create_container().error == ""


def test_sighup_applies_new_limits(runtime: NriRuntime, agent: Agent) -> None:
    agent.put("10-bench", guest("bench"))
    agent.wait_running("10-bench")
    agent.configure(limits={"memory": "64KiB"})
    agent.reload()
    agent.wait_for(lambda _: agent.entry("10-bench")["restarts"] == 1, "the guest is made anew")
    agent.configure(limits={"memory": "nonsense"})
    agent.reload()
    agent.wait_for_line("the configuration stays as it was")
    assert "edge.bench/plugin" in runtime.create_container().annotations


def test_sighup_keeps_a_plugin_whose_files_are_wrong(runtime: NriRuntime, agent: Agent) -> None:
    agent.put("10-bench", guest("bench"))
    agent.wait_running("10-bench")
    rename_into(agent.plugin_dir / "10-bench.toml", b"not toml")
    agent.wait_for(lambda _: agent.entry("10-bench").get("error"), "the error is told")
    agent.reload()
    agent.put("20-edge", guest("edge"))
    agent.wait_running("20-edge")  # so the folder was read after the signal
    assert runtime.create_container().plugins == ["10-bench", "20-edge"]
    assert agent.entry("10-bench")["restarts"] == 0


@pytest.mark.parametrize("older", [False, True])
def test_an_agent_that_ends_in_order_fails_no_container(tmp_path: Path, older: bool) -> None:
    """Nor those that are being created: what has come is answered, nothing more is taken."""
    require_go()
    socket = tmp_path / "nri.sock"
    agent = Agent(tmp_path / "agent", sockets=[socket])
    # Under "Fail" containers are refused while it is compiled, or started for longer than GRACE_S.
    agent.put("10-edge", guest("edge"), settings={"failure_policy": "Ignore"})
    with NriRuntime(socket, older=older) as runtime, agent:
        runtime.burst_start()
        for _ in range(4):
            agent.wait_running("10-edge")
            runtime.wait_for_burst(runtime.burst_made() + 50)
            agent.stop()
            runtime.wait_for_burst(runtime.burst_made() + 50)
            agent.start()
        made = runtime.burst_stop()
    assert [each.errors for each in made if each.errors] == []
    adjusted = ["edge.test/count" in each.annotations for each in made]
    assert {True, False} == set(adjusted)
