"""Which release of a deployment a node runs."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from edge_agent.errors import RefusedError
from edge_agent.fleet_protocol import deployment
from edge_agent.fleet_protocol.deployment import Deployment, Rollout
from edge_agent.store.release import PluginId
from tests.fleet_protocol.papers import DEPLOYMENT, DIGEST, FLEET, OTHER_DIGEST, PLUGIN, changed

BOARD = {"board": "rpi4", "site": "north"}


def document(values: dict[str, Any] = DEPLOYMENT) -> Deployment:
    return deployment.parse(deployment.to_payload(values), fleet=FLEET)


def canary(percent: int) -> Deployment:
    return document(changed("plugins.0.releases.0.rollout.percent", percent))


def version(found: Deployment, node: str = "node-1", rejected: tuple[str, ...] = ()) -> str | None:
    choices = deployment.wanted(found, node, BOARD, rejected)
    return choices[PluginId("10-device-injector")].release.version if choices else None


# Published in docs/fleet-protocol.md, for those who write another node or tool.
PLACES = [("2026-11-23", "node-1", 73), ("2026-11-23", "node-2", 7), ("Mai ü", "node-1", 61)]


@pytest.mark.parametrize(("seed", "node", "published"), PLACES)
def test_a_place_is_the_first_8_bytes_of_the_hash(seed: str, node: str, published: int) -> None:
    digest = hashlib.sha256(seed.encode() + b"\0" + node.encode()).digest()
    assert int.from_bytes(digest[:8], "big") % 100 == published
    assert deployment.place(seed, node) == published


def test_a_percentage_chooses_about_that_many_and_a_higher_one_only_adds() -> None:
    nodes = [f"node-{number}" for number in range(2000)]
    before: set[str] = set()
    for percent in (0, 1, 10, 50, 99, 100):
        now = {node for node in nodes if deployment.chosen(Rollout(percent, "seed"), node)}
        assert before <= now
        assert abs(len(now) / 2000 - percent / 100) < 0.03
        before = now
    assert len(before) == 2000


def test_a_place_below_the_percentage_is_chosen() -> None:
    seed, node, place = PLACES[0]
    assert not deployment.chosen(Rollout(place, seed), node)
    assert deployment.chosen(Rollout(place + 1, seed), node)
    assert deployment.chosen(None, node)


def test_another_seed_chooses_others() -> None:
    nodes = [f"node-{number}" for number in range(2000)]
    a, b = ({n for n in nodes if deployment.chosen(Rollout(50, seed), n)} for seed in "ab")
    assert abs(len(a & b) - 500) < 100


def test_the_first_release_that_a_node_is_chosen_for_is_run() -> None:
    assert version(canary(100)) == "1.3.0"
    assert version(canary(0)) == "1.2.4"


def test_a_rejected_digest_is_passed_over() -> None:
    assert version(canary(100), rejected=(DIGEST,)) == "1.2.4"
    assert version(canary(100), rejected=(OTHER_DIGEST,)) == "1.3.0"


def test_a_rejected_setup_is_passed_over_until_it_changes() -> None:
    found = canary(100)
    (entry,) = found.plugins
    rejected = entry.offers[0].release.setup
    assert rejected.startswith(f"{DIGEST}+")
    assert version(found, rejected=(rejected,)) == "1.2.4"
    values = changed("plugins.0.releases.0.rollout.percent", 100)
    values["plugins"][0]["config"] = "mended"
    assert version(document(values), rejected=(rejected,)) == "1.3.0"


def test_a_plugin_without_a_release_for_this_node_is_left_out() -> None:
    assert version(canary(100), rejected=(DIGEST, OTHER_DIGEST)) is None


SELECTS: dict[str, tuple[dict[str, Any], bool]] = {
    "all labels": ({"labels": {"board": "rpi4", "site": "north"}}, True),
    "one of them": ({"labels": {"site": "north"}}, True),
    "no label": ({"labels": {}}, True),
    "nothing": ({}, True),
    "another value": ({"labels": {"board": "rpi5"}}, False),
    "another label too": ({"labels": {"board": "rpi4", "floor": "2"}}, False),
}


@pytest.mark.parametrize(("select", "fits"), SELECTS.values(), ids=SELECTS.keys())
def test_a_node_needs_every_label_that_is_selected(select: dict[str, Any], fits: bool) -> None:
    found = document(changed("plugins.0.select", select))
    assert bool(deployment.wanted(found, "n", BOARD)) is fits


def test_every_plugin_is_chosen_by_itself() -> None:
    other = {**PLUGIN, "name": "logger", "index": "20", "select": {"labels": {"board": "x"}}}
    third = {**PLUGIN, "name": "guard", "index": "05", "select": {}}
    found = document(changed("plugins", [PLUGIN, other, third]))
    assert list(deployment.wanted(found, "n", BOARD)) == ["10-device-injector", "05-guard"]


def second(**release: object) -> Deployment:
    """The second kind, with this in its first release."""
    values = changed("kind", deployment.KIND_2)
    values["plugins"][0]["releases"][0] |= release
    return document(values)


def test_what_a_release_has_of_its_own_stands_in_the_place_of_the_entrys() -> None:
    entrys = [each.release for each in second().plugins[0].offers]
    assert entrys[0].settings == entrys[1].settings
    found = second(limits={"memory": "32MiB"}, permissions=["*"], config="").plugins[0]
    own, other = (each.release for each in found.offers)
    assert (own.settings.limits.memory_bytes, own.settings.limits.deadline_ms) == (32 << 20, 500)
    assert (own.settings.permissions, own.config) == (None, "")
    assert own.settings.failure_policy == "Ignore"
    assert (other.settings, other.config) == (entrys[1].settings, entrys[1].config)
    assert own.setup != entrys[0].setup


WRONG: list[dict[str, object]] = [
    {"limits": {"memory": "much"}},
    {"permissions": ["nothing"]},
    {"config": 1},
    {"rollout": {"percent": 1, "seed": "s", "nodes": ["Not a name"]}},
    {"rollout": {"percent": 1, "seed": "s", "nodes": [f"n{number}" for number in range(101)]}},
    {"rollout": {"percent": 1, "seed": "s", "rings": [{}]}},
    {"rollout": {"percent": 1, "seed": "s", "rings": [{"a": "b"}] * 9}},
    {"rollout": {"percent": 1, "seed": "s", "rings": {"a": "b"}}},
    {"rollout": {"percent": 1, "seed": "s", "sites": ["a"]}},
]


@pytest.mark.parametrize("release", WRONG)
def test_a_wrong_value_in_the_second_kind_is_refused(release: dict[str, object]) -> None:
    with pytest.raises(RefusedError) as caught:
        second(**release)
    assert caught.value.reason == "malformed"


@pytest.mark.parametrize("release", [{"config": "x"}, {"limits": {}}, {"report": "all"}])
def test_the_first_kind_has_nothing_that_older_agents_would_pass_over(
    release: dict[str, object],
) -> None:
    values = changed("plugins.0.releases.0.version", "1.3.0")
    values["plugins"][0]["releases"][0] |= release
    with pytest.raises(RefusedError, match="second kind only"):
        document(values)
    assert deployment.kind_of(values["plugins"]) == deployment.KIND_2
