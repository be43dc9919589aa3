"""A closed fleet from end to end: real mosquitto with TLS and access list, the operator's room,
real agents at a simulated runtime."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_agent.config import MqttConfig
from edge_agent.fleet_protocol import signed_requests
from edge_agent.fleet_protocol.signed_requests import Addressed
from edge_agent.operator import folder as folders
from edge_agent.operator.broker import BrokerClient
from edge_agent.operator.fleet import Fleet
from edge_agent.operator.inbox import Inbox, ask
from edge_agent.operator.keyring import Keyring
from edge_agent.operator.rollout import Course
from edge_agent.operator.rollout_driver import Step, follow, without
from edge_agent.sim.board import another_build
from edge_agent.sim.runtime import SimRuntime
from tests.support.agent import Agent, guest
from tests.support.fleetbroker import FLEET, FleetBroker, Peer
from tests.support.mosquitto import needs_mosquitto, needs_openssl
from tests.support.wait import TIMEOUT_S, wait_until

pytestmark = [needs_mosquitto, needs_openssl]

GUARD = "20-guard"
LIMITED, UNLIMITED = 64 << 20, 0
CONFIG = "[default]\nmemory.default = 64Mi\n"
PLUGIN = f"""
[[plugins]]
name = "guard"
index = "20"
config = '''
{CONFIG}'''
failure_policy = "Ignore"
permissions = ["linux.resources", "update"]
limits = {{ deadline = "300ms" }}
[[plugins.releases]]
version = "1.0.0"
"""


class Closed:
    """One board, one operator, and what lies between them."""

    def __init__(
        self, folder: Path, broker: FleetBroker, runtime: SimRuntime, **updates: object
    ) -> None:
        """`updates` are further keys of the board's [updates]."""
        self.folder = folder
        self.broker = broker
        self.runtime = runtime
        self.keyring = Keyring(folder / "keys")
        key = self.keyring.generate("grower")
        self.trust = folder / "trust"
        self.trust.mkdir()
        (self.trust / "grower.pem").write_text(self.keyring.public_file("grower").read_text())
        authority, cert, private = map(str, broker.credentials("operator"))
        self.fleet_folder = folders.create(
            folder / "fleet",
            name=FLEET,
            url=f"mqtts://localhost:{broker.operators_port}",
            keys={"grower": key},
            threshold=1,
            ca_file=authority,
            cert_file=cert,
            key_file=private,
        )
        self.agent = self._agent(folder, updates)
        self._pods = 0

    def _agent(self, folder: Path, updates: dict[str, object]) -> Agent:
        authority, cert, key = map(str, self.broker.credentials("alice"))
        return Agent(
            folder / "board",
            sockets=[Path(self.runtime.path)],
            node="alice",
            mqtt={
                "url": f"mqtts://localhost:{self.broker.port}",
                "ca_file": authority,
                "cert_file": cert,
                "key_file": key,
                "reconnect_min": "50ms",
                "reconnect_max": "500ms",
            },
            updates={
                "trust_dir": str(self.trust),
                "probation": "1s",
                "probation_events": 3,
                **updates,
            },
        )

    @contextmanager
    def operator(self) -> Iterator[Fleet]:
        mqtt: MqttConfig = self.fleet_folder.settings().mqtt
        with BrokerClient(mqtt) as client:
            yield Fleet(self.fleet_folder, client, self.keyring)

    def publish(self, fleet: Fleet, version: str, module: bytes) -> None:
        path = self.folder / f"{version}.wasm"
        path.write_bytes(module)
        fleet.publish(path, "guard", version)

    def first(self) -> None:
        """1.0.0 is deployed and has proven itself."""
        with self.operator() as fleet:
            self.publish(fleet, "1.0.0", guest("resource-guard").read_bytes())
            file = self.fleet_folder.deployment_file
            file.write_text(file.read_text() + PLUGIN)
            fleet.deploy(first=True)
        self.wait_version("1.0.0", "running")

    def wait_version(self, version: str, status: str) -> dict[str, Any]:
        def there(told: dict[str, Any]) -> bool:
            # While the release before still answers, `running` says so.
            return any(
                (entry.get("version"), entry["status"]) == (version, status)
                and "running" not in entry
                for entry in told["plugins"]
            )

        return self.agent.wait_for(there, f"{version} is {status}")

    def container(self) -> int:
        """The memory limit of a new container, in bytes."""
        self._pods += 1
        pod = self.runtime.run_pod(f"pod-{self._pods}").pod
        outcome = self.runtime.create_container(pod, "app")
        assert outcome.ok, outcome.error
        return int(outcome.container.linux.resources.memory.limit.value)


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Closed]:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    with (
        FleetBroker(tmp_path, "alice") as broker,
        SimRuntime(tmp_path / "nri.sock", request_timeout_s=TIMEOUT_S) as runtime,
    ):
        home = tmp_path / "f"
        home.mkdir()
        closed = Closed(home, broker, runtime)
        with closed.agent:
            yield closed


