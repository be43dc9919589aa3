"""Requests over a closed fleet's broker: real mosquitto, real agent, answers as they arrive."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.sim.runtime import SimRuntime
from tests.support.agent import Agent, guest
from tests.support.fleetbroker import FLEET, FleetBroker, Peer
from tests.support.mosquitto import needs_mosquitto, needs_openssl
from tests.support.wait import wait_until

pytestmark = [needs_mosquitto, needs_openssl]

NODE = f"edge/v1/{FLEET}/nodes/alice"
GUARD = "20-edge"


class Fleet:
    """A board called alice and somebody who asks it."""

    def __init__(self, agent: Agent, operator: Peer) -> None:
        self.agent = agent
        self.operator = operator
        self._asked = 0

    def send(self, verb: str, payload: bytes) -> None:
        self.operator.publish(f"{NODE}/request/{verb}", payload)

    def ask(self, verb: str, **arguments: Any) -> list[dict[str, Any]]:
        """The answers, once the last has come."""
        self._asked += 1
        identity = f"{verb}-{self._asked}"
        self.send(verb, json.dumps({"id": identity, "arguments": arguments}).encode())
        return self.answers(verb, identity)

    def answers(self, verb: str, identity: str) -> list[dict[str, Any]]:
        def found() -> list[dict[str, Any]]:
            documents = [
                json.loads(payload)
                for topic, payload in list(self.operator.messages)
                if topic == f"{NODE}/response/{verb}"
            ]
            return [each for each in documents if each["id"] == identity]

        wait_until(
            lambda: any(each["state"] in ("succeeded", "failed") for each in found()),
            f"{identity} is answered",
        )
        return found()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetBroker]:
    with FleetBroker(tmp_path_factory.mktemp("fleet"), "alice") as broker:
        yield broker


@pytest.fixture
def fleet(broker: FleetBroker, tmp_path: Path) -> Iterator[Fleet]:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    authority, cert, key = map(str, broker.credentials("alice"))
    operator = Peer(broker, "operator")
    operator.subscribe(f"{NODE}/#")
    mqtt = {
        "url": f"mqtts://localhost:{broker.port}",
        "ca_file": authority,
        "cert_file": cert,
        "key_file": key,
        "reconnect_min": "50ms",
    }
    with (
        SimRuntime(tmp_path / "nri.sock") as runtime,
        Agent(
            tmp_path,
            sockets=[Path(runtime.path)],
            plugins={GUARD: guest("edge")},
            node="alice",
            mqtt=mqtt,
        ) as agent,
    ):
        agent.wait_running(GUARD)
        agent.wait_for(
            lambda status: status["mqtt"]["state"] == "connected", "the agent is connected"
        )
        yield Fleet(agent, operator)
    operator.close()


def states(answers: list[dict[str, Any]]) -> list[str]:
    return [answer["state"] for answer in answers]


def test_logs_come_as_lines(fleet: Fleet) -> None:
    answers = fleet.ask("logs", lines=500)
    assert states(answers) == ["accepted", "succeeded"]
    lines = answers[-1]["result"]["lines"]
    assert any("connected to" in line["message"] for line in lines)
    assert {"time", "level", "source", "message"} == set(lines[0])


def test_a_plugin_is_restarted_make_before_break(fleet: Fleet) -> None:
    assert states(fleet.ask("restart", plugin=GUARD))[-1] == "succeeded"
    fleet.agent.wait_for(
        lambda status: status["plugins"][0]["restarts"] == 1, "the guest was made anew"
    )


def test_diagnose_says_what_doctor_says(fleet: Fleet) -> None:
    answers = fleet.ask("diagnose")
    assert states(answers) == ["accepted", "running", "succeeded"]
    assert answers[-1]["result"]["findings"]


def test_the_whole_agent_is_restarted_and_says_so_afterwards(fleet: Fleet) -> None:
    before = fleet.agent.status()["uptime_s"], fleet.agent.pid
    log = fleet.agent.log_path
    starts = log.read_text().count("as alice; engine")
    answers = fleet.ask("restart")
    assert states(answers) == ["accepted", "running", "succeeded"]
    assert log.read_text().count("as alice; engine") == starts + 1
    assert fleet.agent.pid == before[1]  # for whoever watches over it, it is the same process
    os.kill(fleet.agent.pid, 0)
    fleet.agent.wait_running(GUARD)
    again = fleet.ask("restart")  # whoever asks without end must not have it do nothing else
    assert states(again) == ["accepted", "failed"]
    assert "restarted" in again[-1]["reason"]
    assert not (fleet.agent.folder / "state" / "restart.json").exists()


@pytest.mark.parametrize(
    ("verb", "arguments", "reason"),
    [
        ("sync", {}, "[updates] is missing"),
        ("restart", {"plugin": "99-nobody"}, "no plugin 99-nobody"),
        ("release", {"plugin": GUARD}, "nothing is held against"),
        ("release", {}, "plugin must be"),
        ("logs", {"lines": 10_000}, "lines must be"),
        ("diagnose", {"deep": True}, "unknown argument deep"),
    ],
)
def test_what_cannot_be_done_fails_with_its_reason(
    fleet: Fleet, verb: str, arguments: dict[str, Any], reason: str
) -> None:
    answer = fleet.ask(verb, **arguments)[-1]
    assert answer["state"] == "failed"
    assert reason in answer["reason"]


def test_rubbish_is_answered_and_changes_nothing(fleet: Fleet) -> None:
    before = fleet.agent.status()["plugins"]
    for payload in (b"", b"\xff\xfe", b"{" * 3000, b'{"id": 7}', b"x" * 60_000):
        fleet.send("restart", payload)
    wait_until(
        lambda: (
            sum(
                topic == f"{NODE}/response/restart" and b'"failed"' in payload
                for topic, payload in list(fleet.operator.messages)
            )
            >= 5
        ),
        "each is answered",
    )
    after = fleet.agent.status()["plugins"]
    assert [entry["restarts"] for entry in after] == [entry["restarts"] for entry in before]


def test_what_is_asked_while_the_board_is_away_is_done_when_it_is_back(fleet: Fleet) -> None:
    fleet.agent.stop()
    fleet.send("logs", b'{"id": "while-away"}')
    fleet.agent.start()
    assert states(fleet.answers("logs", "while-away"))[-1] == "succeeded"
