"""The agent and containerd are started, ended and killed in any order."""

import signal
from pathlib import Path

import pytest

from tests.containerd.burst import Burst
from tests.support.agent import Agent, Status, guest
from tests.support.containerd import Containerd
from tests.support.cri import Cri
from tests.support.gobuild import require_go
from tests.support.gopeers import NriRuntime

PLUGINS = {"10-bench": guest("bench"), "20-event-logger": guest("event-logger")}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_containerd_is_served_again_after_its_restart(
    containerd: Containerd, cri: Cri, tmp_path: Path, how: signal.Signals
) -> None:
    with Agent(tmp_path, sockets=[containerd.nri_socket], plugins=PLUGINS) as agent:
        agent.wait_running(*PLUGINS)
        pod = cri.run_pod()
        existing = cri.run(pod, "existing")
        containerd.end(how)
        agent.wait_for(
            lambda status: (
                {_state(status), *(each["status"] for each in status["plugins"])} == {"waiting"}
            ),
            "the runtime is missed",
        )
        containerd.start()
        agent.wait_running(*PLUGINS)
        agent.wait_for_line("synchronize: 0 pods, 0 containers")
        agent.wait_for_line("synchronize: 1 pods, 1 containers")
        assert "PATH" in cri.exec(existing, "env").output  # it went on meanwhile
        container = cri.create(pod, "afterwards")
        assert cri.spec(container)["annotations"]["edge.bench/plugin"] == "c"
        cri.remove_pod(pod)
        # Of the pod's own end this runtime tells nobody: it forgets a pod's state when it restarts.
        agent.wait_for_line(f"remove_container default/{pod.name} existing")


def test_several_restarts_in_a_row_leave_one_session_for_each_plugin(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    plugins = {"10-edge": guest("edge")}
    with Agent(tmp_path, sockets=[containerd.nri_socket], plugins=plugins) as agent:
        for how in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
            agent.wait_running("10-edge")
            containerd.end(how)
            containerd.start()
        agent.wait_running("10-edge")
        pod = cri.run_pod()
        counts = [
            cri.spec(cri.create(pod, f"c{number}"))["annotations"]["edge.test/count"]
            for number in range(3)
        ]
        # A second session beside it would count too.
        assert counts == ["1", "2", "3"]


def test_the_agent_may_be_there_before_containerd(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    pod = cri.run_pod()
    containerd.end()
    with Agent(tmp_path, sockets=[containerd.nri_socket], plugins=PLUGINS) as agent:
        agent.wait_for(lambda status: _state(status) == "waiting", "it waits")
        containerd.start()
        agent.wait_running(*PLUGINS)
        agent.wait_for_line("synchronize: 1 pods, 0 containers")
        assert "edge.bench/plugin" in cri.spec(cri.create(pod))["annotations"]


def _agent_that_may_be_missed(folder: Path, containerd: Containerd) -> Agent:
    """Under "Fail" containers are refused as soon as a start takes longer than GRACE_S."""
    agent = Agent(folder, sockets=[containerd.nri_socket], plugins=PLUGINS)
    for identity in PLUGINS:
        agent.put(identity, settings={"failure_policy": "Ignore"})
    return agent


def test_a_killed_agent_starts_again_and_is_told_what_exists(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    with _agent_that_may_be_missed(tmp_path, containerd) as agent:
        agent.wait_running(*PLUGINS)
        pod = cri.run_pod()
        cri.run(pod, "first")
        with Burst(cri) as burst:
            burst.wait_for_more()
            agent.kill()
            burst.wait_for_more()
            agent.start()
            agent.wait_running(*PLUGINS)
            burst.wait_for_more()
            made = burst.stop()
        agent.wait_for_line("synchronize: 3 pods")  # this one and two of the burst
        assert "edge.bench/plugin" in cri.spec(cri.create(pod, "second"))["annotations"]
    for each in made:
        adjusted = ["edge.bench/plugin" in container.annotations for container in each]
        # At most the one container whose plugin died in the middle fails.
        assert sum(bool(container.error) for container in each) <= 1
        assert adjusted[0]
        assert not all(adjusted)  # nobody was there to do it: the runtime goes on without
        assert adjusted[-1]


def test_an_agent_that_ends_in_order_fails_no_container(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    with _agent_that_may_be_missed(tmp_path, containerd) as agent:
        agent.wait_running(*PLUGINS)
        with Burst(cri) as burst:
            for _ in range(3):
                burst.wait_for_more()
                assert agent.stop() == 0
                agent.start()
                agent.wait_running(*PLUGINS)
            made = burst.stop()
    assert [container.error for each in made for container in each if container.error] == []


def test_two_runtimes_are_served_at_once_and_one_may_leave(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    require_go()
    other = tmp_path / "nri.sock"
    sockets = [containerd.nri_socket, other]
    plugins = {"10-bench": guest("bench")}
    with (
        Agent(tmp_path / "agent", sockets=sockets, plugins=plugins) as agent,
        NriRuntime(other, name="docker", version="29.2.0") as docker,
    ):
        agent.wait_running("10-bench", runtimes=2)
        pod = cri.run_pod()
        assert "edge.bench/plugin" in cri.spec(cri.create(pod, "one"))["annotations"]
        assert "edge.bench/plugin" in docker.create_container().annotations
        names = {each["name"] for each in agent.status()["runtimes"]}
        assert names == {"containerd", "docker"}

        containerd.end(signal.SIGKILL)
        agent.wait_for(
            lambda status: (
                [each["state"] for each in status["runtimes"]] == ["waiting", "connected"]
            ),
            "only containerd is missed",
        )
        assert "edge.bench/plugin" in docker.create_container("two").annotations
        assert agent.entry("10-bench", other)["restarts"] == 0
        containerd.start()
        agent.wait_running("10-bench", runtimes=2)
        assert "edge.bench/plugin" in cri.spec(cri.create(pod, "two"))["annotations"]
        assert agent.entry("10-bench", other)["events"] == 2


def _state(status: Status) -> str:
    return str(status["runtimes"][0]["state"])