def test_what_is_signed_runs_and_is_reported(closed: Closed) -> None:
    assert closed.container() == UNLIMITED
    closed.first()
    assert closed.container() == LIMITED
    status = closed.agent.status()
    assert status["updates"]["generation"] == 1
    assert status["updates"]["refused"] is None
    (entry,) = status["plugins"]
    assert (entry["name"], entry["version"]) == ("guard", "1.0.0")


def test_a_bad_release_goes_back_by_itself_and_the_way_back_is_never_empty(closed: Closed) -> None:
    closed.first()
    with closed.operator() as fleet:
        closed.publish(fleet, "1.1.0", guest("hostile").read_bytes())
        text = closed.fleet_folder.deployment_file.read_text()
        # hostile.c takes its rules from the configuration
        text = text.replace(CONFIG, "create_container:loop\n").replace(
            'version = "1.0.0"', 'version = "1.1.0"'
        )
        closed.fleet_folder.deployment_file.write_text(text)
        fleet.deploy()
    closed.wait_version("1.1.0", "probation")
    assert closed.container() == UNLIMITED  # it loops, and by its policy containers go on
    closed.wait_version("1.0.0", "running")
    assert closed.container() == LIMITED
    updates = closed.agent.status()["updates"]
    assert updates["generation"] == 2
    (reason,) = updates["rejected"].values()
    assert "stopped after" in reason


def test_a_release_that_cannot_even_start_never_takes_over(closed: Closed) -> None:
    closed.first()
    before = closed.agent.entry(GUARD)["restarts"]
    with closed.operator() as fleet:
        closed.publish(fleet, "1.1.0", guest("hostile").read_bytes())
        text = closed.fleet_folder.deployment_file.read_text()
        text = text.replace(CONFIG, "configure:trap\n").replace(
            'version = "1.0.0"', 'version = "1.1.0"'
        )
        closed.fleet_folder.deployment_file.write_text(text)
        fleet.deploy()
    closed.agent.wait_for(lambda status: status["updates"]["rejected"], "it is rejected")
    closed.wait_version("1.0.0", "running")
    assert closed.container() == LIMITED
    assert closed.agent.entry(GUARD)["restarts"] == before


def rolled_out(closed: Closed, version: str, config: str) -> list[Step]:
    """A configuration of its own for all nodes, watched to its end."""
    (closed.fleet_folder.path / f"{version}.conf").write_text(config)
    with closed.operator() as fleet:
        fleet.deploy(fleet.rolled_out("guard", version, 100, config_file=f"{version}.conf"))
        course = Course(soak_s=0, timeout_s=120)
        return list(follow(fleet, "guard", version, course))


def test_a_configuration_goes_out_is_proven_and_is_taken_back_like_a_module(
    closed: Closed,
) -> None:
    closed.first()
    *_, last = rolled_out(closed, "1.0.0+2", CONFIG.replace("64Mi", "96Mi"))
    assert (last.action, last.status.running) == ("done", ("alice",))
    assert closed.container() == 96 << 20
    entry = closed.agent.entry(GUARD)
    assert (entry["version"], entry["status"]) == ("1.0.0+2", "running")
    with closed.operator() as fleet:
        fleet.deploy(without(fleet, "guard", "1.0.0+2"))
    closed.wait_version("1.0.0", "running")
    assert closed.container() == LIMITED


def test_a_configuration_that_fails_is_taken_back_by_itself(closed: Closed) -> None:
    closed.first()
    *_, last = rolled_out(closed, "1.0.0+2", "this is no configuration\n")
    assert (last.action, list(last.status.failed)) == ("abort", ["alice"])
    assert last.status.failed["alice"]  # the node's own words
    assert closed.container() == LIMITED
    closed.wait_version("1.0.0", "running")
    closed.agent.wait_for(
        lambda status: status["updates"]["generation"] == 3 and not status["updates"]["rejected"],
        "the rejection goes with its deployment",
    )
    *_, last = rolled_out(closed, "1.0.0+3", CONFIG.replace("64Mi", "96Mi"))
    assert last.action == "done"
    assert closed.container() == 96 << 20


