"""Channels, windows, refusals and waits, on a scripted wire and a scripted clock."""

import itertools
import json
import math
from typing import NamedTuple

import pytest

from edge_agent.errors import LinkError
from edge_agent.mqtt.channels import (
    ACKNOWLEDGE_TIMEOUT_S,
    ANSWERS,
    BATCH_BURST,
    BATCHES_PER_S,
    STATE_INTERVAL_S,
    AnswersChannel,
    DocumentChannel,
    Message,
    OutboxChannel,
    Publisher,
    StatusChannel,
)
from edge_agent.mqtt.outbound import PACK_AT_ONCE, PAUSE_S, Batcher
from edge_agent.mqtt.outbox import Outbox


class Sent(NamedTuple):
    topic: str
    payload: bytes
    retain: bool
    packet_id: int
    correlation: bytes | None = None


class MemoryWire:
    """Takes what is published, as a connection would."""

    receive_maximum = 65535
    max_packet_bytes = 1 << 20

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self._packet_ids = itertools.count(1)

    def publish(
        self, topic: str, payload: bytes, retain: bool, correlation: bytes | None = None
    ) -> int:
        self.sent.append(Sent(topic, payload, retain, next(self._packet_ids), correlation))
        return self.sent[-1].packet_id

    def topics(self) -> list[str]:
        return [sent.topic for sent in self.sent]


def small_outbox(queue_records: int = 100) -> Outbox:
    return Outbox(
        "board-7",
        "msgpack",
        lambda item: {"item": item},
        queue_records=queue_records,
        batch_records=1,
    )


def state_channel() -> DocumentChannel:
    return DocumentChannel("state", dict, retain=True, interval_s=STATE_INTERVAL_S, repeat=False)


def filled(outbox: Outbox, count: int) -> Outbox:
    for item in range(count):
        outbox.put(item)
    outbox.pack(count, 0.0)
    return outbox


def test_state_goes_out_at_most_once_a_second() -> None:
    state, wire = state_channel(), MemoryWire()
    publisher = Publisher([state], 1, 60)
    publisher.opened(wire, now=100.0)
    publisher.step(100.0)
    publisher.acknowledged(1, "", 100.1)
    state.changed(100.2)
    state.changed(100.3)
    publisher.step(100.4)
    assert len(wire.sent) == 1
    assert publisher.due() == 101.0
    publisher.step(101.0)
    publisher.step(105.0)
    assert len(wire.sent) == 2


def test_a_changed_state_waits_for_the_acknowledgement_of_the_last() -> None:
    state, wire = state_channel(), MemoryWire()
    publisher = Publisher([state], 1, 60)
    publisher.opened(wire, now=0.0)
    publisher.step(0.0)
    state.changed(5.0)
    publisher.step(5.0)
    assert len(wire.sent) == 1
    publisher.acknowledged(1, "", 6.0)
    publisher.step(6.0)
    assert len(wire.sent) == 2


def test_metrics_repeat() -> None:
    metrics = DocumentChannel("metrics", dict, retain=False, interval_s=60, repeat=True)
    wire = MemoryWire()
    publisher = Publisher([metrics], 1, 60)
    publisher.opened(wire, now=0.0)
    for now in (0.0, 30.0, 60.0, 61.0, 120.0):
        publisher.step(now)
        for sent in wire.sent:
            publisher.acknowledged(sent.packet_id, "", now)
    assert len(wire.sent) == 3


def test_a_document_too_large_is_not_sent() -> None:
    channel = DocumentChannel(
        "state", lambda: {"text": "x" * 70_000}, retain=True, interval_s=1, repeat=False
    )
    wire = MemoryWire()
    publisher = Publisher([channel], 1, 60)
    publisher.opened(wire, now=0.0)
    publisher.step(0.0)
    assert wire.sent == []
    assert publisher.due() == math.inf


def test_status_state_and_important_records_overtake_a_backlog() -> None:
    outbox, wire = small_outbox(1000), MemoryWire()
    filled(outbox, 100)
    state = state_channel()
    publisher = Publisher(
        [
            StatusChannel("status", "1"),
            state,
            OutboxChannel("important", outbox, 2, important=True),
            OutboxChannel("results", outbox, 4),
        ],
        1,
        60,
    )
    publisher.opened(wire, now=0.0)
    publisher.step(0.0)
    assert wire.topics() == ["status", "state", *["results"] * 4]
    for sent in wire.sent:
        publisher.acknowledged(sent.packet_id, "", 1.0)
    outbox.put("an error", important=True)
    outbox.pack(1, 1.0)
    state.changed(1.0)
    for channel in publisher.channels:
        if isinstance(channel, OutboxChannel):
            channel.look(1.0)
    publisher.step(1.0)
    assert wire.topics()[6:] == ["state", "important", *["results"] * 4]


