"""A broker that acknowledges and delivers what it does not keep, as a cluster without a member."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.fleet_protocol.trust import chain
from edge_agent.operator import deploy
from edge_agent.operator.folder import FleetFolder
from edge_agent.sim.broker import Broker
from tests.operator.conftest import GUARD, Home
from tests.operator.peer import Peer

ROLLOUT = ("rollout", "guard", "1.0.0", "--index", "20", "--percent", "100", "-y")
SHOWN = "sends to clients that connect now what it kept before"


class Behind(Broker):
    """Keeps nothing new at topics that end with `topic`, for the next `times`."""

    topic, times = "", 0

    def _publish(self, message: Any) -> None:
        if message.retain and self.times and message.topic.endswith(self.topic):
            self.times -= 1
            message = message._replace(retain=False)
        super()._publish(message)


@pytest.fixture
def broker() -> Iterator[Behind]:
    with Behind() as made:
        yield made


@pytest.fixture
def home(
    broker: Behind,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Home:
    monkeypatch.setattr(deploy, "AGAIN_S", 0.1)
    made = Home(tmp_path / "operator", broker.port, capsys)
    made.fleet("keygen", "alice")
    made.fleet("init", str(made.path), "--broker", f"mqtt://127.0.0.1:{broker.port}")
    made.fleet("publish", str(GUARD), "--name", "guard", "--version", "1.0.0")
    return made


def test_a_deployment_is_published_again_until_it_is_kept(home: Home, broker: Behind) -> None:
    broker.topic, broker.times = "/deployment", 2
    home.fleet(*ROLLOUT)
    assert broker.times == 0
    with home.opened() as fleet:
        assert fleet.current().generation == 1


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploy, "SETTLE_S", 1.0)


@pytest.mark.usefixtures("impatient")
def test_a_deployment_that_is_not_kept_is_told_and_noted(home: Home, broker: Behind) -> None:
    home.fleet(*ROLLOUT)
    broker.topic, broker.times = "/deployment", 1_000
    with Peer(home.port, "board7", FleetFolder(home.path).trust_set()) as node:
        code, told, errors = home.tried("deploy", "-y")
        assert (code, SHOWN in errors) == (1, True), told + errors
        node.wait_for(2)  # it was connected
        # The broker still shows generation 1: nobody else deployed, and 2 is taken.
        code, _, errors = home.tried("deploy", "-y")
        assert (code, "older than generation 2, which this folder deployed" in errors) == (1, True)
        assert "--onto 1" in errors
        broker.times = 0
        assert "deployed generation 3" in home.fleet("deploy", "-y", "--onto", "1")
        node.wait_for(3)


@pytest.mark.usefixtures("impatient")
def test_a_rotation_that_is_not_kept_can_be_published_again(home: Home, broker: Behind) -> None:
    bob = Home(home.keys.parent / "bob", home.port, home.capsys)
    bob.fleet("keygen", "bob")
    broker.topic, broker.times = "/trust", 1_000
    added = ("--add", str(bob.keys / "bob.pem"))
    code, told, errors = home.tried("trust", "rotate", *added, "--new-epoch", "-y")
    assert (code, SHOWN in errors) == (1, True), told + errors
    file = home.path / "trust-2.dsse.json"
    assert f"trust rotate --signed {file} --new-epoch" in errors
    assert FleetFolder(home.path).trust_set().version == 1
    broker.times = 0
    with home.opened() as fleet:  # the member is back, and with it what it had
        fleet.client.publish(fleet.topics.trust, chain([file.read_bytes().strip()]), retain=True)
        home.fleet("trust", "rotate", "--signed", str(file), *added, "--new-epoch", "-y")
        raw = fleet.client.kept(fleet.topics.trust)
    assert FleetFolder(home.path).trust_set().version == 2
    assert FleetFolder(home.path).settings().epoch == 2
    assert raw is not None
    assert raw.count(b'"payload"') == 1


def test_a_part_that_is_not_kept_is_sent_again(home: Home, broker: Behind) -> None:
    (home.path / "other.wasm").write_bytes(GUARD.read_bytes() + b"\0\2\1x")  # a custom section
    words = ("publish", str(home.path / "other.wasm"), "--name", "guard", "--version", "1.0.1")
    broker.topic, broker.times = "/0", 1  # the first part, not the last
    home.fleet(*words)
    assert broker.times == 0
    with home.opened() as fleet:
        found = fleet.client.retained((f"{fleet.topics.blobs}/+/0",))
    assert len(found) == 2
