"""The state's file system becomes read-only, as a card does that begins to die."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.host.versions import version
from tests.support.agent import Agent, guest
from tests.support.gobuild import require_go
from tests.support.gopeers import NriRuntime
from tests.support.smalldisk import small_disk
from tests.support.wait import wait_until

pytestmark = pytest.mark.system

# One keeps something in the state at each container; results wait there for a broker.
PLUGINS = {
    "10-bench": guest("bench"),
    "20-hostile": guest("hostile"),
    "30-edge": guest("edge"),
}
MQTT = {"url": "mqtt://127.0.0.1:1"}
CONFIGS = {"20-hostile": "run_pod_sandbox:trap\n"}


def served(runtime: NriRuntime, container: str) -> bool:
    outcome = runtime.create_container(container)
    return not outcome.error and set(outcome.called) == set(PLUGINS)


def test_plugins_stay_served_when_the_state_becomes_read_only(tmp_path: Path) -> None:
    """Also those that have to be made anew, at a runtime or an agent that is restarted."""
    require_go()
    socket = tmp_path / "nri.sock"
    with (
        small_disk(tmp_path / "state", 32 << 10) as state,
        NriRuntime(socket) as runtime,
        Agent(
            tmp_path / "agent",
            sockets=[socket],
            plugins=PLUGINS,
            configs=CONFIGS,
            state_dir=str(state),
            mqtt=MQTT,
        ) as agent,
    ):
        agent.wait_running(*PLUGINS)
        subprocess.run(["mount", "-o", "remount,ro", str(state)], check=True)
        wait_until(lambda: served(runtime, "c1"), "c1")
        assert "20-hostile" in runtime.run_pod().error
        agent.wait_for(lambda _: agent.entry("20-hostile")["restarts"] == 1, "it is made anew")
        wait_until(lambda: served(runtime, "c2"), "c2")
        # Another version has to be compiled, which cannot be kept.
        agent.put("10-bench", version(1))
        agent.wait_for(lambda _: agent.entry("10-bench").get("error"), "what is wrong is told")
        assert "Read-only" in agent.entry("10-bench")["error"]
        wait_until(lambda: served(runtime, "c3"), "c3")
        agent.put("10-bench", guest("bench"))
        agent.wait_running(*PLUGINS)
        wait_until(lambda: served(runtime, "c4"), "c4")
        runtime.kill()
        with NriRuntime(socket) as runtime:
            agent.wait_running(*PLUGINS)
            wait_until(lambda: served(runtime, "c5"), "c5")
            agent.stop()
            agent.start()
            agent.wait_running(*PLUGINS)
            wait_until(lambda: served(runtime, "c6"), "c6")
            agent.kill()
            agent.start()
            agent.wait_running(*PLUGINS)
            wait_until(lambda: served(runtime, "c7"), "c7")
