"""A monitored plugin does nothing to a real container, until it enforces."""

from pathlib import Path

import pytest

from tests.support.agent import Agent, guest
from tests.support.containerd import Containerd
from tests.support.cri import Cri, CriError, env_of

MIB = 1 << 20
MONITOR = {"mode": "monitor"}
BENCH, EDGE, REFUSES, HANGS = "10-bench", "20-edge", "30-refuses", "40-hangs"


def test_a_container_has_nothing_of_a_monitored_plugin_until_it_enforces(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    agent = Agent(tmp_path, sockets=[containerd.nri_socket])
    hostile = guest("hostile")
    agent.put(BENCH, guest("bench"), settings=MONITOR)
    agent.put(EDGE, guest("edge"), settings=MONITOR)
    agent.put(REFUSES, hostile, config="create_container:error\n", settings=MONITOR)
    hangs = {**MONITOR, "limits": {"deadline": "200ms"}}
    agent.put(HANGS, hostile, config="create_container:loop\n", settings=hangs)
    with agent:
        agent.wait_running(BENCH, EDGE, REFUSES, HANGS)
        pod = cri.run_pod()
        first = cri.run(pod, "first", env={"OWN": "stays"})
        spec = cri.spec(first)
        assert "edge.bench/plugin" not in spec["annotations"]
        assert "edge.test/count" not in spec["annotations"]
        assert "EDGE_BENCH" not in env_of(spec)
        inside = cri.exec(first, "env").output.splitlines()
        assert "OWN=stays" in inside
        assert not any(line.startswith("EDGE_BENCH") for line in inside)

        # Nor has another container of what a plugin asks for by itself.
        before = _memory(containerd, first)
        cri.run(pod, "second", annotations={"edge.test/update": f"{first} {32 * MIB}"})
        agent.wait_for(
            lambda _: (
                agent.entry(BENCH)["would_adjust"] == 2
                and agent.entry(EDGE).get("updates_withheld") == 1
                and agent.entry(REFUSES)["would_reject"] == 2
                and agent.entry(HANGS)["failures"].get("timeout", 0) >= 1
            ),
            "what the plugins would have done is counted",
        )
        assert _memory(containerd, first) == before
        assert "refusing" not in str(agent.status()["plugins"])

        agent.put(BENCH, settings={"mode": "enforce"})
        agent.wait_replaced(BENCH, restarts=0)
        third = cri.run(pod, "third")
        assert cri.spec(third)["annotations"]["edge.bench/plugin"] == "c"
        assert "EDGE_BENCH=c" in cri.exec(third, "env").output.splitlines()
        assert "edge.bench/plugin" not in cri.spec(first)["annotations"]

        agent.put(REFUSES, settings={"mode": "enforce"})
        agent.wait_replaced(REFUSES, restarts=0)
        with pytest.raises(CriError, match=f"plugin {REFUSES}: refused on request"):
            cri.create(pod, "fourth")


def _memory(containerd: Containerd, container: str) -> str:
    return containerd.cgroup_file(container, "memory", "memory.limit_in_bytes", "memory.max")
