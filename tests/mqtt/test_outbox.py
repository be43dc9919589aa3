"""The outbox: numbers, bounds, gaps, acknowledgements."""

from collections.abc import Mapping

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.mqtt.lanes import Entry, Lanes
from edge_agent.mqtt.outbox import MESSAGE_BYTES, Batch, Outbox
from edge_agent.mqtt.packing import PACKINGS, MsgpackPacking
from tests.mqtt.observer import accounted, deduplicated

ALL = 1 << 20


def described(item: object) -> Mapping[str, object] | None:
    """A record for an item; None asks for none."""
    return None if item is None else {"item": item}


def outbox(queue_records: int = 100, batch_records: int = 10) -> Outbox:
    return Outbox(
        "board-7",
        MsgpackPacking(),
        described,
        queue_records=queue_records,
        batch_records=batch_records,
    )


def records(*batches: Batch | None) -> list[dict[str, object]]:
    """What the batches hold."""
    return [
        record
        for batch in batches
        if batch is not None
        for record in msgpack.unpackb(batch.payload)["records"]
    ]


def take_all(box: Outbox) -> list[Batch]:
    """Everything that was put, packed, taken and not acknowledged."""
    box.pack(ALL)
    return list(iter(box.take, None))


def test_records_are_numbered_from_one_in_the_order_of_putting() -> None:
    box = outbox()
    for item in "abc":
        box.put(item)
    assert records(*take_all(box)) == [
        {"item": "a", "seq": 1},
        {"item": "b", "seq": 2},
        {"item": "c", "seq": 3},
    ]


def test_a_batch_names_node_and_stream() -> None:
    box = outbox()
    box.put("a")
    (batch,) = take_all(box)
    head = msgpack.unpackb(batch.payload)
    assert (head["version"], head["node"], head["stream"]) == (1, "board-7", box.stream)


def test_each_boot_has_a_stream_of_its_own() -> None:
    assert outbox().stream != outbox().stream


def test_a_batch_has_no_more_records_than_configured() -> None:
    box = outbox(batch_records=4)
    for item in range(10):
        box.put(item)
    assert [len(batch.entries) for batch in take_all(box)] == [4, 4, 2]


def test_an_item_without_a_record_takes_no_number() -> None:
    box = outbox()
    for item in ("a", None, "b"):
        box.put(item)
    assert [record["seq"] for record in records(*take_all(box))] == [1, 2]


def test_a_full_intake_drops_the_oldest_and_says_which() -> None:
    box = outbox(queue_records=3)
    for item in range(10):
        box.put(item)
    assert box.dropped == 7
    assert records(*take_all(box)) == [
        {"gap": {"from": 1, "to": 7, "count": 7}},
        {"item": 7, "seq": 8},
        {"item": 8, "seq": 9},
        {"item": 9, "seq": 10},
    ]


def test_a_full_queue_drops_the_oldest_packed_records_too() -> None:
    box = outbox(queue_records=3)
    for item in range(5):
        box.put(item)
        box.pack(ALL)
    assert box.dropped == 2
    assert records(*take_all(box))[0] == {"gap": {"from": 1, "to": 2, "count": 2}}


def test_important_items_outlive_ordinary_ones_in_their_place() -> None:
    box = outbox(queue_records=3)
    for item in range(6):
        box.put(item, important=item in (1, 3))
    assert records(*take_all(box)) == [
        {"gap": {"from": 1, "to": 1, "count": 1}},
        {"item": 1, "seq": 2},
        {"gap": {"from": 3, "to": 3, "count": 1}},
        {"item": 3, "seq": 4},
        {"gap": {"from": 5, "to": 5, "count": 1}},
        {"item": 5, "seq": 6},
    ]


def test_items_larger_than_the_intake_are_dropped_alone() -> None:
    box = outbox()
    box.put("a")
    box.put("huge", size=1 << 30)
    box.put("b")
    assert box.dropped == 1
    assert [record.get("seq") for record in records(*take_all(box))] == [1, None, 3]


def test_a_record_too_large_for_a_message_is_cut_and_says_so() -> None:
    box = Outbox(
        "board-7",
        MsgpackPacking(),
        lambda item: {"plugin": "logger", "report": item},
        queue_records=10,
        batch_records=10,
    )
    box.put("x" * MESSAGE_BYTES)
    (batch,) = take_all(box)
    (record,) = records(batch)
    assert record["plugin"] == "logger"
    assert record["seq"] == 1
    assert isinstance(record["cut_bytes"], int)
    assert record["cut_bytes"] > MESSAGE_BYTES
    assert "report" not in record


def test_a_description_that_fails_becomes_a_record() -> None:
    def broken(item: object) -> Mapping[str, object]:
        raise KeyError(item)

    box = Outbox("board-7", MsgpackPacking(), broken, queue_records=10, batch_records=10)
    box.put("a")
    (record,) = records(*take_all(box))
    assert record["seq"] == 1
    assert "could not be described" in str(record["error"])


