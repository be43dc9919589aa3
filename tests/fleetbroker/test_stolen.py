"""A board's certificate in the wrong hands, at the broker that configs/mosquitto makes.

Whoever has it may speak for that board, until it is revoked, and for nobody else.
"""

from __future__ import annotations

import re
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.operator.broker import BrokerClient
from edge_agent.operator.tool_client import with_client_id
from tests.support.agent import Agent, guest
from tests.support.fleetbroker import FLEET, FleetBroker, Peer, certificate
from tests.support.mosquitto import needs_mosquitto, needs_openssl
from tests.support.wait import wait_until

pytestmark = [needs_mosquitto, needs_openssl]

NODES = f"edge/v1/{FLEET}/nodes"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetBroker]:
    with FleetBroker(tmp_path_factory.mktemp("fleet"), "alice", "bob") as broker:
        yield broker


def test_a_nodes_certificate_neither_ends_another_node_nor_publishes_its_will(
    broker: FleetBroker,
) -> None:
    operator = Peer(broker, "operator")
    operator.subscribe(f"{NODES}/#")
    bob = Peer(broker, "bob", client_id="bob", will=(f"{NODES}/bob/status", b"lost"))
    thief = Peer(broker, "alice", client_id="bob")
    assert bob.publish(f"{NODES}/bob/state", b"still here") == "Success"
    assert thief.publish(f"{NODES}/alice/state", b"as itself") == "Success"
    wait_until(lambda: len(operator.messages) >= 2, "both are heard")
    assert [payload for _, payload in operator.messages] == [b"still here", b"as itself"]
    assert bob.disconnects == 0
    for each in (thief, bob, operator):
        each.close()


def test_a_nodes_certificate_does_not_take_what_waits_for_another_node(
    broker: FleetBroker,
) -> None:
    topic = f"{NODES}/bob/request/sync"
    bob = Peer(broker, "bob", client_id="bob", keep_s=3600)
    bob.subscribe(topic)
    bob.close()
    operator = Peer(broker, "operator")
    assert operator.publish(topic, b"while away") == "Success"
    thief = Peer(broker, "alice", client_id="bob")  # with a clean start, which drops a session
    thief.close()
    bob = Peer(broker, "bob", client_id="anything", keep_s=3600)
    wait_until(lambda: bob.messages == [(topic, b"while away")], "the request is there")
    bob.close()
    operator.close()


def test_a_nodes_certificate_does_not_end_an_operators_session(broker: FleetBroker) -> None:
    operator = Peer(broker, "operator", client_id="edge-op-1234")
    thief = Peer(broker, "alice", client_id="edge-op-1234")
    assert thief.may_write(f"{NODES}/alice/state")
    assert operator.may_write(f"{NODES}/bob/request/sync")
    assert operator.disconnects == 0
    thief.close()
    operator.close()


@pytest.mark.parametrize(
    ("name", "port"), [("alice", "operators_port"), ("operator", "port")], ids=["node", "operator"]
)
def test_each_certificate_comes_in_at_its_own_port_only(
    broker: FleetBroker, name: str, port: str
) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        broker.handshake(name, getattr(broker, port))


def test_several_tools_work_at_once_with_one_operators_certificate(broker: FleetBroker) -> None:
    config = broker.config("operator")
    with (
        BrokerClient(with_client_id(config, "edge-op-1")) as first,
        BrokerClient(with_client_id(config, "edge-op-2")) as second,
        first.subscribed((f"{NODES}/+/state",)) as subscription,
    ):
        second.publish(f"{NODES}/bob/request/sync", b"x", retain=False)
        alice = Peer(broker, "alice")
        alice.publish(f"{NODES}/alice/state", b"seen")
        message = subscription.take(30)
        assert message is not None
        assert message.payload == b"seen"
        assert first.connections == second.connections == 1
        alice.close()


def test_a_revoked_certificate_is_refused_and_the_others_are_not(tmp_path: Path) -> None:
    with FleetBroker(tmp_path, "alice", "bob") as broker:
        for name in ("alice", "bob", "operator"):
            broker.handshake(name)
        certificate(tmp_path, "revoke", "alice")
        broker.stop()
        broker.start()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            broker.handshake("alice")
        broker.handshake("bob")
        broker.handshake("operator")
        certificate(tmp_path, "revoke", "operator", "alice")  # once more changes nothing
        broker.stop()
        broker.start()
        for name in ("alice", "operator"):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                broker.handshake(name)
        broker.handshake("bob")


