"""What nodes say of themselves, in whatever form it comes."""

import json
from collections.abc import Mapping

import pytest

from edge_agent.fleet_protocol.deployment import wanted
from edge_agent.operator.node_state import Node
from edge_agent.operator.overview import NOTHING, news, snapshot
from edge_agent.operator.rollout import rollout_status
from edge_agent.operator.tool_client import Received
from edge_agent.operator.view import View
from tests.operator.fuzz import a_deployment

ROOT = "edge/v1/greenhouse/nodes"
ONE, TWO = (f"sha256:{digit * 64}" for digit in "12")


def said(node: str, leaf: str, document: object) -> Received:
    return Received(f"{ROOT}/{node}/{leaf}", json.dumps(document).encode(), True)


def node(*plugins: Mapping[str, object], **updates: object) -> Node:
    return Node("a", "online", 1, {"plugins": list(plugins), "updates": updates})


def test_a_late_will_does_not_count() -> None:
    view = View()
    for document in ({"status": "online", "session": 2}, {"status": "lost", "session": 1}):
        view.feed(said("a", "status", document))
    assert view.nodes["a"].status == "online"
    view.feed(said("a", "status", {"status": "lost", "session": 2}))
    assert view.nodes["a"].status == "lost"


def test_a_will_older_than_the_state_does_not_count() -> None:
    view = View()
    view.feed(said("a", "state", {"session": 5}))
    assert view.feed(said("a", "status", {"status": "lost", "session": 4})) is None
    assert view.nodes["a"].status == ""


def test_a_cleared_node_is_gone() -> None:
    view = View()
    view.feed(said("a", "state", {}))
    view.feed(Received(f"{ROOT}/a/state", b"", False))
    assert view.nodes == {}


@pytest.mark.parametrize(
    "payload", [b"{", b"[]", b"\xff", b"7", b"[" * 100_000, b'{"a":"' + b"x" * 300_000 + b'"}']
)
def test_rubbish_is_told_and_changes_nothing_else(payload: bytes) -> None:
    view = View()
    view.feed(said("a", "state", {"agent": "1"}))
    found = view.feed(Received(f"{ROOT}/a/state", payload, True))
    assert found is not None
    assert (found.agent, found.unreadable[:7], view.unreadable) == ("1", "state: ", 1)
    view.feed(said("a", "state", {"agent": "2"}))
    assert (found.agent, found.unreadable, view.unreadable) == ("2", "", 0)


@pytest.mark.parametrize("name", ["A", "-a", "a\x1b[31m", "\u202ea", "a" * 64, ""])
def test_a_name_that_no_node_has_is_no_node(name: str) -> None:
    view = View()
    assert view.feed(said(name, "state", {})) is None
    assert (view.nodes, view.strangers) == ({}, 1)


def test_a_state_of_wrong_forms_reads_as_empty() -> None:
    wrong = {
        "labels": {"a": 1},
        "plugins": [1, {"name": 2, "events": -1, "digest": []}, None],
        "updates": {"generation": "7", "refused": [1], "rejected": 3, "fetching": {}, "trust": 9},
    }
    found = Node("a", "online", 1, wrong)
    assert (found.labels, found.generation, found.refused, found.rejected) == ({}, 0, {}, {})
    assert (found.fetching, found.trust_version) == ([], 0)
    assert [each.identity for each in found.plugins] == [""]
    assert Node("b", state={"updates": [], "plugins": {}}).plugins == []


def test_a_release_runs_when_it_serves_at_every_runtime() -> None:
    there = {"name": "x", "index": "10", "digest": ONE, "status": "running"}
    assert node(there).runs(ONE)
    assert node(there, {**there, "runtime": "/other"}).runs(ONE)
    for other in (
        {"status": "probation"},
        {"status": "starting"},
        {"status": "running", "running": TWO},  # the successor is not there yet
    ):
        assert not node(there, {**there, **other}).runs(ONE)
    assert not node(there).runs(TWO)
    assert node({**there, "digest": ONE[:19]}).runs(ONE)  # of a condensed state
    assert not node({**there, "digest": "sha256:1"}).runs(ONE)
    assert not node().runs(ONE)