def test_a_backlog_goes_out_no_faster_than_allowed() -> None:
    outbox, wire = filled(small_outbox(1000), 1000), MemoryWire()
    publisher = Publisher([OutboxChannel("results", outbox, 4)], 1, 60)
    publisher.opened(wire, now=0.0)
    now = 0.0
    while now < 10.0:
        publisher.step(now)
        for sent in wire.sent:
            publisher.acknowledged(sent.packet_id, "", now)
        assert publisher.due() <= now + 1 / BATCHES_PER_S + 1e-6
        now = max(publisher.due(), now + 0.001)
    assert BATCHES_PER_S * 9 < len(wire.sent) <= BATCH_BURST + BATCHES_PER_S * 10


def test_an_answer_goes_to_its_own_topic_and_a_refused_one_is_given_up() -> None:
    answers, wire = AnswersChannel("response"), MemoryWire()
    publisher = Publisher([answers], 1, 60)
    publisher.opened(wire, now=0.0)
    for topic in ("forbidden", "answers/anna"):
        assert answers.put(Message(b"{}", topic=topic, retain=False, correlation=b"7"))
    for number in (1, 2):
        answers.look(0.0)
        publisher.step(0.0)
        publisher.acknowledged(number, "Not authorized" if number == 1 else "", 0.0)
    assert wire.topics() == ["forbidden", "answers/anna"]
    assert wire.sent[1].correlation == b"7"
    assert answers.dropped == 1
    assert publisher.last_error == ""


def test_an_answer_that_was_not_acknowledged_goes_out_on_the_next_connection() -> None:
    answers, wire = AnswersChannel("response"), MemoryWire()
    publisher = Publisher([answers], 1, 60)
    answers.put(Message(b"1", topic="a"))
    answers.put(Message(b"2", topic="b"))
    publisher.opened(wire, now=0.0)
    publisher.step(0.0)
    publisher.closed()
    publisher.opened(wire, now=1.0)
    publisher.step(1.0)
    publisher.acknowledged(2, "", 1.0)
    answers.look(1.0)
    publisher.step(1.0)
    assert wire.topics() == ["a", "a", "b"]


def test_answers_beyond_their_bound_are_dropped_and_counted() -> None:
    answers = AnswersChannel("response")
    taken = [answers.put(Message(b"x", topic="a")) for _ in range(ANSWERS + 5)]
    assert taken == [True] * ANSWERS + [False] * 5
    assert not AnswersChannel("response").put(Message(b"x" * 65_537, topic="a"))
    assert answers.dropped == 5


def test_the_window_bounds_what_is_in_flight() -> None:
    wire = MemoryWire()
    publisher = Publisher([OutboxChannel("results", filled(small_outbox(), 10), 4)], 1, 60)
    publisher.opened(wire, now=0.0)
    publisher.step(0.0)
    assert len(wire.sent) == publisher.in_flight == 4
    publisher.acknowledged(2, "", 0.1)
    publisher.step(0.1)
    assert len(wire.sent) == 5


def test_the_brokers_receive_maximum_bounds_all_channels_together() -> None:
    wire = MemoryWire()
    wire.receive_maximum = 2
    status = StatusChannel("status", "1", 0)
    results = OutboxChannel("results", filled(small_outbox(), 10), 4)
    publisher = Publisher([status, results], 1, 60)
    publisher.opened(wire, now=0.0)
    publisher.step(0.0)
    assert wire.topics() == ["status", "results"]


def test_a_refused_topic_rests_longer_each_time_and_loses_nothing() -> None:
    outbox = filled(small_outbox(), 1)
    wire = MemoryWire()
    publisher = Publisher([OutboxChannel("results", outbox, 4)], 1, 60)
    publisher.opened(wire, now=0.0)
    now, waits = 0.0, []
    for _ in range(5):
        publisher.step(now)
        publisher.acknowledged(wire.sent[-1].packet_id, "Not authorized", now)
        assert "results: Not authorized" in publisher.last_error
        waits.append(publisher.due() - now)
        now = publisher.due()
    assert all(2.0**n / 2 <= wait <= 2.0**n for n, wait in enumerate(waits))
    publisher.step(now)
    publisher.acknowledged(wire.sent[-1].packet_id, "", now)
    assert publisher.last_error == ""
    assert (outbox.sent, outbox.queued, outbox.dropped) == (1, 0, 0)


