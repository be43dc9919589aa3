"""Topic names."""

import re

import pytest

from edge_agent import VERBS
from edge_agent.errors import ConfigError
from edge_agent.fleet_protocol.topics import (
    DocumentOf,
    PartOf,
    RequestFor,
    Router,
    fleet_topics,
    is_plain,
    node_topics,
    plain_client_id,
)
from edge_agent.store.digest import Digest


def test_topics_are_those_of_the_fleet_protocol() -> None:
    assert node_topics("greenhouse", "board-7") == (
        "edge/v1/greenhouse/nodes/board-7/status",
        "edge/v1/greenhouse/nodes/board-7/state",
        "edge/v1/greenhouse/nodes/board-7/results",
        "edge/v1/greenhouse/nodes/board-7/logs",
        "edge/v1/greenhouse/nodes/board-7/metrics",
    )


@pytest.mark.parametrize("name", ["", "+", "#", "a/b", "Board", "-a", "a" * 64, "a\n", "ä"])
def test_names_that_no_topic_can_hold_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="node"):
        node_topics("greenhouse", name)
    with pytest.raises(ConfigError, match="fleet"):
        node_topics(name, "board-7")


def test_a_fleets_topics_are_those_of_the_protocol() -> None:
    topics = fleet_topics("greenhouse")
    assert topics.deployment == "edge/v1/greenhouse/deployment"
    assert topics.trust == "edge/v1/greenhouse/trust"
    assert (
        topics.blob_part(Digest.of_hex("0" * 64), 17) == f"edge/v1/greenhouse/blobs/{'0' * 64}/17"
    )
    with pytest.raises(ConfigError, match="fleet"):
        fleet_topics("a/b")


def test_each_verb_has_a_request_and_a_response() -> None:
    topics = node_topics("greenhouse", "board-7")
    assert topics.request("sync") == "edge/v1/greenhouse/nodes/board-7/request/sync"
    assert topics.response("sync") == "edge/v1/greenhouse/nodes/board-7/response/sync"
    assert all(topics.request(verb) for verb in VERBS)
    with pytest.raises(ValueError, match="not one of"):
        topics.request("+")
    with pytest.raises(ValueError, match="not one of"):
        topics.response("explode")


@pytest.mark.parametrize(
    ("topic", "allowed"),
    [
        ("operators/anna/answers", True),
        ("edge/v1/greenhouse/nodes/board-7/response/sync", True),
        ("edge/v1/greenhouse/nodes/board-7/response/sync/anna", True),
        ("edge/v1/greenhouse/nodes/board-7/state", False),
        ("edge/v1/greenhouse/nodes/board-70/response/sync", False),
        ("edge/v1/greenhouse/deployment", False),
        ("edge/v1", False),
        ("edge/v10", True),
        ("$SYS/broker", False),
        ("answers/#", False),
        ("answers/+", False),
        ("", False),
        ("a\0b", False),
        ("x" * 257, False),
        ("\u00e4" * 129, False),
    ],
)
def test_an_answer_goes_nowhere_where_it_could_be_believed(topic: str, allowed: bool) -> None:
    assert node_topics("greenhouse", "board-7").may_answer_on(topic) == allowed


def test_wildcards_are_no_topic_to_subscribe_to() -> None:
    assert is_plain("edge/v1/greenhouse/deployment")
    assert not is_plain("edge/v1/greenhouse/#")


def test_a_plain_client_id_is_what_every_broker_takes_and_of_one_node_only() -> None:
    names = [("a", "b.c"), ("a", "b-c"), ("a.b", "c"), ("x" * 63, "y" * 63)]
    found = {plain_client_id(fleet, node) for fleet, node in names}
    assert len(found) == len(names)
    assert all(re.fullmatch("[0-9a-zA-Z]{23}", each) for each in found)


HEX = "0f" * 32


@pytest.mark.parametrize(
    ("topic", "what"),
    [
        ("edge/v1/greenhouse/deployment", DocumentOf("deployment")),
        ("edge/v1/greenhouse/trust", DocumentOf("trust")),
        (f"edge/v1/greenhouse/blobs/{HEX}/0", PartOf(Digest.of_hex(HEX), 0)),
        (f"edge/v1/greenhouse/blobs/{HEX}/65535", PartOf(Digest.of_hex(HEX), 65_535)),
        *((f"edge/v1/greenhouse/nodes/board-7/request/{verb}", RequestFor(verb)) for verb in VERBS),
        # Of another fleet or node, of another form, and what a node says itself.
        ("edge/v1/meadow/deployment", None),
        (f"edge/v1/meadow/blobs/{HEX}/0", None),
        (f"edge/v1/greenhouse/blobs/{HEX}", None),
        (f"edge/v1/greenhouse/blobs/{HEX}/01", None),
        (f"edge/v1/greenhouse/blobs/{HEX}/-1", None),
        (f"edge/v1/greenhouse/blobs/{HEX.upper()}/0", None),
        (f"edge/v1/greenhouse/blobs/{HEX}/0/0", None),
        ("edge/v1/greenhouse/blobs/../../etc/0", None),
        ("edge/v1/greenhouse/nodes/board-70/request/sync", None),
        ("edge/v1/greenhouse/nodes/board-7/request/explode", None),
        ("edge/v1/greenhouse/nodes/board-7/state", None),
        ("", None),
    ],
)
def test_a_message_for_a_node_is_told_by_its_topic(topic: str, what: object) -> None:
    router = Router(fleet_topics("greenhouse"), node_topics("greenhouse", "board-7"))
    assert router.route(topic) == what


def test_a_node_is_asked_on_one_topic_for_each_verb() -> None:
    topics = node_topics("greenhouse", "board-7")
    router = Router(fleet_topics("greenhouse"), topics)
    assert list(router.requests) == [topics.request(verb) for verb in VERBS]
