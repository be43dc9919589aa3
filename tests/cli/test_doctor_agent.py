"""`doctor` beside a real agent that serves, that fails, and whose broker refuses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_agent.__main__ import main
from edge_agent.sim.runtime import SimRuntime
from tests.support.agent import Agent, guest
from tests.support.mosquitto import Mosquitto, needs_mosquitto
from tests.support.wait import TIMEOUT_S

Findings = list[dict[str, Any]]


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Any:
    """doctor(agent, subject) -> what it says about one subject."""

    def look(agent: Agent, subject: str) -> Findings:
        main(["doctor", "--json", "-c", str(agent.config_path)])
        found: Findings = json.loads(capsys.readouterr().out)["findings"]
        return [each for each in found if each["subject"] == subject]

    return look


def levels(findings: Findings) -> list[str]:
    return [each["level"] for each in findings]


def test_what_runs_and_what_is_tried_again_and_again_are_told_apart(
    tmp_path: Path, doctor: Any
) -> None:
    nri = tmp_path / "nri.sock"
    plugins = {"10-bench": guest("bench"), "20-hostile": guest("hostile")}
    configs = {"20-hostile": "configure: trap"}
    with (
        SimRuntime(nri, request_timeout_s=TIMEOUT_S) as runtime,
        Agent(tmp_path / "a", sockets=[nri], plugins=plugins, configs=configs) as agent,
    ):
        runtime.wait_for_plugins(1)
        agent.wait_running("10-bench")
        agent.wait_for(
            lambda _: agent.entry("20-hostile")["status"] == "backoff", "20-hostile fails"
        )
        agent.put("10-bench", settings={"permissions": ["*"]})
        failing, well, free = doctor(agent, "plugin")
        assert (failing["level"], well["level"]) == ("fail", "ok")
        assert free["text"].startswith("20-hostile: may change everything")
        # Or "starting", in the moment of the next attempt.
        assert failing["text"].startswith("20-hostile: ")
        assert f" at {nri}" in failing["text"]
        assert well["text"] == "10-bench: running"
        (socket,) = doctor(agent, "socket")
        assert socket["text"].startswith("the agent serves ")
        assert doctor(agent, "runtime") == []


def test_a_runtime_that_left_its_socket_is_told_with_the_agents_reason(
    tmp_path: Path, doctor: Any
) -> None:
    nri = tmp_path / "nri.sock"
    with Agent(tmp_path / "a", sockets=[nri], plugins={"10-bench": guest("bench")}) as agent:
        (socket,) = doctor(agent, "socket")
        assert "is not there; the agent waits for it" in socket["text"]
        assert levels(doctor(agent, "runtime")) == ["fail"]


@pytest.mark.system
@needs_mosquitto
def test_a_broker_that_refuses_the_node_is_not_well(tmp_path: Path, doctor: Any) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text("somebody:$7$101$AAAA$AAAA\n")
    settings = ("allow_anonymous false", f"password_file {passwords}")
    with Mosquitto(tmp_path, *settings) as broker:
        mqtt = {
            "url": f"mqtt://127.0.0.1:{broker.port}",
            "username": "node",
            "reconnect_min": "10ms",
            "reconnect_max": "20ms",
        }
        with Agent(tmp_path / "a", sockets=[tmp_path / "nri.sock"], mqtt=mqtt) as agent:
            agent.wait_for(lambda status: status["mqtt"]["last_error"], "the broker refuses")
            link, tcp, _queue = doctor(agent, "mqtt")
    assert link["level"] == "fail"
    assert "not authori" in link["text"].lower()
    assert "password_file" in link["todo"]
    assert tcp["text"].endswith("takes connections; the line above tells the rest")


@pytest.mark.system
@needs_mosquitto
def test_a_broker_that_serves_the_node_is_told_by_the_agent(tmp_path: Path, doctor: Any) -> None:
    with Mosquitto(tmp_path) as broker:
        mqtt = {"url": f"mqtt://127.0.0.1:{broker.port}"}
        with Agent(tmp_path / "a", sockets=[tmp_path / "nri.sock"], mqtt=mqtt) as agent:
            agent.wait_for(lambda status: status["mqtt"]["state"] == "connected", "the broker")
            link, _queue = doctor(agent, "mqtt")
        assert link["text"] == f"connected to mqtt://127.0.0.1:{broker.port}, MQTT 5"
        (link,) = doctor(agent, "mqtt")  # the agent has ended
        assert (link["level"], "is not known" in link["text"]) == ("warn", True)


def test_a_reading_that_the_board_does_not_have_is_a_warning(tmp_path: Path, doctor: Any) -> None:
    nri, gone = tmp_path / "nri.sock", tmp_path / "gone"
    with (
        SimRuntime(nri, request_timeout_s=TIMEOUT_S),
        Agent(tmp_path / "a", sockets=[nri]) as agent,
    ):
        disk = {"pressure": {"disk": f"{gone} below 10%", "every": "1s"}}
        agent.put("10-pressure", guest("pressure"), settings={**disk, "permissions": ["update"]})
        agent.wait_running("10-pressure")
        agent.wait_for(lambda _: "unread" in agent.entry("10-pressure"), "it was looked for")
        warned = [each for each in doctor(agent, "plugin") if each["level"] == "warn"]
        why = f"[pressure] disk: {gone}: No such file or directory"
        assert [why in each["text"] for each in warned] == [True]