def test_a_renewed_certificate_is_for_the_same_key_and_name(tmp_path: Path) -> None:
    with FleetBroker(tmp_path, "alice") as broker:
        before = _certificate(tmp_path / "alice.pem")
        key = (tmp_path / "alice.key").read_bytes()
        certificate(tmp_path, "renew", "alice", "90")
        certificate(tmp_path, "renew", "operator")
        after = _certificate(tmp_path / "alice.pem")
        assert (tmp_path / "alice.key").read_bytes() == key
        assert before["subject"] == after["subject"] == "CN = alice"
        assert before["serial"] != after["serial"]
        assert before["issuer"] == after["issuer"]
        for name in ("alice", "operator"):
            broker.handshake(name)


def test_a_node_takes_its_renewed_certificate_with_the_next_connection(tmp_path: Path) -> None:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    (tmp_path / "broker").mkdir()
    with FleetBroker(tmp_path / "broker", "alice") as broker:
        authority, cert, key = map(str, broker.credentials("alice"))
        mqtt = {
            "url": f"mqtts://localhost:{broker.port}",
            "ca_file": authority,
            "cert_file": cert,
            "key_file": key,
            "reconnect_min": "50ms",
            "reconnect_max": "200ms",
        }
        with Agent(
            tmp_path / "board",
            sockets=[tmp_path / "nri.sock"],
            plugins={"20-edge": guest("edge")},
            node="alice",
            mqtt=mqtt,
        ) as agent:
            connected = "the agent is connected"
            agent.wait_for(lambda status: status["mqtt"]["state"] == "connected", connected)
            old = tmp_path / "broker" / "old.pem"
            old.write_bytes(Path(cert).read_bytes())
            certificate(tmp_path / "broker", "renew", "alice")
            certificate(tmp_path / "broker", "revoke", "old")
            broker.stop()
            agent.wait_for(lambda status: status["mqtt"]["state"] != "connected", "it is away")
            broker.start()
            agent.wait_for(lambda status: status["mqtt"]["state"] == "connected", connected)


def test_certificates_of_clients_end_after_a_year_and_lists_do_not(tmp_path: Path) -> None:
    certificate(tmp_path, "ca")
    certificate(tmp_path, "node", "alice")
    certificate(tmp_path, "node", "bob", "90")
    certificate(tmp_path, "operator")
    assert _days(tmp_path / "alice.pem") == _days(tmp_path / "operator.pem") == 365
    assert _days(tmp_path / "bob.pem") == 90
    # mosquitto lets nobody in whose authority's list has expired.
    for name in ("crl", "operators-crl"):
        text = _openssl(
            "crl", "-in", tmp_path / f"{name}.pem", "-noout", "-lastupdate", "-nextupdate"
        )
        first, last = (int(year) for year in re.findall(r"(\d{4}) GMT", text))
        assert last - first >= 9


def test_a_folder_from_before_there_were_operators_keys_and_lists_gets_them(
    tmp_path: Path,
) -> None:
    certificate(tmp_path, "ca")
    certificate(tmp_path, "node", "alice")
    for path in tmp_path.iterdir():
        if path.name not in ("ca.pem", "ca.key", "alice.pem", "alice.key", "ca.srl"):
            path.unlink()
    certificate(tmp_path, "crl")
    certificate(tmp_path, "operator")
    certificate(tmp_path, "revoke", "alice")
    for name in ("operators-ca.key", "operators-crl.pem", "operator.pem"):
        assert (tmp_path / name).exists()
    text = _openssl("crl", "-in", tmp_path / "crl.pem", "-noout", "-text")
    assert text.count("Serial Number:") == 1


def _certificate(path: Path) -> dict[str, str]:
    text = _openssl("x509", "-in", path, "-noout", "-subject", "-issuer", "-serial")
    return dict(line.split("=", 1) for line in text.splitlines())


def _days(path: Path) -> int:
    text = _openssl("x509", "-in", path, "-noout", "-dates")
    first, last = (ssl.cert_time_to_seconds(line.split("=", 1)[1]) for line in text.splitlines())
    return round((last - first) / 86_400)


def _openssl(*words: str | Path) -> str:
    return subprocess.run(["openssl", *words], check=True, capture_output=True, text=True).stdout