@pytest.mark.parametrize("packing", PACKINGS.values(), ids=PACKINGS)
def test_a_record_that_cannot_be_packed_keeps_its_number(packing: type) -> None:
    box = Outbox(
        "board-7",
        packing(),
        lambda _item: {"deep": _deep()},
        queue_records=10,
        batch_records=10,
    )
    box.put("a")
    (batch,) = take_all(box)
    assert b"not packed" in batch.payload


def _deep() -> object:
    loop: list[object] = []
    loop.append(loop)
    return loop


def test_what_is_too_large_for_this_broker_becomes_a_gap() -> None:
    box = outbox()
    for item in ("a", "x" * 9000, "b"):
        box.put(item)
    box.pack(ALL)
    assert records(box.take(8192), box.take(8192)) == [
        {"item": "a", "seq": 1},
        {"gap": {"from": 2, "to": 2, "count": 1}},
        {"item": "b", "seq": 3},
    ]
    assert box.dropped == 1


def test_unacknowledged_batches_are_taken_again_in_order() -> None:
    box = outbox(batch_records=2)
    for item in range(6):
        box.put(item)
    first, second, third = take_all(box)
    box.acknowledge(first)
    box.rewind()
    assert box.sent == 2
    assert box.queued == 4
    assert [batch.payload for batch in take_all(box)] == [second.payload, third.payload]


def test_an_acknowledgement_out_of_order_loses_nothing() -> None:
    box = outbox(batch_records=1)
    for item in range(2):
        box.put(item)
    first, second = take_all(box)
    box.acknowledge(second)
    assert box.sent == 0
    box.rewind()
    assert accounted(records(*take_all(box))) == {1, 2}
    box.acknowledge(first)  # of the connection that is gone: means nothing now
    assert box.sent == 0


def test_a_gap_that_was_not_acknowledged_is_told_again() -> None:
    box = outbox(queue_records=2)
    for item in range(5):
        box.put(item)
    once = records(*take_all(box))
    box.rewind()
    assert records(*take_all(box)) == once


def test_records_that_came_back_are_the_first_to_be_dropped() -> None:
    box = outbox(queue_records=2)
    for item in "ab":
        box.put(item)
    take_all(box)
    box.rewind()
    box.put("c")
    assert records(*take_all(box)) == [
        {"gap": {"from": 1, "to": 1, "count": 1}},
        {"item": "b", "seq": 2},
        {"item": "c", "seq": 3},
    ]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 300), st.booleans()),
        st.just(("pack", 3, False)),
        st.just(("take", 0, False)),
        st.just(("acknowledge", 0, False)),
        st.just(("rewind", 0, False)),
    ),
    max_size=80,
)


@given(STEPS, st.integers(1, 6), st.integers(1, 4))
def test_every_number_reaches_the_consumer_in_a_record_or_a_gap(
    steps: list[tuple[str, int, bool]], queue_records: int, batch_records: int
) -> None:
    box = outbox(queue_records, batch_records)
    received: list[dict[str, object]] = []
    in_flight: list[Batch] = []
    put = 0
    for step, size, important in steps:
        match step:
            case "put":
                put += 1
                box.put(put, size, important)
            case "pack":
                box.pack(size)
            case "take" if batch := box.take():
                in_flight.append(batch)
                received += records(batch)  # whether or not its acknowledgement gets lost
            case "acknowledge" if in_flight:
                box.acknowledge(in_flight.pop(0))
            case "rewind":
                in_flight.clear()
                box.rewind()
        assert box.packed <= queue_records + sum(len(batch.entries) for batch in in_flight)
        assert box.waiting <= queue_records
    box.rewind()
    box.put(put + 1, important=True)  # a later record tells of all that was dropped before it
    for batch in take_all(box):
        received += records(batch)
        box.acknowledge(batch)
    assert accounted(received) == set(range(1, put + 2))
    kept = deduplicated(received)
    assert all(record["item"] == record["seq"] for record in kept)
    assert box.queued == 0
    assert box.sent + box.dropped == put + 1


@given(
    st.lists(st.tuples(st.integers(0, 30), st.booleans())), st.integers(1, 8), st.integers(10, 60)
)
def test_lanes_keep_their_bounds_and_their_order(
    sizes: list[tuple[int, bool]], most: int, most_bytes: int
) -> None:
    lanes: Lanes[int] = Lanes(most, most_bytes)
    dropped = 0
    for number, (size, important) in enumerate(sizes):
        dropped += lanes.push(Entry(number, size, important, number))
        assert len(lanes) <= most
    left = [lanes.pop() for _ in range(len(lanes))]
    assert [entry.number for entry in left] == sorted(entry.number for entry in left)
    assert sum(entry.size for entry in left) <= most_bytes
    assert len(left) + dropped == len(sizes)


@given(st.lists(st.text(max_size=5000), max_size=60), st.sampled_from(sorted(PACKINGS)))
def test_no_message_is_larger_than_allowed(texts: list[str], encoding: str) -> None:
    box = Outbox("board-7", PACKINGS[encoding](), described, queue_records=100, batch_records=100)
    for text in texts:
        box.put(text)
    batches = take_all(box)
    assert all(len(batch.payload) <= MESSAGE_BYTES for batch in batches)
    assert sum(len(batch.entries) for batch in batches) == len(texts)
