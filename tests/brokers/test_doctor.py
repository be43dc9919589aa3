"""`edge-agent fleet doctor --broker` against brokers of five makers: docs/brokers.md has it.

A broker that changes its mind with a new version fails here, and the page with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.operator import signing
from edge_agent.operator.folder import FleetFolder
from tests.operator.conftest import GUARD, ROOT, Home
from tests.operator.peer import Peer
from tests.support.brokers import BROKERS, Foreign, NatsCluster
from tests.support.mosquitto import Mosquitto

Broker = Mosquitto | Foreign | NatsCluster
PAGE = (ROOT / "docs" / "brokers.md").read_text()


@pytest.fixture(params=sorted(BROKERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def broker(name: str, tmp_path: Path) -> Iterator[Broker]:
    folder = tmp_path / "broker"
    folder.mkdir()
    with BROKERS[name](folder) as broker:
        yield broker


@pytest.fixture
def home(broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Home:
    made = Home(tmp_path / "operator", broker.port, capsys)
    made.fleet("keygen", "alice")
    made.fleet("init", str(made.path), "--broker", f"mqtt://127.0.0.1:{broker.port}")
    return made


def findings(home: Home, *words: str) -> dict[str, str]:
    """Levels by subject."""
    _, output, errors = home.tried("doctor", "--broker", "--json", *words)
    assert output, errors
    found = [json.loads(line) for line in output.splitlines()]
    print(output)
    return {each["subject"]: each["level"] for each in found}


def table() -> dict[str, dict[str, str]]:
    """Of the page: broker to subject to level."""
    (block,) = re.findall(r"<!-- doctor -->\n(.*?)<!-- end -->", PAGE, re.S)
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in block.strip().splitlines()
    ]
    return {
        broker: {row[0]: row[column] for row in rows}
        for column, broker in enumerate(head)
        if column
    }


def test_what_doctor_finds_is_what_the_page_says(name: str, broker: Broker, home: Home) -> None:
    found = findings(home)
    broker.stop()
    broker.start()
    found |= findings(home, "--restarted")
    assert {subject: found.get(subject, "-") for subject in table()[name]} == table()[name]
    assert not found.keys() - table()[name].keys() - {"connection"}


def test_the_operators_story_holds(home: Home) -> None:
    trust = signing.trust_set(FleetFolder(home.path))
    home.fleet("publish", str(GUARD), "--name", "guard", "--version", "1.0.0")
    with Peer(home.port, "board7", trust) as node:
        home.fleet(
            *("rollout", "guard", "1.0.0", "--index", "20", "--percent", "100", "-y", "--first")
        )
        node.wait_for(1)
        assert node.runs() == {"20-guard": "1.0.0"}
        told = [json.loads(line) for line in home.fleet("nodes", "--json").splitlines()]
        assert [(each["node"], each["generation"]) for each in told] == [("board7", 1)]
        home.fleet("results")  # from now on they are kept
        node.report("s1", {"seq": 1, "plugin": "20-guard", "outcome": "ok"})
        (record,) = home.fleet("results", "--json").splitlines()
        assert json.loads(record)["seq"] == 1
        assert "succeeded" in home.fleet("request", "board7", "sync")
    home.fleet("gc", "-y")


def test_a_cluster_goes_on_without_one_of_three(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broker").mkdir()
    with NatsCluster(tmp_path / "broker") as broker:
        home = Home(tmp_path / "operator", broker.port, capsys)
        home.fleet("keygen", "alice")
        home.fleet("init", str(home.path), "--broker", f"mqtt://127.0.0.1:{broker.port}")
        home.fleet("publish", str(GUARD), "--name", "guard", "--version", "1.0.0")
        trust = signing.trust_set(FleetFolder(home.path))
        with Peer(home.port, "board7", trust) as node:
            broker.stop_one()
            home.fleet(
                *("rollout", "guard", "1.0.0", "--index", "20", "--percent", "100"),
                *("-y", "--first"),
            )
            node.wait_for(1)
            assert "succeeded" in home.fleet("request", "board7", "sync")
