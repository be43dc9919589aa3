"""Three NATS servers of which one is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.operator.folder import FleetFolder
from tests.operator.conftest import GUARD, Home
from tests.operator.peer import Peer
from tests.support.brokers import NatsCluster
from tests.support.wait import wait_until

ROLLOUT = ("rollout", "guard", "1.0.0", "--index", "20", "--percent", "100", "-y")
NO_FEEDER = "each cluster fed its first member from there"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[NatsCluster]:
    folder = tmp_path / "broker"
    folder.mkdir()
    with NatsCluster(folder) as broker:
        yield broker


def home_at(broker: NatsCluster, path: Path, capsys: pytest.CaptureFixture[str]) -> Home:
    home = Home(path, broker.port, capsys)
    home.fleet("keygen", "alice")
    home.fleet("init", str(home.path), "--broker", f"mqtt://127.0.0.1:{broker.port}")
    home.fleet("publish", str(GUARD), "--name", "guard", "--version", "1.0.0")
    return home


def board(home: Home) -> Peer:
    return Peer(home.port, "board7", FleetFolder(home.path).trust_set())


def test_a_cluster_goes_on_without_one_of_three(
    cluster: NatsCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = home_at(cluster, tmp_path / "operator", capsys)
    with board(home) as node:
        other = next(number for number in (2, 1) if number != cluster.feeder())
        cluster.members[other].stop()
        home.fleet(*ROLLOUT, "--first")
        node.wait_for(1)
        assert "succeeded" in home.fleet("request", "board7", "sync")


def test_a_deployment_that_the_cluster_does_not_show_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The member that tells the first what is retained is away: see NatsCluster.feeder."""
    for attempt in range(10):  # in one of three clusters it is the first itself
        folder = tmp_path / f"broker-{attempt}"
        folder.mkdir()
        with NatsCluster(folder) as cluster:
            feeder = cluster.feeder()
            if feeder == 0:
                continue
            home = home_at(cluster, tmp_path / "operator", capsys)
            with board(home) as node:
                cluster.members[feeder].stop()
                code, told, errors = home.tried(*ROLLOUT, "--first")
                assert code == 1, told
                assert "sends to clients that connect now what it kept before" in errors
                assert "another operator" not in errors
                node.wait_for(1)  # it was connected
                cluster.members[feeder].start()
                _deploys_again(home, node)
            return
    pytest.fail(NO_FEEDER)


def _deploys_again(home: Home, node: Peer) -> None:
    """Once the member is back: the broker shows the deployment, or takes the next for it."""

    def deployed() -> bool:
        first = ("--first",) if "no deployment" in home.tried("plan")[2] else ()
        return home.tried("deploy", "-y", *first)[0] == 0

    wait_until(deployed, "the cluster keeps deployments again")
    node.wait_for(2)
    assert home.tried("deploy", "-y")[0] == 0
