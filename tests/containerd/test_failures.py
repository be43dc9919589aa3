"""Guests that loop, trap or eat memory: what containers notice, and what comes after."""

from pathlib import Path

import pytest

from tests.containerd.burst import Burst
from tests.support.agent import Agent, guest
from tests.support.containerd import Containerd
from tests.support.cri import Cri, CriError, Pod
from tests.support.wait import wait_until

PLUGINS = {"10-hostile": guest("hostile"), "20-bench": guest("bench")}
BEHAVIOUR = "edge.test/behaviour"


def _agent(containerd: Containerd, folder: Path, policy: str, config: str = "") -> Agent:
    agent = Agent(folder, sockets=[containerd.nri_socket], plugins=PLUGINS)
    agent.put("10-hostile", config=config, settings={"failure_policy": policy})
    return agent


@pytest.mark.parametrize("behaviour", ["loop", "bomb", "trap"])
def test_under_ignore_a_failing_plugin_stops_no_container(
    containerd: Containerd, cri: Cri, tmp_path: Path, behaviour: str
) -> None:
    with _agent(containerd, tmp_path, "Ignore", f"create_container:{behaviour}") as agent:
        agent.wait_running(*PLUGINS)
        pod = cri.run_pod()
        for number in range(3):
            container = cri.run(pod, f"c{number}")
            assert cri.spec(container)["annotations"]["edge.bench/plugin"] == "c"
            assert "EDGE_BENCH=c" in cri.exec(container, "env").output
        entry = agent.entry("10-hostile")
        assert sum(entry["failures"].values()) >= 1
        neighbour = agent.entry("20-bench")
        assert (neighbour["restarts"], neighbour["failures"]) == (0, {})


@pytest.mark.parametrize("behaviour", ["loop", "trap"])
def test_under_fail_a_failing_plugin_fails_containers_with_its_name(
    containerd: Containerd, cri: Cri, tmp_path: Path, behaviour: str
) -> None:
    with _agent(containerd, tmp_path, "Fail", f"create_container:{behaviour}") as agent:
        agent.wait_running(*PLUGINS)
        pod = cri.run_pod()  # events that do not fail it are answered
        for number in range(3):
            with pytest.raises(CriError, match="plugin 10-hostile: "):
                cri.create(pod, f"c{number}")
        assert cri.containers() == []
        agent.put("10-hostile", config="create_container:ok")
        wait_until(lambda: _is_allowed(cri, pod), "the changed configuration is at work")


def test_a_crashed_guest_is_replaced_and_its_successor_answers(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    with _agent(containerd, tmp_path, "Fail") as agent:
        agent.wait_running(*PLUGINS)
        pod = cri.run_pod()
        for crash in range(1, 4):
            with pytest.raises(CriError, match="plugin 10-hostile: "):
                cri.create(pod, f"crash{crash}", annotations={BEHAVIOUR: "trap"})
            agent.wait_replaced("10-hostile", crash - 1)
            cri.create(pod, f"good{crash}")
            # Only a guest that is alive can say so.
            with pytest.raises(CriError, match="plugin 10-hostile: refused on request"):
                cri.create(pod, f"refused{crash}", annotations={BEHAVIOUR: "error"})
        assert agent.entry("10-hostile")["failures"] == {"trap": 3}


def test_crashes_among_many_containers_are_noticed_by_none_under_ignore(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    with _agent(containerd, tmp_path, "Ignore") as agent:
        agent.wait_running(*PLUGINS)
        pod = cri.run_pod()
        with Burst(cri) as burst:
            for crash in range(1, 4):
                burst.wait_for_more()
                cri.create(pod, f"crash{crash}", annotations={BEHAVIOUR: "trap"})
                agent.wait_replaced("10-hostile", crash - 1)
            burst.wait_for_more()
            made = burst.stop()
        with pytest.raises(CriError, match="refused on request"):
            cri.create(pod, "refused", annotations={BEHAVIOUR: "error"})
    for each in made:
        assert [container.error for container in each if container.error] == []
        assert all("edge.bench/plugin" in container.annotations for container in each)


def test_a_pods_start_and_end_survive_a_guest_that_fails_at_them(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    """This runtime tells of them in StateChange, but for StopContainer."""
    config = "state_change:loop\nstop_container:trap"
    with _agent(containerd, tmp_path, "Ignore", config) as agent:
        agent.wait_running(*PLUGINS)
        pod = cri.run_pod()
        container = cri.run(pod)
        assert "EDGE_BENCH=c" in cri.exec(container, "env").output
        cri.remove_pod(pod)
        assert agent.entry("10-hostile")["failures"] != {}


def _is_allowed(cri: Cri, pod: Pod) -> bool:
    try:
        cri.create(pod, "allowed")
    except CriError:
        return False
    return True
