"""Requests over a closed fleet's broker: real mosquitto, real agent, answers as they arrive."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.fleet_protocol import signed_requests
from edge_agent.fleet_protocol.keys import SigningKey, public_pem
from edge_agent.fleet_protocol.signed_requests import Addressed
from edge_agent.sim.runtime import SimRuntime
from tests.support.agent import Agent, guest
from tests.support.fleetbroker import FLEET, FleetBroker, Peer
from tests.support.mosquitto import needs_mosquitto, needs_openssl
from tests.support.wait import TIMEOUT_S, wait_until

pytestmark = [needs_mosquitto, needs_openssl]

NODE = f"edge/v1/{FLEET}/nodes/alice"
GUARD = "20-edge"
KEY, STRANGER = SigningKey(bytes([1]) * 32), SigningKey(bytes([2]) * 32)


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
        self.send(verb, self.sealed(verb, identity, arguments))
        return self.answers(verb, identity)

    def sealed(self, verb: str, identity: str, arguments: dict[str, Any], **more: Any) -> bytes:
        to = Addressed(FLEET, more.get("node", "alice"), verb)
        signers = [more.get("key", KEY)]
        return signed_requests.seal(
            to, identity, arguments, issued=time.time(), valid_s=600, signers=signers
        )

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
    trust = tmp_path / "trust"
    trust.mkdir()
    (trust / "alice.pem").write_text(public_pem(KEY.public))
    mqtt = {
        "url": f"mqtts://localhost:{broker.port}",
        "ca_file": authority,
        "cert_file": cert,
        "key_file": key,
        "reconnect_min": "50ms",
    }
    with (
        SimRuntime(tmp_path / "nri.sock", request_timeout_s=TIMEOUT_S) as runtime,
        Agent(
            tmp_path,
            sockets=[Path(runtime.path)],
            plugins={GUARD: guest("edge")},
            node="alice",
            mqtt=mqtt,
            updates={"trust_dir": str(trust)},
        ) as agent,
    ):
        agent.wait_running(GUARD)
        wait_until_it_listens(operator)
        yield Fleet(agent, operator)
    operator.close()


def wait_until_it_listens(operator: Peer) -> None:
    """It says `online` after it has subscribed; connected it is before."""
    wait_until(
        lambda: any(
            topic == f"{NODE}/status" and b'"online"' in payload
            for topic, payload in list(operator.messages)
        ),
        "the node listens",
    )


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
    assert states(answers) == ["accepted", "failed"]
    assert f"{GUARD}: without it no container may be created" in answers[-1]["reason"]
    answers = fleet.ask("restart", force=True)
    assert states(answers) == ["accepted", "running", "succeeded"]
    assert log.read_text().count("as alice; engine") == starts + 1
    assert fleet.agent.pid == before[1]  # for whoever watches over it, it is the same process
    os.kill(fleet.agent.pid, 0)
    fleet.agent.wait_running(GUARD)
    again = fleet.ask("restart", force=True)  # asked without end it would do nothing else
    assert states(again) == ["accepted", "failed"]
    assert "restarted" in again[-1]["reason"]
    assert not (fleet.agent.folder / "state" / "restart.json").exists()


@pytest.mark.parametrize(
    ("verb", "arguments", "reason"),
    [
        ("restart", {"plugin": "99-nobody"}, "no plugin 99-nobody"),
        ("release", {}, "plugin must be"),
        ("logs", {"lines": 10_000}, "lines must be"),
        ("diagnose", {"deep": True}, "unknown argument deep"),
        ("record", {}, "not allowed here: record is not in [requests] allow"),
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
        fleet.send("sync", payload)
    wait_until(
        lambda: (
            sum(
                topic == f"{NODE}/response/sync" and b'"failed"' in payload
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
    fleet.send("logs", fleet.sealed("logs", "while-away", {}))
    fleet.agent.start()
    assert states(fleet.answers("logs", "while-away"))[-1] == "succeeded"


def test_what_no_trusted_key_signed_gives_nothing_away_and_stops_nothing(fleet: Fleet) -> None:
    restarts = fleet.agent.entry(GUARD)["restarts"]
    plain = b'{"id": "%s", "arguments": {"plugin": "20-edge"}}'
    for verb in ("restart", "release", "logs"):
        fleet.send(verb, plain % verb.encode())
        (answer,) = fleet.answers(verb, verb)
        assert answer["reason"].startswith(f"unsigned: {verb} needs the signature")
    for identity, more in (("stranger", {"key": STRANGER}), ("bobs", {"node": "bob"})):
        fleet.send("restart", fleet.sealed("restart", identity, {"plugin": GUARD}, **more))
        (answer,) = fleet.answers("restart", identity)
        assert answer["state"] == "failed"
    assert fleet.agent.entry(GUARD)["restarts"] == restarts
    assert states(fleet.ask("sync"))[-1] == "succeeded"


def test_a_request_that_is_recorded_and_sent_again_is_not_carried_out(fleet: Fleet) -> None:
    raw = fleet.sealed("restart", "recorded", {"plugin": GUARD})
    fleet.send("restart", raw)
    assert states(fleet.answers("restart", "recorded"))[-1] == "succeeded"
    fleet.agent.wait_for(
        lambda status: status["plugins"][0]["restarts"] == 1, "the guest was made anew"
    )
    for _ in range(2):
        fleet.agent.stop()
        fleet.agent.start()
        fleet.agent.wait_running(GUARD)
        before = len(fleet.answers("restart", "recorded"))
        fleet.send("restart", raw)
        wait_until(
            lambda before=before: len(fleet.answers("restart", "recorded")) > before,  # type: ignore[misc]
            "it is answered",
        )
        assert "replayed" in fleet.answers("restart", "recorded")[-1]["reason"]
        assert fleet.agent.entry(GUARD)["restarts"] == 0


def test_a_node_that_trusts_nobody_does_what_its_configuration_allows_unsigned(
    broker: FleetBroker, tmp_path: Path
) -> None:
    authority, cert, key = map(str, broker.credentials("alice"))
    operator = Peer(broker, "operator")
    operator.subscribe(f"{NODE}/#")
    mqtt = {
        "url": f"mqtts://localhost:{broker.port}",
        "ca_file": authority,
        "cert_file": cert,
        "key_file": key,
    }
    with Agent(
        tmp_path,
        sockets=[tmp_path / "nri.sock"],
        node="alice",
        mqtt=mqtt,
        requests={"allow": ["sync", "logs", "release"], "unsigned": ["sync", "release"]},
    ) as agent:
        fleet = Fleet(agent, operator)
        wait_until_it_listens(operator)
        for verb, reason in (
            ("sync", "[updates] is missing in agent.toml"),
            ("release", "nothing is held against 20-edge"),
            ("logs", "unsigned: logs needs the signature of a trusted key, and none is trusted"),
            ("restart", "restart is not in [requests] allow"),
        ):
            arguments = {"plugin": GUARD} if verb == "release" else {}
            assert reason in fleet.ask(verb, **arguments)[-1]["reason"]  # signed for old and new
            fleet.send(verb, json.dumps({"id": f"plain-{verb}", "arguments": arguments}).encode())
            assert reason in fleet.answers(verb, f"plain-{verb}")[-1]["reason"]
    operator.close()