def test_a_policy_is_monitored_first_then_enforced_with_the_same_module(closed: Closed) -> None:
    with closed.operator() as fleet:
        closed.publish(fleet, "1.0.0", guest("resource-guard").read_bytes())
        file = closed.fleet_folder.deployment_file
        file.write_text(file.read_text() + PLUGIN.replace('"Ignore"', '"Fail"'))
        fleet.deploy(fleet.rolled_out("guard", "1.0.0", 100, mode="monitor"), first=True)
        closed.wait_version("1.0.0", "running")
        with Inbox(fleet) as inbox:
            assert closed.container() == UNLIMITED
            found = (each.record for each in inbox.items(True, TIMEOUT_S) if each.kind == "record")
            record = next(each for each in found if each.get("event") == "CreateContainer")
    assert (record["outcome"], record["mode"]) == ("would_adjust", "monitor")
    assert record["adjusted"] == ["linux.resources"]
    watched = closed.agent.entry(GUARD)
    assert (watched["mode"], watched["would_adjust"]) == ("monitor", 1)
    with closed.operator() as fleet:
        fleet.deploy(fleet.rolled_out("guard", "1.0.0+enforce", 100, mode="enforce"))
        *_, last = follow(fleet, "guard", "1.0.0+enforce", Course(soak_s=0, timeout_s=120))
        assert last.action == "done"
    assert closed.container() == LIMITED
    entry = closed.agent.entry(GUARD)
    assert ("mode" in entry, entry["digest"]) == (False, watched["digest"])
    with closed.operator() as fleet:
        fleet.deploy(without(fleet, "guard", "1.0.0+enforce"))
    closed.wait_version("1.0.0", "running")
    assert closed.container() == UNLIMITED


def test_a_node_that_is_told_to_lift_what_is_not_there_says_so(closed: Closed) -> None:
    closed.first()
    with closed.operator() as fleet:
        words = (FLEET, "alice", "release", {"plugin": GUARD}, 120)
        answers = list(ask(fleet.client, *words, fleet.keyring.at_hand(fleet.trust.keys)))
    assert [each["state"] for each in answers] == ["accepted", "failed"]
    assert "nothing is held against 20-guard" in answers[-1]["reason"]


def test_without_any_broker_the_board_runs_what_it_has(closed: Closed) -> None:
    closed.first()
    closed.agent.stop()
    closed.broker.stop()
    closed.agent.start()
    closed.wait_version("1.0.0", "running")
    assert closed.container() == LIMITED
    closed.broker.start()
    closed.agent.wait_for(
        lambda status: status["mqtt"]["state"] == "connected", "it is connected again"
    )


def test_the_operator_may_ask_to_try_a_rejected_release_again(closed: Closed) -> None:
    test_a_bad_release_goes_back_by_itself_and_the_way_back_is_never_empty(closed)
    operator = Peer(closed.broker, "operator")
    operator.subscribe(f"edge/v1/{FLEET}/nodes/alice/response/+")
    for verb, arguments in (("release", {"plugin": GUARD}), ("sync", {})):
        payload = signed_requests.seal(
            *(Addressed(FLEET, "alice", verb), f"again-{verb}", arguments),
            issued=time.time(),
            valid_s=600,
            signers=[closed.keyring.load("grower")],
        )
        operator.publish(f"edge/v1/{FLEET}/nodes/alice/request/{verb}", payload)
        wait_until(
            lambda verb=verb: any(  # type: ignore[misc]
                f'"again-{verb}"'.encode() in answer and b'"succeeded"' in answer
                for _, answer in list(operator.messages)
            ),
            f"{verb} succeeds",
        )
    closed.wait_version("1.1.0", "probation")
    operator.close()


def test_the_boards_own_file_runs_in_place_of_the_fleets(closed: Closed) -> None:
    closed.first()
    own = another_build(guest("resource-guard").read_bytes(), "own")
    closed.agent.put(GUARD, own, config="[default]\nmemory.default = 96Mi\n")
    wait_until(lambda: closed.container() == 96 << 20, "the own file runs")
    entry = closed.agent.entry(GUARD)
    assert "in place of what the fleet deploys" in entry["error"]
    closed.agent.remove(GUARD)
    wait_until(lambda: closed.container() == LIMITED, "the fleet's runs again")


def test_what_nobody_here_trusts_changes_nothing(closed: Closed) -> None:
    closed.first()
    stranger = Keyring(closed.folder / "stranger")
    stranger.generate("grower")
    (closed.fleet_folder.trust_folder / "grower.pem").write_text(
        stranger.public_file("grower").read_text()
    )
    closed.keyring = stranger  # who has the operator's certificate, but not the key
    with closed.operator() as fleet:
        prepared = fleet.prepare(fleet.draft(), check_base=False)
        fleet.put(prepared, fleet.sign(prepared))
    closed.agent.wait_for(
        lambda status: (status["updates"]["refused"] or {}).get("reason") == "signature",
        "it is refused",
    )
    raw = json.dumps({"payloadType": "x", "payload": "", "signatures": []}).encode()
    operator = Peer(closed.broker, "operator")
    for rubbish in (raw, b"", b"{" * 20_000, bytes(60_000)):
        operator.publish(f"edge/v1/{FLEET}/deployment", rubbish, retain=True)
        operator.publish(f"edge/v1/{FLEET}/trust", rubbish, retain=True)
    closed.agent.wait_for(
        lambda status: status["updates"]["refused"] and status["updates"]["trust"]["refused"],
        "both are refused",
    )
    assert closed.container() == LIMITED
    assert closed.agent.status()["updates"]["generation"] == 1
    operator.close()
