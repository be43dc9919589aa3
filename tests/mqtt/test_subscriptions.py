"""Which topics the broker is asked for, on a scripted wire and a scripted clock."""

import itertools
import math
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_agent.errors import LinkError
from edge_agent.mqtt.channels import ACKNOWLEDGE_TIMEOUT_S
from edge_agent.mqtt.inbound import FORMER_TOPICS, STRANGERS, TOPICS_AT_ONCE, Subscriptions


class MemoryWire:
    """Writes down what is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self._packet_ids = itertools.count(1)

    def subscribe(self, topics: Sequence[str]) -> int:
        self.asked.append(("+", tuple(topics)))
        return next(self._packet_ids)

    def unsubscribe(self, topics: Sequence[str]) -> int:
        self.asked.append(("-", tuple(topics)))
        return next(self._packet_ids)


def opened(*topics: str, session_kept: bool = False) -> tuple[Subscriptions, MemoryWire]:
    """Subscriptions that want `topics` on a new connection."""
    subscriptions, wire = Subscriptions(1, 60), MemoryWire()
    subscriptions.want(topics)
    subscriptions.opened(wire, session_kept)
    subscriptions.step(0.0)
    return subscriptions, wire


def test_wanted_topics_are_asked_for_on_every_connection() -> None:
    subscriptions, wire = opened("a", "b")
    assert wire.asked == [("+", ("a", "b"))]
    subscriptions.closed()
    assert subscriptions.step(1.0) == math.inf
    again = MemoryWire()
    subscriptions.opened(again, session_kept=True)
    subscriptions.step(2.0)
    assert again.asked == [("+", ("a", "b"))]


def test_wanting_twice_asks_once_and_wakes_once() -> None:
    subscriptions, wire = opened("a")
    assert not subscriptions.want(["a"])
    assert not subscriptions.unwant(["never wanted"])
    subscriptions.step(1.0)
    assert wire.asked == [("+", ("a",))]


def test_a_topic_wanted_anew_is_asked_for_once_more_and_never_given_up() -> None:
    """Between giving up and asking again a broker could keep a message back, or mix the two up."""
    subscriptions, wire = opened("a", "b")
    assert subscriptions.want(["a"], anew=True)
    assert subscriptions.wants("a")
    subscriptions.step(1.0)
    assert wire.asked == [("+", ("a", "b")), ("+", ("a",))]


def test_a_topic_given_up_and_wanted_again_brings_its_retained_message_again() -> None:
    subscriptions, wire = opened("a")
    assert subscriptions.unwant(["a"])
    assert subscriptions.want(["a"])
    subscriptions.step(1.0)
    assert wire.asked == [("+", ("a",)), ("+", ("a",))]


def test_a_topic_given_up_is_expected_until_it_is_wanted_again() -> None:
    subscriptions, wire = opened("a")
    subscriptions.unwant(["a"])
    assert not subscriptions.wants("a")
    subscriptions.step(1.0)
    assert wire.asked[-1] == ("-", ("a",))
    assert subscriptions.expects("a")
    subscriptions.want(["a"])
    subscriptions.step(2.0)
    assert wire.asked[-1] == ("+", ("a",))
    assert subscriptions.wants("a")


def test_many_topics_go_in_groups_that_every_broker_takes() -> None:
    _, wire = opened(*(f"part/{number}" for number in range(20)))
    assert [len(topics) for _, topics in wire.asked] == [TOPICS_AT_ONCE, TOPICS_AT_ONCE, 4]


@pytest.mark.parametrize("topic", ["", "a/#", "+", "$SYS/x", "x" * 300, "a\0"])
def test_patterns_are_refused(topic: str) -> None:
    with pytest.raises(ValueError, match="not a topic"):
        Subscriptions(1, 60).want([topic])


def test_a_topic_given_up_while_away_is_given_up_at_the_broker_that_kept_the_session() -> None:
    subscriptions, _ = opened("a", "b")
    subscriptions.closed()
    subscriptions.unwant(["a"])
    wire = MemoryWire()
    subscriptions.opened(wire, session_kept=True)
    assert subscriptions.expects("a")
    subscriptions.step(1.0)
    assert wire.asked == [("-", ("a",)), ("+", ("b",))]


def test_the_word_that_a_topic_is_given_up_is_said_again_after_a_broken_connection() -> None:
    subscriptions, _ = opened("a")
    subscriptions.unwant(["a"])
    subscriptions.step(1.0)
    subscriptions.closed()
    wire = MemoryWire()
    subscriptions.opened(wire, session_kept=True)
    subscriptions.step(2.0)
    assert wire.asked == [("-", ("a",))]
    subscriptions.closed()
    fresh = MemoryWire()
    subscriptions.opened(fresh, session_kept=False)
    subscriptions.step(3.0)
    assert fresh.asked == []
    assert not subscriptions.expects("a")


def test_topics_of_an_earlier_life_are_given_up_and_too_many_are_an_offence() -> None:
    subscriptions, wire = opened(session_kept=True)
    for number in range(STRANGERS):
        assert subscriptions.expects(f"old/{number}")
    assert subscriptions.expects("old/0")  # twice: not a new one
    assert not subscriptions.expects("one too many")
    subscriptions.step(1.0)
    given_up = [topic for sign, topics in wire.asked for topic in topics if sign == "-"]
    assert given_up == [f"old/{number}" for number in range(STRANGERS)]


def test_without_a_kept_session_nothing_unknown_is_expected() -> None:
    subscriptions, _ = opened("a")
    assert not subscriptions.expects("b")
    assert not subscriptions.expects("")


def test_a_refused_topic_is_told_rests_longer_each_time_and_stops_no_other() -> None:
    subscriptions, wire = opened("a", "b")
    now, waits = 0.0, []
    subscriptions.answered(1, ["", "Not authorized"], now)
    for number in range(2, 6):
        assert "subscription to b: Not authorized" in subscriptions.last_error
        assert "access list" in subscriptions.last_error
        waits.append(subscriptions.step(now) - now)
        now += waits[-1]
        subscriptions.step(now)
        assert wire.asked[-1] == ("+", ("b",))
        subscriptions.answered(number, ["Not authorized"], now)
    assert all(2.0**n / 2 <= wait <= 2.0**n for n, wait in enumerate(waits))
    now = subscriptions.step(now)
    subscriptions.step(now)
    subscriptions.answered(6, [""], now)
    assert subscriptions.last_error == ""
    assert subscriptions.step(now) == math.inf


def test_a_refused_topic_that_is_given_up_is_no_trouble_any_more() -> None:
    subscriptions, wire = opened("a")
    subscriptions.answered(1, ["Not authorized"], 0.0)
    subscriptions.unwant(["a"])
    assert subscriptions.step(0.1) == math.inf
    assert subscriptions.last_error == ""
    assert wire.asked == [("+", ("a",))]


def test_a_broker_that_answers_no_subscription_is_left() -> None:
    subscriptions, _ = opened("a")
    assert subscriptions.step(1.0) == ACKNOWLEDGE_TIMEOUT_S
    with pytest.raises(LinkError, match="did not answer a subscription to a"):
        subscriptions.step(ACKNOWLEDGE_TIMEOUT_S + 0.1)


def test_an_answer_for_another_number_of_topics_is_an_offence() -> None:
    subscriptions, _ = opened("a", "b")
    with pytest.raises(LinkError, match="1 of 2"):
        subscriptions.answered(1, [""], 0.0)
    subscriptions.answered(99, ["", "", ""], 0.0)  # of nothing that was asked: means nothing


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["want", "unwant", "step", "answer", "break", "lose session"]),
        st.sampled_from("abcdefghij"),
    ),
    max_size=60,
)


# A topic is given up while the broker may be sending: the step that tells it comes later, ...
@example([("want", "a"), ("step", "a"), ("answer", "a"), ("unwant", "a")])
# ... also on a connection that is new, ...
@example([("want", "a"), ("step", "a"), ("answer", "a"), ("break", "a"), ("unwant", "a")])
# ... and that may break before the step.
@example(
    [("want", "a"), ("step", "a"), ("answer", "a"), ("break", "a"), ("break", "a"), ("unwant", "a")]
)
@given(STEPS)
def test_the_broker_knows_in_the_end_what_is_wanted(steps: list[tuple[str, str]]) -> None:
    subscriptions, wire = Subscriptions(1, 60), MemoryWire()
    wanted: set[str] = set()
    session: set[str] = set()  # what the broker keeps
    heard = 0
    answered = 0

    def hear(most: int) -> None:
        """The broker reads, perhaps less than was sent before the connection broke."""
        nonlocal heard
        for sign, topics in wire.asked[heard : heard + most]:
            session.update(topics) if sign == "+" else session.difference_update(topics)
            heard += 1

    subscriptions.opened(wire, session_kept=False)
    for step, topic in steps:
        match step:
            case "want":
                wanted.add(topic)
                subscriptions.want([topic])
            case "unwant":
                wanted.discard(topic)
                subscriptions.unwant([topic])
            case "step":
                subscriptions.step(0.0)
            case "answer":
                hear(1)
                while answered < heard:
                    sign, topics = wire.asked[answered]
                    answered += 1
                    subscriptions.answered(answered, [""] * len(topics) * (sign == "+"), 0.0)
            case _:
                subscriptions.closed()
                wire, heard, answered = MemoryWire(), 0, 0
                if step == "lose session":
                    session.clear()
                subscriptions.opened(wire, session_kept=step == "break")
        assert all(subscriptions.wants(topic) == (topic in wanted) for topic in "abcdefghij")
        assert all(subscriptions.expects(topic) for topic in session - wanted - {""})
    subscriptions.step(0.0)
    hear(len(wire.asked))
    assert session == wanted


def test_memory_of_what_was_given_up_is_bounded() -> None:
    subscriptions, _ = opened()
    for number in range(3 * FORMER_TOPICS):
        subscriptions.want([str(number)])
        subscriptions.step(0.0)
        subscriptions.unwant([str(number)])
        subscriptions.step(0.0)
    assert subscriptions.expects(str(3 * FORMER_TOPICS - 1))
    assert not subscriptions.expects("0")
