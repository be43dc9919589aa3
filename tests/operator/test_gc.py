"""Blobs that nobody needs leave the broker, those that somebody needs stay."""

import json

import pytest

from edge_agent.operator.blobs import stale
from edge_agent.store.digest import Digest
from tests.operator.conftest import Home
from tests.support.mosquitto import needs_mosquitto

pytestmark = [pytest.mark.system, needs_mosquitto]


def blobs(home: Home) -> set[str]:
    with home.opened() as fleet:
        return {
            topic.split("/")[-2] for topic in fleet.client.retained((f"{fleet.topics.blobs}/+/+",))
        }


def test_what_no_deployment_names_is_cleared(published: Home) -> None:
    published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    before = blobs(published)
    assert len(before) == 2
    code, told, errors = published.tried("gc")
    assert (code, "clear" in told, blobs(published)) == (1, False, before)
    assert "give --yes" in errors
    cleared = json.loads(published.fleet("gc", "--json", "-y"))
    assert cleared["parts"] == 1
    assert {f"sha256:{hexadecimal}" for hexadecimal in before - blobs(published)} == set(
        cleared["cleared"]
    )
    assert "a deployment names every blob at the broker" in published.fleet("gc", "-y")


def test_what_only_the_folder_names_stays(published: Home) -> None:
    published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    text = (published.path / "deployment.toml").read_text()
    next_one = text.replace('version = "1.0.0"', 'version = "1.1.0"')
    (published.path / "deployment.toml").write_text(next_one)  # not deployed yet
    published.fleet("gc", "-y")
    assert len(blobs(published)) == 2


def test_an_unbelievable_deployment_stops_it(published: Home) -> None:
    with published.opened() as fleet:
        fleet.client.publish(fleet.topics.deployment, b"rubbish", retain=True)
    code, _, errors = published.tried("gc", "-y")
    assert (code, "the blobs that nodes need are not known" in errors) == (1, True)
    assert len(blobs(published)) == 2


def test_a_clearing_that_was_interrupted_finds_its_way_again(published: Home) -> None:
    name = Digest.of_hex("ab" * 32)
    with published.opened() as fleet:
        for number in (11, 2, 0, 1):
            topic = fleet.topics.blob_part(name, number)
            fleet.client.publish(topic, b"part", retain=True)
        (found,) = [
            each for each in stale(fleet.client, fleet.topics, ()).stale if each.digest == name
        ]
        order = [topic.rpartition("/")[2] for topic in found.topics]
        assert order == ["11", "2", "1", "0"]
        fleet.client.publish(found.topics[0], b"", retain=True)  # and then it was interrupted
        (again,) = [
            each for each in stale(fleet.client, fleet.topics, ()).stale if each.digest == name
        ]
    assert again.topics == found.topics[1:]
