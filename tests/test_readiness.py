"""READY comes once the plugins are registered: the agent beside upstream's runtime side."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent import Agent, guest
from tests.support.gobuild import require_go
from tests.support.gopeers import NriRuntime
from tests.support.notify import NotifySocket
from tests.support.wait import wait_until

pytestmark = pytest.mark.system

READY = "READY=1"
FOREVER = "10m"  # no test waits for it: reaching it fails the test


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NotifySocket]:
    with NotifySocket(tmp_path / "notify") as manager:
        monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
        yield manager


@pytest.fixture
def nri(tmp_path: Path) -> Iterator[NriRuntime]:
    require_go()
    with NriRuntime(tmp_path / "nri.sock") as runtime:
        yield runtime


def agent_for(tmp_path: Path, *sockets: Path, ready_wait: str) -> Agent:
    """With two plugins that no placeholder stands in for while they are compiled."""
    agent = Agent(tmp_path / "agent", sockets=sockets, ready_wait=ready_wait)
    for identity, name in (("10-bench", "bench"), ("20-edge", "edge")):
        agent.put(identity, guest(name), settings={"failure_policy": "Ignore"})
    return agent


def test_a_container_made_at_ready_is_seen_by_every_plugin(
    tmp_path: Path, manager: NotifySocket, nri: NriRuntime
) -> None:
    nri.block_sync(True)  # as a long creation does
    with agent_for(tmp_path, tmp_path / "nri.sock", ready_wait=FOREVER) as agent:
        # A whole second and more in which the agent has long begun to register them.
        wait_until(lambda: "registered as" in nri.log(), "a plugin waits to be synchronised")
        agent.wait_for(lambda status: status["uptime_s"] >= 2, "the agent has done all it can")
        messages = manager.messages()
        assert [each for each in messages if each.startswith("EXTEND_TIMEOUT_USEC=")]
        assert READY not in messages
        nri.block_sync(False)
        wait_until(lambda: manager.has(READY), "the agent is ready")
        assert nri.create_container().plugins == ["10-bench", "20-edge"]


def test_the_wait_is_bounded_and_says_what_is_missing(
    tmp_path: Path, manager: NotifySocket, nri: NriRuntime
) -> None:
    nri.block_sync(True)
    with agent_for(tmp_path, tmp_path / "nri.sock", ready_wait="1s") as agent:
        wait_until(lambda: manager.has(READY), "the agent is ready")
        agent.wait_for_line("ready after 1 s")
        [told] = [each for each in agent.messages() if "ready after 1 s" in each]
        assert f"10-bench at {tmp_path / 'nri.sock'}" in told
        nri.block_sync(False)
        agent.wait_running("10-bench", "20-edge")
        agent.reload()  # later READYs are of reloads
        wait_until(lambda: manager.has(READY, times=2), "the reload is over")


@pytest.mark.parametrize("refuses", [True, False], ids=["refusing", "absent"])
def test_a_runtime_that_is_not_there_delays_nothing(
    tmp_path: Path, manager: NotifySocket, nri: NriRuntime, refuses: bool
) -> None:
    other = tmp_path / "other.sock"
    with socket.socket(socket.AF_UNIX) as bound:
        if refuses:
            bound.bind(str(other))  # and nobody listens
        with agent_for(tmp_path, other, tmp_path / "nri.sock", ready_wait=FOREVER) as agent:
            wait_until(lambda: manager.has(READY), "the agent is ready")
            assert nri.create_container().plugins == ["10-bench", "20-edge"]
            assert "ready after" not in agent.log()


def test_a_plugin_that_cannot_start_delays_nothing_once_that_is_told(
    tmp_path: Path, manager: NotifySocket, nri: NriRuntime
) -> None:
    agent = agent_for(tmp_path, tmp_path / "nri.sock", ready_wait=FOREVER)
    agent.put("30-fail", b"no module")
    agent.put("40-ignore", b"no module", settings={"failure_policy": "Ignore"})
    with agent:
        wait_until(lambda: manager.has(READY), "the agent is ready")
        outcome = nri.create_container()
        assert outcome.plugins == ["10-bench", "20-edge", "30-fail"]
        assert "plugin 30-fail does not run" in outcome.error
