"""The operator in a fleet that is closed by exactly the files of configs/mosquitto."""

import json
from pathlib import Path

import pytest

from tests.operator.conftest import GUARD, Home
from tests.support.fleetbroker import FLEET, FleetBroker
from tests.support.mosquitto import needs_mosquitto, needs_openssl

pytestmark = [pytest.mark.system, needs_mosquitto, needs_openssl]


def test_every_command_works_with_the_operators_certificate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broker").mkdir()
    with FleetBroker(tmp_path / "broker", "board-1") as broker:
        home = Home(tmp_path / "operator", broker.operators_port, capsys)
        home.fleet("keygen", "alice")
        home.fleet("keygen", "bob")
        authority, cert, key = map(str, broker.credentials("operator"))
        url = f"mqtts://localhost:{broker.operators_port}"
        tls = ("--ca-file", authority, "--cert-file", cert, "--key-file", key)
        home.fleet(
            *("init", str(home.path), "--name", FLEET, "--broker", url, "--key", "alice", *tls)
        )
        home.fleet("publish", str(GUARD), "--name", "guard", "--version", "1.0.0")
        home.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
        home.fleet("trust", "rotate", "--add", "bob", "-y")
        assert "deployed generation 2" in home.fleet("deploy", "-y")
        assert json.loads(home.fleet("plan", "--json"))["over"] == 2
        home.fleet("results")
        home.fleet("nodes")
        home.fleet("gc", "-y")
        code, _, errors = home.tried("request", "board-1", "sync", "--timeout", "0.2")
        assert (code, "no node board-1 has reported" in errors) == (1, True)


def test_a_nodes_certificate_deploys_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broker").mkdir()
    with FleetBroker(tmp_path / "broker", "board-1") as broker:
        home = Home(tmp_path / "operator", broker.port, capsys)
        home.fleet("keygen", "mallory")
        authority, cert, key = map(str, broker.credentials("board-1"))
        tls = ("--ca-file", authority, "--cert-file", cert, "--key-file", key)
        url = f"mqtts://localhost:{broker.port}"
        home.fleet("init", str(home.path), "--name", FLEET, "--broker", url, *tls)
        words = ("publish", str(GUARD), "--name", "guard", "--version", "1.0.0")
        code, _, errors = home.tried(*words)
        assert code == 1
        assert "the broker refuses it: Not authorized" in errors
        code, _, errors = home.tried("deploy", "-y")
        assert code == 1
        assert "the broker refuses it: Not authorized" in errors
