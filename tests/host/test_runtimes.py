"""One agent at containerd and Docker Engine at once, as upstream's runtime side plays them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import PLUGINS, Agent, Entry, guest, rename_into
from tests.support.gobuild import require_go
from tests.support.gopeers import NriRuntime
from tests.support.wait import wait_until

pytestmark = pytest.mark.system

SHIPPED = {
    "10-device-injector": "device-injector",
    "20-resource-guard": "resource-guard",
    "30-event-logger": "event-logger",
    "90-validator": "validator",
}


@pytest.fixture
def containerd(tmp_path: Path) -> Iterator[NriRuntime]:
    require_go()
    with NriRuntime(tmp_path / "containerd.sock") as runtime:
        yield runtime


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[NriRuntime]:
    """It serves requests before a plugin that it has synchronised is in its list. Here that takes
    a while, so `wait_for_plugins` before any creation."""
    require_go()
    with NriRuntime(tmp_path / "docker.sock", docker=True, linger_ms=100) as runtime:
        yield runtime


@pytest.fixture
def agent(tmp_path: Path, containerd: NriRuntime, docker: NriRuntime) -> Agent:
    """Not started yet."""
    del containerd, docker  # only the order: they listen first
    sockets = [tmp_path / "containerd.sock", tmp_path / "docker.sock"]
    return Agent(tmp_path / "agent", sockets=sockets)


def at(agent: Agent, identity: str, name: str, status: dict[str, Any] | None = None) -> Entry:
    """The plugin at the runtime with this name."""
    found = [
        each
        for each in agent.entries(identity, status)
        if str(each.get("runtime", "")).endswith(f"{name}.sock")
    ]
    return found[0] if found else {}


def wait_status(agent: Agent, identity: str, name: str, word: str) -> None:
    def stands(status: dict[str, Any]) -> bool:
        entry = at(agent, identity, name, status)
        return entry.get("status") == word and "refusing" not in entry

    agent.wait_for(stands, f"{identity} is {word} at {name}")


def test_the_first_steps_of_the_readme_serve_both(
    agent: Agent, containerd: NriRuntime, docker: NriRuntime
) -> None:
    """The shipped files as they are: no limit is lost, no creation fails."""
    for identity, name in SHIPPED.items():
        agent.put(identity, guest(name))
        for suffix in (".conf", ".toml"):
            beside = agent.plugin_dir / f"{identity}{suffix}"
            shutil.copy(PLUGINS / name / f"{name}{suffix}", beside)
    with agent:
        for identity in SHIPPED:
            wait_status(agent, identity, "containerd", "running")
            word = "skipped" if identity == "20-resource-guard" else "running"
            wait_status(agent, identity, "docker", word)
        docker.wait_for_plugins("10-device-injector", "30-event-logger", "90-validator")
        for number in range(3):
            made = containerd.create_container(f"c{number}")
            assert (made.error, made.memory_limit) == ("", 128 << 20)
            other = docker.create_container(f"d{number}")
            assert (other.error, other.memory_limit) == ("", None)
            assert "20-resource-guard" not in other.called
            assert "30-event-logger" in other.called
        skipped = at(agent, "20-resource-guard", "docker")
        assert "docker does not carry linux.resources, update" in skipped["reason"]
        assert (skipped["events"], skipped["failures"]) == (0, {})
        assert "not registered: docker does not carry" in agent.log()
        # And Docker's own log says why.
        wait_until(lambda: "docker does not carry" in docker.log(), "Docker tells it")


def test_without_declared_permissions_docker_fails_as_before(
    agent: Agent, containerd: NriRuntime, docker: NriRuntime
) -> None:
    """What the issue found; so that the test above proves something."""
    agent.put(
        "20-resource-guard", guest("resource-guard"), config="[default]\nmemory.default=1Gi\n"
    )
    with agent:
        agent.wait_running("20-resource-guard", runtimes=2)
        docker.wait_for_plugins("20-resource-guard")
        assert containerd.create_container().memory_limit == 1 << 30
        assert "unsupported container adjustments: linux.resources.memory" in (
            docker.create_container().error
        )


@pytest.mark.parametrize("by", ["name", "socket"])
def test_a_plugin_is_registered_where_it_is_meant_to_be(
    agent: Agent, containerd: NriRuntime, docker: NriRuntime, by: str
) -> None:
    named = "docker" if by == "name" else str(agent.folder.parent / "docker.sock")
    agent.put("10-edge", guest("edge"))
    agent.put("20-bench", guest("bench"), settings={"runtimes": [named]})
    with agent:
        agent.wait_running("10-edge", runtimes=2)
        wait_status(agent, "20-bench", "containerd", "skipped")
        wait_status(agent, "20-bench", "docker", "running")
        docker.wait_for_plugins("10-edge", "20-bench")
        assert containerd.create_container().plugins == ["10-edge"]
        assert "20-bench" in docker.create_container().called
        assert f"is meant for {named} only" in at(agent, "20-bench", "containerd")["reason"]
        # Registered by its path it is not even tried at the other.
        assert ('"20-bench"' in containerd.log()) == (by == "name")


def test_a_change_of_mind_moves_a_running_plugin(
    agent: Agent, containerd: NriRuntime, docker: NriRuntime
) -> None:
    agent.put("20-edge", guest("edge"))
    with agent:
        agent.wait_running("20-edge", runtimes=2)
        docker.wait_for_plugins("20-edge")
        agent.put("20-edge", settings={"runtimes": ["containerd"]})
        wait_status(agent, "20-edge", "docker", "skipped")
        wait_until(lambda: docker.create_container().plugins == [], "it has left")
        assert containerd.create_container().error == ""
        agent.put("20-edge", settings={"runtimes": ["docker"]})
        wait_status(agent, "20-edge", "containerd", "skipped")
        wait_status(agent, "20-edge", "docker", "running")
        wait_until(lambda: containerd.create_container().plugins == [], "it has left")
        docker.wait_for_plugins("20-edge")
        assert docker.create_container().plugins == ["20-edge"]


def test_a_plugin_that_cannot_run_is_missed_only_where_it_is_meant_to_be(
    agent: Agent, containerd: NriRuntime, docker: NriRuntime
) -> None:
    agent.put("20-bench", b"no module", settings={"permissions": ["linux.resources"]})
    with agent:
        wait_status(agent, "20-bench", "docker", "skipped")
        agent.wait_for(lambda _: "refusing" in at(agent, "20-bench", "containerd"), "it is missed")
        assert "plugin 20-bench does not run" in containerd.create_container().error
        assert docker.create_container().error == ""
        assert docker.create_container().plugins == []


def test_another_runtime_at_the_socket_is_asked_anew(agent: Agent, tmp_path: Path) -> None:
    """What was learnt of a runtime ends with it."""
    require_go()
    socket = tmp_path / "third.sock"
    rename_into(agent.plugin_dir / "10-edge.wasm", guest("edge").read_bytes())
    agent.put("20-bench", guest("bench"), settings={"runtimes": ["containerd"]})
    agent.configure(sockets=[socket])
    with agent:
        with NriRuntime(socket, docker=True) as runtime:
            wait_status(agent, "20-bench", "third", "skipped")
            agent.wait_running("10-edge")
            runtime.kill()
        with NriRuntime(socket) as runtime:
            agent.wait_running("10-edge", "20-bench")
            assert runtime.create_container().plugins == ["10-edge", "20-bench"]
