"""`failure_policy = "Fail"` where the plugin does not run: upstream's runtime side is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.sim.runtime import SimRuntime
from tests.host.house import House
from tests.support.agent import Agent, guest, rename_into
from tests.support.gobuild import require_go
from tests.support.gopeers import NriRuntime
from tests.support.wait import wait_until

BROKEN = b"no module"


@pytest.mark.system
def test_a_module_that_is_none_lets_no_container_be_created(
    runtime: NriRuntime, agent: Agent
) -> None:
    agent.put("10-bench", BROKEN)
    agent.put("20-edge", guest("edge"))
    agent.wait_running("20-edge")
    agent.wait_refusing("10-bench", "10-bench.wasm")
    outcome = runtime.create_container()
    assert "plugin 10-bench does not run" in outcome.error
    assert str(agent.plugin_dir / "10-bench.wasm") in outcome.error
    assert outcome.called == ["10-bench"]
    assert runtime.run_pod().error == ""  # creations only
    assert agent.entry("10-bench")["failures"]["refused"] == 1
    agent.wait_for(
        lambda _: agent.entry("10-bench")["status"] == "backoff", "the next attempt is planned"
    )
    assert "refuses every container" in agent.log()
    # Set right, it takes its own place; taken away, nothing is refused.
    agent.put("10-bench", guest("bench"))
    agent.wait_running("10-bench")
    assert runtime.create_container().env["EDGE_BENCH"] == "c"
    wait_until(lambda: len(runtime.plugins().present) == 2, "the placeholder has left")


@pytest.mark.system
def test_a_plugin_that_is_removed_is_not_missed(runtime: NriRuntime, agent: Agent) -> None:
    agent.put("10-bench", BROKEN)
    agent.wait_refusing("10-bench", "10-bench.wasm")
    agent.remove("10-bench")
    wait_until(lambda: runtime.create_container().error == "", "it is gone")


@pytest.mark.system
@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ('failure_policy = "Fail"\n[limits]\nmemory = "much"', True),
        ('failure_policy = "Ignore"\n[limits]\nmemory = "much"', False),
        ('failure_policy = "Ignore', True),  # cut off: the policy cannot be known
        ('failure_policy = "ignore"', True),
        ("\xff", True),
    ],
    ids=["Fail", "Ignore", "cut off", "misspelt", "no text"],
)
def test_settings_that_are_wrong_at_the_start(
    runtime: NriRuntime, socket: Path, tmp_path: Path, settings: str, refused: bool
) -> None:
    agent = Agent(tmp_path / "agent", sockets=[socket])
    agent.put("10-bench", guest("bench"))
    agent.put("20-edge", guest("edge"))
    rename_into(agent.plugin_dir / "10-bench.toml", settings.encode("latin-1"))
    with agent:
        agent.wait_running("20-edge")
        if refused:
            agent.wait_refusing("10-bench", "10-bench.toml")
        error = runtime.create_container().error
        assert ("plugin 10-bench does not run" in error) == refused
        assert agent.entry("10-bench")["status"] == "failed"
        assert "10-bench.toml" in agent.entry("10-bench")["error"]


@pytest.mark.system
def test_a_guest_that_cannot_be_configured_is_refused_until_it_can(
    runtime: NriRuntime, agent: Agent
) -> None:
    agent.put("90-validator", guest("validator"), config="nonsense\n")
    agent.wait_refusing("90-validator", "line 1")
    assert "line 1" in runtime.create_container().error
    agent.put("90-validator", config="deny env FORBIDDEN\n")
    agent.wait_running("90-validator")
    assert runtime.create_container().error == ""


@pytest.mark.system
def test_no_container_is_made_unseen_while_the_plugin_takes_its_place(tmp_path: Path) -> None:
    """Each creation is refused, or seen by the plugin: no third way, in whatever order."""
    require_go()
    socket = tmp_path / "nri.sock"
    # Careless: requests are served between a plugin's synchronisation and its registration.
    with (
        NriRuntime(socket, careless=True, linger_ms=300) as runtime,
        Agent(tmp_path / "agent", sockets=[socket]) as agent,
    ):
        agent.put("10-bench", BROKEN)
        agent.wait_refusing("10-bench", "10-bench.wasm")
        wait_until(lambda: runtime.create_container().error, "creations are refused")
        runtime.burst_start(pause_us=2000)
        runtime.wait_for_burst(20)
        agent.put("10-bench", guest("bench"))
        agent.wait_running("10-bench")
        runtime.wait_for_burst(runtime.burst_made() + 20)
        made = runtime.burst_stop()
    refused = [bool(each.errors) for each in made]
    assert all(each.errors or each.env.get("EDGE_BENCH") == "c" for each in made)
    assert refused[0]
    assert not refused[-1]


def test_a_plugin_that_is_compiled_is_refused_meanwhile(tmp_path: Path) -> None:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    with House(tmp_path, grace_s=0.1) as house:
        house.may_compile.clear()
        house.apply(house.release("10-bench", "bench"))
        slot = house.slot("10-bench")
        house.until(
            lambda: slot.refusing and "compiled" in slot.sessions.placeholder.refusal(),
            "the placeholder stands and knows why",
        )
        pod = house.during(lambda: house.runtime.run_pod("p")).pod
        refused = house.during(lambda: house.runtime.create_container(pod, "c"))
        assert "it is being compiled" in refused.error
        [told] = house.results
        assert (told.plugin, told.event, told.kind) == ("10-bench", "CreateContainer", "error")
        assert told.runtime == str(house.runtime.path), "as in every other result"
        house.may_compile.set()
        house.until(lambda: house.status("10-bench") == "running", "it runs")
        house.until(
            lambda: not house.slot("10-bench").sessions.placeholder, "the placeholder has left"
        )
        made = house.during(lambda: house.runtime.create_container(pod, "c"))
        assert "EDGE_BENCH=c" in made.container.env


def test_ignored_it_is_not_missed(tmp_path: Path) -> None:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    with House(tmp_path) as house:
        gone = replace(
            house.release("10-bench", "bench", failure_policy="Ignore"), path=tmp_path / "gone"
        )
        house.apply(gone)
        house.until(lambda: house.status("10-bench") == "backoff", "it cannot be loaded")
        house.run(house.release("20-edge", "edge"))
        house.apply(gone, house.release("20-edge", "edge"))
        assert house.during(house.runtime.plugins)
        assert not house.slot("10-bench").refusing
        assert not house.slot("10-bench").sessions.placeholder.wanted


def test_a_runtime_that_restarts_is_refused_again(tmp_path: Path) -> None:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    with House(tmp_path) as house:
        release = house.release("10-bench", "bench")
        house.apply(replace(release, path=tmp_path / "gone"))

        def creation() -> str:
            house.runtime.wait_for_plugins(1)
            return house.runtime.create_container(house.runtime.run_pod("p").pod, "c").error

        for _ in range(2):
            assert "plugin 10-bench does not run" in house.during(creation)
            house.during(house.runtime.restart)  # it forgets its plugins
        assert "plugin 10-bench does not run" in house.during(creation)
        house.run(release)


def test_a_socket_that_somebody_removes_lets_no_container_be_created(tmp_path: Path) -> None:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    with House(tmp_path) as house:
        # It cannot be configured, so it connects again and again.
        house.apply(house.release("90-validator", "validator", "nonsense\n"))
        house.until(
            lambda: house.slot("90-validator").refusing,
            "the placeholder stands",
        )
        pod = house.during(lambda: house.runtime.run_pod("p")).pod
        house.runtime.path.unlink()
        runtime = house.supervisor.endpoints[0]
        house.until(lambda: runtime.state == "waiting", "the plugin has tried to connect")
        refused = house.during(lambda: house.runtime.create_container(pod, "c"))
        assert "does not run" in refused.error
        # The runtime's own end is told by the session's.
        house.during(house.runtime.restart)
        house.until(
            lambda: house.slot("90-validator").refusing,
            "it stands there again",
        )


def test_a_runtime_that_takes_no_placeholder_is_asked_now_and_then(tmp_path: Path) -> None:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    asked: list[str] = []

    def refuse(_index: str, name: str) -> str:
        asked.append(name)
        return "no"

    runtime = SimRuntime(tmp_path / "nri.sock", refuse=refuse)
    with House(tmp_path, runtime) as house:
        house.apply(replace(house.release("10-bench", "bench"), path=tmp_path / "gone"))
        house.until(lambda: len(asked) > 2, "it tries again")
        assert not house.slot("10-bench").refusing
