"""The outbox in memory and on disk: numbers, bounds, gaps, acknowledgements."""

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.fleet_protocol.packing import PACKINGS
from edge_agent.fleet_protocol.topics import MAX_MESSAGE_BYTES
from edge_agent.mqtt.outbox import Outbox
from edge_agent.mqtt.stream import Batch
from tests.mqtt.observer import accounted, deduplicated
from tests.mqtt.outboxes import (
    ALL,
    outbox,
    records,
    stream_of,
    take_all,
)

Make = Callable[..., Outbox]


@pytest.fixture(params=["memory", "disk"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Makes an outbox; on disk the next one takes the first one's records over."""
    folder = tmp_path / "outbox" if request.param == "disk" else None

    def made(**changes: object) -> Outbox:
        return outbox(folder, **changes)  # type: ignore[arg-type]

    return made


def test_records_are_numbered_from_one_in_the_order_of_putting(make: Make) -> None:
    box = make()
    for item in "abc":
        box.put(item)
    assert records(*take_all(box)) == [
        {"item": "a", "seq": 1},
        {"item": "b", "seq": 2},
        {"item": "c", "seq": 3},
    ]


def test_a_batch_names_node_and_stream(make: Make) -> None:
    box = make()
    box.put("a")
    (batch,) = take_all(box)
    head = msgpack.unpackb(batch.payload)
    assert (head["version"], head["node"], len(head["stream"])) == (1, "board-7", 16)


def test_each_outbox_has_streams_of_its_own(make: Make) -> None:
    box, other = make(), outbox()
    names = set()
    for each in (box, other):
        each.put("a")
        each.put("b", important=True)
        names |= {stream_of(batch) for batch in take_all(each) + take_all(each, important=True)}
    assert len(names) == 4


def test_a_batch_has_no_more_records_than_configured(make: Make) -> None:
    box = make(batch_records=4)
    for item in range(10):
        box.put(item)
    assert [batch.count for batch in take_all(box)] == [4, 4, 2]


def test_an_item_without_a_record_takes_no_number(make: Make) -> None:
    box = make()
    for item in ("a", None, "b"):
        box.put(item)
    assert [record["seq"] for record in records(*take_all(box))] == [1, 2]
    assert box.queued == 2


def test_a_full_ingress_queue_drops_the_oldest_and_says_which(make: Make) -> None:
    box = make(queue_records=3)
    for item in range(10):
        box.put(item)
    assert (box.dropped, box.queued) == (7, 3)
    assert records(*take_all(box)) == [
        {"gap": {"from": 1, "to": 7, "count": 7}},
        {"item": 7, "seq": 8},
        {"item": 8, "seq": 9},
        {"item": 9, "seq": 10},
    ]


def test_a_full_memory_drops_the_oldest_packed_records_too() -> None:
    box = outbox(queue_records=3)
    for item in range(5):
        box.put(item)
        box.pack(ALL, 0.0)
    assert box.dropped == 2
    assert records(*take_all(box))[0] == {"gap": {"from": 1, "to": 2, "count": 2}}


def test_important_records_are_the_last_to_go_and_have_a_stream_of_their_own(make: Make) -> None:
    box = make(queue_records=3)
    for item in range(6):
        box.put(item, important=item in (1, 3))
    important, ordinary = take_all(box, important=True), take_all(box)
    assert records(*important) == [{"item": 1, "seq": 1}, {"item": 3, "seq": 2}]
    assert records(*ordinary) == [
        {"gap": {"from": 1, "to": 3, "count": 3}},
        {"item": 5, "seq": 4},
    ]
    assert stream_of(important[0]) != stream_of(ordinary[0])


def test_important_records_outlive_ordinary_ones_in_memory() -> None:
    box = outbox(queue_records=3)
    for item in range(6):
        box.put(item, important=item in (1, 3))
        box.pack(ALL, 0.0)
    assert [record.get("item") for record in records(*take_all(box, important=True))] == [1, 3]
    assert [record.get("item") for record in records(*take_all(box))] == [None, 5]


def test_a_record_too_large_for_a_message_is_cut_and_says_so(make: Make) -> None:
    box = make(describe=lambda item: {"plugin": "logger", "report": item})
    box.put("x" * MAX_MESSAGE_BYTES)
    (batch,) = take_all(box)
    (record,) = records(batch)
    assert record["plugin"] == "logger"
    assert record["seq"] == 1
    assert isinstance(record["cut_bytes"], int)
    assert record["cut_bytes"] > MAX_MESSAGE_BYTES
    assert "report" not in record


def test_a_description_that_fails_becomes_a_record(make: Make) -> None:
    def broken(item: object) -> Mapping[str, object]:
        raise KeyError(item)

    box = make(describe=broken)
    box.put("a")
    (record,) = records(*take_all(box))
    assert record["seq"] == 1
    assert "could not be described" in str(record["error"])


@pytest.mark.parametrize("encoding", PACKINGS)
def test_a_record_that_cannot_be_packed_keeps_its_number(make: Make, encoding: str) -> None:
    box = make(describe=lambda _item: {"deep": _deep()}, encoding=encoding)
    box.put("a")
    (batch,) = take_all(box)
    assert b"not packed" in batch.payload


def _deep() -> object:
    loop: list[object] = []
    loop.append(loop)
    return loop


def test_what_is_too_large_for_this_broker_becomes_a_gap(make: Make) -> None:
    box = make()
    for item in ("a", "x" * 9000, "b"):
        box.put(item)
    box.pack(ALL, 0.0)
    assert records(box.take(max_bytes=8192), box.take(max_bytes=8192)) == [
        {"item": "a", "seq": 1},
        {"gap": {"from": 2, "to": 2, "count": 1}},
        {"item": "b", "seq": 3},
    ]
    assert (box.dropped, box.queued) == (1, 2)


def test_unacknowledged_batches_are_taken_again_in_order(make: Make) -> None:
    box = make(batch_records=2)
    for item in range(6):
        box.put(item)
    first, second, third = take_all(box)
    box.acknowledge(first)
    box.rewind()
    assert box.sent == 2
    assert box.queued == 4
    assert [batch.payload for batch in take_all(box)] == [second.payload, third.payload]


def test_an_acknowledgement_out_of_order_loses_nothing(make: Make) -> None:
    box = make(batch_records=1)
    for item in range(2):
        box.put(item)
    first, second = take_all(box)
    box.acknowledge(second)
    assert box.sent == 0
    box.rewind()
    assert accounted(records(*take_all(box))) == {1, 2}
    box.acknowledge(first)  # of the connection that is gone: means nothing now
    assert box.sent == 0


def test_a_gap_that_was_not_acknowledged_is_told_again(make: Make) -> None:
    box = make(queue_records=2)
    for item in range(5):
        box.put(item)
    once = records(*take_all(box))
    box.rewind()
    assert records(*take_all(box)) == once


def test_what_is_in_flight_is_not_dropped_but_what_comes_after() -> None:
    box = outbox(queue_records=2, batch_records=1)
    for item in "ab":
        box.put(item)
    box.pack(ALL, 0.0)
    first = box.take()
    for item in "cd":
        box.put(item)
        box.pack(ALL, 0.0)
    assert first is not None
    box.acknowledge(first)
    assert records(first, *take_all(box)) == [
        {"item": "a", "seq": 1},
        {"gap": {"from": 2, "to": 3, "count": 2}},
        {"item": "d", "seq": 4},
    ]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 300), st.booleans()),
        st.just(("pack", 3, False)),
        st.tuples(st.just("take"), st.just(0), st.booleans()),
        st.tuples(st.just("acknowledge"), st.just(0), st.booleans()),
        st.just(("rewind", 0, False)),
    ),
    max_size=80,
)