def test_why_a_release_failed() -> None:
    there = {"name": "x", "index": "10", "digest": ONE, "status": "running"}
    assert node(there).failure(ONE) is None
    assert node({**there, "status": "failed", "error": "no engine"}).failure(ONE) == "no engine"
    assert node({**there, "status": "quarantined"}).failure(ONE) == "quarantined"
    assert node(rejected={ONE: "trap"}).failure(ONE) == "trap"
    assert node(quarantined={ONE: "crashed twice"}).failure(ONE) == "crashed twice"
    assert node(rejected={ONE: "trap"}).failure(TWO) is None
    assert node(rejected={f"{ONE}+12": "trap"}).failure(ONE) is None
    assert node(rejected={f"{ONE}+12": "trap"}).failure(ONE, f"{ONE}+12") == "trap"


def test_what_a_node_refused_before_it_went_away_fails_no_release() -> None:
    view = View()
    updates = {"accepted": 1, "refused": {"reason": "signature", "text": "no", "generation": None}}
    view.feed(said("a", "state", {"plugins": [], "updates": updates}))
    document = a_deployment()
    for status, counts in (("online", (1, 0)), ("lost", (0, 1)), ("offline", (0, 1))):
        view.feed(said("a", "status", {"status": status, "session": 1}))
        found = rollout_status(view, document, "guard", "1.1.0")
        assert (len(found.failed), len(found.away)) == counts, status


def test_a_node_that_refused_another_message_fails_no_release() -> None:
    """What it refused before this deployment, or what somebody showed to it alone."""
    document = a_deployment()
    view = View()
    view.feed(said("a", "status", {"status": "online", "session": 1}))
    refused = {"reason": "signature", "text": "no", "generation": None}
    for message, ours, counts in (
        ("aaaa", "aaaa", (1, 0)),
        ("bbbb", "aaaa", (0, 1)),
        ("", "aaaa", (1, 0)),  # an agent that does not say which
        ("bbbb", "", (1, 0)),
    ):
        updates = {"accepted": 1, "refused": {**refused, "message": message}}
        view.feed(said("a", "state", {"plugins": [], "updates": updates}))
        found = rollout_status(view, document, "guard", "1.1.0", ours)
        assert (len(found.failed), len(found.pending)) == counts, message


def test_a_setup_that_a_node_rejected_fails_the_release_once_another_one_runs() -> None:
    """The rejection names the release with the node's own defaults, which are not known here."""
    document = a_deployment()
    (offer,) = wanted(document, "a", {}).values()
    view = View()
    view.feed(said("a", "status", {"status": "online", "session": 1}))
    updates = {"accepted": 4, "rejected": {f"{offer.release.digest}+0123": "trap"}}
    for changes, version, counts in (
        ({}, "1.0.0", (1, 0)),
        ({"pending": 4}, "1.0.0", (0, 1)),  # something is fetched
        ({"accepted": 3}, "1.0.0", (0, 1)),  # it was another deployment's
        ({"rejected": {f"{ONE}+0123": "trap"}}, "1.0.0", (0, 1)),  # another module's
        ({}, "1.1.0", (0, 1)),  # with another configuration it is on its way
    ):
        plugin = {"name": "guard", "index": "20", "version": version, "status": "running"}
        told = {"plugins": [{**plugin, "digest": ONE}], "updates": {**updates, **changes}}
        view.feed(said("a", "state", told))
        found = rollout_status(view, document, "guard", "1.1.0")
        assert (len(found.failed), len(found.pending)) == counts, (changes, version)
        assert set(found.failed.values()) <= {"trap"}


def test_news_are_what_changed() -> None:
    there = {"name": "x", "index": "10", "version": "1.0", "digest": ONE, "status": "running"}
    first = snapshot(node(there))
    assert [(each.text, each.tone) for each in news("a", NOTHING, first, {})] == [
        ("is online", "good"),
        ("10-x 1.0 running", "good"),
    ]
    assert news("a", first, first, {}) == []
    after = snapshot(
        node(
            {**there, "version": "1.1", "digest": TWO, "status": "failed", "error": "trap"},
            rejected={TWO: "trap"},
            refused={"reason": "expired", "text": "it expired", "count": 1, "since": 1764000000},
        )
    )
    assert [(each.text, each.tone) for each in news("a", first, after, {TWO: "x 1.1"})] == [
        ("10-x 1.1 failed: trap", "bad"),
        ("rejected x 1.1: trap", "bad"),
        ("refuses the deployment (expired since 2025-11-24 16:00 UTC): it expired", "bad"),
    ]
    assert [each.text for each in news("a", first, snapshot(node()), {})] == ["10-x ended"]
