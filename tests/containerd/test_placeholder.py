"""A plugin that must not be missed and does not run; one that is not for each runtime."""

import shutil
from pathlib import Path

import pytest

from tests.support.agent import PLUGINS, Agent, guest
from tests.support.containerd import Containerd
from tests.support.cri import Cri, CriError
from tests.support.gobuild import require_go
from tests.support.gopeers import NriRuntime
from tests.support.wait import wait_until

MIB = 1 << 20


def test_containers_are_refused_until_the_plugin_runs(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    agent = Agent(tmp_path, sockets=[containerd.nri_socket])
    agent.put("10-bench", guest("bench"), settings={"limits": {"memory": "much"}})
    with agent:
        agent.wait_refusing("10-bench", "10-bench.toml")
        pod = cri.run_pod()  # a pod is no container
        with pytest.raises(CriError, match="plugin 10-bench does not run") as refused:
            cri.create(pod, "c1")
        assert "10-bench.toml:3: limits.memory" in str(refused.value)
        assert cri.containers() == []
        agent.put("10-bench", settings={"limits": {"memory": "16MiB"}})
        agent.wait_running("10-bench")
        assert cri.spec(cri.create(pod, "c2"))["annotations"]["edge.bench/plugin"] == "c"


def test_ignore_lets_them_be_created(containerd: Containerd, cri: Cri, tmp_path: Path) -> None:
    agent = Agent(tmp_path, sockets=[containerd.nri_socket])
    agent.put("10-bench", b"no module")
    with agent:
        agent.wait_refusing("10-bench", "10-bench.wasm")
        pod = cri.run_pod()
        with pytest.raises(CriError, match="plugin 10-bench does not run"):
            cri.create(pod, "c1")
        agent.put("10-bench", settings={"failure_policy": "Ignore"})

        def allowed() -> bool:
            try:
                cri.create(pod, "c2")
            except CriError:
                return False
            return True

        wait_until(allowed, "it is not missed any more")


def test_a_restart_of_containerd_is_refused_as_well(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    agent = Agent(tmp_path, sockets=[containerd.nri_socket])
    agent.put("10-bench", b"no module")
    with agent:
        agent.wait_refusing("10-bench", "10-bench.wasm")
        containerd.end()
        agent.wait_for(
            lambda status: status["runtimes"][0]["state"] == "waiting", "containerd is missed"
        )
        containerd.start()
        agent.wait_refusing("10-bench", "10-bench.wasm")
        pod = cri.run_pod()
        with pytest.raises(CriError, match="plugin 10-bench does not run"):
            cri.create(pod, "c1")


def test_docker_engine_beside_it_fails_nothing_and_no_limit_is_lost(
    containerd: Containerd, cri: Cri, tmp_path: Path
) -> None:
    require_go()
    socket = tmp_path / "docker.sock"
    with NriRuntime(socket, docker=True) as docker:
        agent = Agent(tmp_path / "agent", sockets=[containerd.nri_socket, socket])
        agent.put("20-resource-guard", guest("resource-guard"))
        for suffix in (".conf", ".toml"):  # as README's first steps copy them
            beside = agent.plugin_dir / f"20-resource-guard{suffix}"
            shutil.copy(PLUGINS / "resource-guard" / f"resource-guard{suffix}", beside)
        with agent:
            agent.wait_running("20-resource-guard")
            agent.wait_for(
                lambda status: (
                    {each["status"] for each in agent.entries("20-resource-guard", status)}
                    == {"running", "skipped"}
                ),
                "it is at one of the two",
            )
            memory = cri.spec(cri.create(cri.run_pod(), "c1"))["linux"]["resources"]["memory"]
            assert memory["limit"] == 128 * MIB
            for number in range(3):
                assert docker.create_container(f"d{number}").error == ""