@given(STEPS, st.integers(1, 6), st.integers(1, 4), st.booleans())
def test_every_number_reaches_the_consumer_in_a_record_or_a_gap(
    steps: list[tuple[str, int, bool]], queue_records: int, batch_records: int, on_disk: bool
) -> None:
    with TemporaryDirectory() as folder:
        box = outbox(Path(folder) if on_disk else None, queue_records, batch_records)
        received: dict[bool, list[dict[str, object]]] = {False: [], True: []}
        in_flight: dict[bool, list[Batch]] = {False: [], True: []}
        put = {False: 0, True: 0}
        for step, size, important in steps:
            match step:
                case "put":
                    put[important] += 1
                    box.put(put[important], size, important)
                case "pack":
                    box.pack(3, 0.0)
                case "take" if batch := box.take(important):
                    in_flight[important].append(batch)
                    # Whether or not its acknowledgement gets lost.
                    received[important] += records(batch)
                case "acknowledge" if in_flight[important]:
                    box.acknowledge(in_flight[important].pop(0))
                case "rewind":
                    in_flight = {False: [], True: []}
                    box.rewind()
            assert box.waiting <= queue_records
        box.rewind()
        for kind in (True, False):
            for last in (False, True):
                if last:
                    box.put(put[kind] + 1, important=kind)  # tells of all that was dropped
                for batch in take_all(box, kind):
                    received[kind] += records(batch)
                    box.acknowledge(batch)
            assert accounted(received[kind]) == set(range(1, put[kind] + 2))
            assert all(each["item"] == each["seq"] for each in deduplicated(received[kind]))
        assert box.queued == 0
        assert box.sent + box.dropped == sum(put.values()) + 2


@given(st.lists(st.text(max_size=5000), max_size=60), st.sampled_from(sorted(PACKINGS)))
def test_no_message_is_larger_than_allowed(texts: list[str], encoding: str) -> None:
    box = outbox(batch_records=100, encoding=encoding)
    for text in texts:
        box.put(text)
    batches = take_all(box)
    assert all(len(batch.payload) <= MAX_MESSAGE_BYTES for batch in batches)
    assert sum(batch.count for batch in batches) == len(texts)
