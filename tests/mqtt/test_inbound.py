"""What is done with a message, and where an answer may go."""

import logging
from typing import Any

import pytest

from edge_agent.fleet_protocol.topics import node_topics
from edge_agent.mqtt.inbound import (
    MAX_CORRELATION_BYTES,
    TELL_AT_MOST,
    Inbound,
    InboundMessage,
    Subscriptions,
)

TOPICS = node_topics("greenhouse", "board-7")
SYNC = TOPICS.request("sync")


def message(topic: str = SYNC, **changes: Any) -> InboundMessage:
    """A request, as it comes in."""
    return InboundMessage(topic, b"{}", False, None, None)._replace(**changes)


def inbound(taken: list[InboundMessage], *topics: str) -> Inbound:
    """Takes what comes on `topics` into `taken`."""
    subscriptions = Subscriptions(1, 60)
    subscriptions.want(topics or [SYNC])
    return Inbound(subscriptions, TOPICS, taken.append)


def test_a_message_on_a_wanted_topic_is_handed_on_as_it_is() -> None:
    taken: list[InboundMessage] = []
    wanted = message(response_topic="answers/anna", correlation=b"17", retained=True)
    assert inbound(taken).arrived(wanted) == ""
    assert taken == [wanted]


def test_a_message_on_another_topic_is_an_offence_and_named_briefly() -> None:
    taken: list[InboundMessage] = []
    trouble = inbound(taken).arrived(message("x" * 60_000))
    assert "not asked for" in trouble
    assert len(trouble) < 300
    assert taken == []


@pytest.mark.parametrize(
    "changes",
    [
        {"response_topic": "edge/v1/greenhouse/deployment"},
        {"response_topic": TOPICS.state},
        {"response_topic": "answers/#"},
        {"response_topic": "a", "correlation": b"x" * (MAX_CORRELATION_BYTES + 1)},
    ],
)
def test_an_answer_that_may_not_go_there_goes_nowhere_else(changes: dict[str, Any]) -> None:
    taken: list[InboundMessage] = []
    assert inbound(taken).arrived(message(**changes)) == ""
    assert taken == [message()]


def test_what_is_too_long_to_come_back_with_an_answer_does_not_whoever_chose_the_topic() -> None:
    taken: list[InboundMessage] = []
    # With the answer in one packet it would be more than a broker takes, each time anew.
    assert inbound(taken).arrived(message(correlation=b"x" * (MAX_CORRELATION_BYTES + 1))) == ""
    assert taken == [message()]


def test_a_defect_in_the_receiver_ends_nothing_and_fills_no_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(_message: InboundMessage) -> None:
        raise KeyError("defect")

    subscriptions = Subscriptions(1, 60)
    subscriptions.want([SYNC])
    receiving = Inbound(subscriptions, TOPICS, broken)
    for _ in range(100):
        assert receiving.arrived(message()) == ""
    assert len(caplog.records) == 1
    assert "defect" in caplog.text


def test_messages_that_are_too_large_are_told_a_bounded_number_of_times(
    caplog: pytest.LogCaptureFixture,
) -> None:
    topics = [f"part/{number}" for number in range(200)]
    receiving = inbound([], *topics)
    with caplog.at_level(logging.WARNING):
        for topic in topics * 3:
            assert receiving.too_large(topic, 70_000) == ""
    assert receiving.passed_over == 600
    assert len(caplog.records) == TELL_AT_MOST
    assert "not asked for" in receiving.too_large("another", 70_000)