def test_a_refused_topic_stops_no_other() -> None:
    wire = MemoryWire()
    status = StatusChannel("status", "1", 0)
    publisher = Publisher([status, OutboxChannel("results", filled(small_outbox(), 2), 1)], 1, 60)
    publisher.opened(wire, now=0.0)
    publisher.step(0.0)
    publisher.acknowledged(2, "Not authorized", 0.0)
    publisher.acknowledged(1, "", 0.0)
    status.say_offline(0.1)
    publisher.step(0.1)
    assert wire.topics() == ["status", "results", "status"]


def test_a_broker_that_acknowledges_nothing_is_left() -> None:
    wire = MemoryWire()
    publisher = Publisher([state_channel()], 1, 60)
    publisher.opened(wire, now=0.0)
    publisher.step(0.0)
    assert publisher.due() == ACKNOWLEDGE_TIMEOUT_S
    publisher.step(ACKNOWLEDGE_TIMEOUT_S)
    with pytest.raises(LinkError, match="acknowledged nothing on state"):
        publisher.step(ACKNOWLEDGE_TIMEOUT_S + 1)


def test_answers_to_a_former_connection_mean_nothing() -> None:
    outbox = filled(small_outbox(), 1)
    publisher = Publisher([OutboxChannel("results", outbox, 4)], 1, 60)
    publisher.opened(MemoryWire(), now=0.0)
    publisher.step(0.0)
    publisher.closed()
    assert publisher.due() == math.inf
    publisher.acknowledged(1, "", 1.0)
    assert outbox.sent == 0
    wire = MemoryWire()
    publisher.opened(wire, now=2.0)
    publisher.step(2.0)
    assert wire.topics() == ["results"]


def test_the_will_is_of_the_session_that_says_online_next() -> None:
    status, wire = StatusChannel("status", "1", 41), MemoryWire()
    topic, will = status.will()
    publisher = Publisher([status], 1, 60)
    publisher.opened(wire, now=0.0)
    publisher.step(0.0)
    assert topic == "status"
    assert json.loads(will) == {"status": "lost", "session": 42}
    assert json.loads(wire.sent[0].payload) == {"status": "online", "session": 42, "version": "1"}
    assert wire.sent[0].retain


def test_items_wait_for_company_and_wake_the_thread_once() -> None:
    outbox = small_outbox()
    batcher = Batcher(outbox, batch_s=0.25, batch_items=3)
    assert batcher.sleep_until(0.0) == math.inf
    assert batcher.put("a", 0, False)  # the thread sleeps without a limit
    assert not batcher.put("b", 0, False)
    batcher.step(10.0)
    assert outbox.packed() == 0
    assert batcher.sleep_until(10.0) == 10.25
    assert batcher.put("c", 0, False)  # the batch is full
    batcher.step(10.1)
    assert outbox.packed() == 3
    assert batcher.sleep_until(10.1) == math.inf


def test_items_that_waited_long_enough_are_packed() -> None:
    outbox = small_outbox()
    batcher = Batcher(outbox, batch_s=0.25, batch_items=3)
    batcher.put("a", 0, False)
    batcher.step(10.0)
    batcher.step(10.25)
    assert outbox.packed() == 1


def test_items_put_before_the_wake_up_was_armed_are_not_slept_over() -> None:
    batcher = Batcher(small_outbox(), batch_s=0.25, batch_items=3)
    batcher.step(0.0)
    assert not batcher.put("a", 0, False)  # between looking and falling asleep
    assert batcher.sleep_until(0.0) == 0.0


def test_many_items_are_packed_with_pauses_for_other_threads() -> None:
    outbox = small_outbox()
    batcher = Batcher(outbox, batch_s=0.0, batch_items=3)
    for item in range(50):
        batcher.put(item, 0, False)
    batcher.step(0.0)
    assert 0 < outbox.packed() < 50
    assert batcher.sleep_until(0.0) == PAUSE_S


def test_a_full_batch_is_packed_to_its_end_without_another_wait() -> None:
    outbox = small_outbox()
    batcher = Batcher(outbox, batch_s=60.0, batch_items=3 * PACK_AT_ONCE)
    for item in range(3 * PACK_AT_ONCE):
        batcher.put(item, 0, False)
    now = 10.0
    while outbox.waiting:
        batcher.step(now)
        now += PAUSE_S
    assert now < 11.0
    batcher.put("the next", 0, False)  # which waits for company again
    batcher.step(now)
    assert outbox.packed() == 3 * PACK_AT_ONCE
    assert batcher.sleep_until(now) == now + 60.0


def test_in_a_hurry_nothing_waits_for_company() -> None:
    outbox = small_outbox()
    batcher = Batcher(outbox, batch_s=60.0, batch_items=3)
    batcher.put("a", 0, False)
    batcher.step(0.0)
    batcher.flush_now()
    batcher.step(0.1)
    assert outbox.packed() == 1
