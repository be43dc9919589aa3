"""What an outbox on disk holds over the end of its process, of its machine, and of its disk."""

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.mqtt.journal import LEAST_BYTES
from edge_agent.mqtt.journal_writer import EMPTY_BYTES, SEGMENT_BYTES
from edge_agent.mqtt.segment import HEADER_BYTES
from edge_agent.mqtt.stream import Batch
from tests.mqtt import outboxes
from tests.mqtt.observer import accounted
from tests.mqtt.outboxes import (
    OTHER_BOOT,
    acknowledge,
    files_of,
    items,
    put,
    records,
    stream_of,
    take_all,
)

outbox = partial(outboxes.outbox, queue_records=10_000)
TEXT = "x" * 1000


def test_records_stream_and_numbers_outlive_a_killed_process(tmp_path: Path) -> None:
    first = outbox(tmp_path)
    put(first, "a", "b")
    (batch,) = take_all(first)
    second = outbox(tmp_path)
    assert second.queued == 2
    put(second, "c")
    (again,) = take_all(second)
    assert stream_of(again) == stream_of(batch)
    assert records(again) == [
        {"item": "a", "seq": 1},
        {"item": "b", "seq": 2},
        {"item": "c", "seq": 3},
    ]


def test_what_was_acknowledged_is_not_sent_again_after_a_good_end(tmp_path: Path) -> None:
    first = outbox(tmp_path, batch_records=2)
    put(first, *"abcde")
    batch, *_ = take_all(first)
    acknowledge(first, batch)
    first.finish()
    second = outbox(tmp_path)
    assert second.queued == 3
    put(second, "f")
    assert records(*take_all(second)) == [
        {"item": item, "seq": number} for number, item in enumerate("cdef", start=3)
    ]


def test_a_killed_process_sends_again_at_most_what_was_acknowledged_since_the_last_write(
    tmp_path: Path,
) -> None:
    first = outbox(tmp_path, batch_records=1)
    put(first, "a")
    acknowledge(first, *take_all(first))
    put(first, "b")
    acknowledge(first, *take_all(first))
    assert items(*take_all(outbox(tmp_path))) == ["b"]


def test_numbers_go_on_when_nothing_waits(tmp_path: Path) -> None:
    first = outbox(tmp_path)
    put(first, *"abc")
    acknowledge(first, *take_all(first))
    first.finish()
    second = outbox(tmp_path)
    assert second.queued == 0
    assert take_all(second) == []
    put(second, "d")
    assert records(*take_all(second)) == [{"item": "d", "seq": 4}]


@pytest.mark.parametrize("finished", [True, False])
def test_after_a_loss_of_power_a_lane_goes_on_only_if_it_was_finished(
    tmp_path: Path, finished: bool
) -> None:
    first = outbox(tmp_path)
    put(first, "a")
    (before,) = take_all(first)
    if finished:
        first.finish()
    second = outbox(tmp_path, boot=OTHER_BOOT)
    put(second, "b")
    after = take_all(second)
    assert items(*after) == ["a", "b"]
    assert stream_of(after[0]) == stream_of(before)
    assert (stream_of(after[-1]) == stream_of(before)) == finished
    assert records(after[-1])[-1]["seq"] == (2 if finished else 1)


def test_another_encoding_begins_another_stream_behind_the_old_one(tmp_path: Path) -> None:
    first = outbox(tmp_path, encoding="json")
    put(first, "a")
    second = outbox(tmp_path, encoding="msgpack")
    put(second, "b")
    old, new = take_all(second)
    assert old.payload.endswith(b'"records":[{"seq":1,"item":"a"}]}')
    assert records(new) == [{"item": "b", "seq": 1}]


def test_the_oldest_file_goes_first_when_the_bound_is_reached_and_is_told(tmp_path: Path) -> None:
    box = outbox(tmp_path)
    put(box, "first error", important=True)
    count = 2 * LEAST_BYTES // len(TEXT)
    for number in range(count):
        put(box, f"{number} {TEXT}")
    on_disk = sum(file.stat().st_size for file in files_of(tmp_path))
    assert LEAST_BYTES - SEGMENT_BYTES < on_disk <= LEAST_BYTES
    assert box.journal is not None
    assert box.journal.bytes == on_disk
    assert items(*take_all(box, important=True)) == ["first error"]
    gap, *kept = records(*take_all(box))
    assert gap["gap"] == {"from": 1, "to": count - len(kept), "count": count - len(kept)}
    assert [record["seq"] for record in kept] == list(range(count - len(kept) + 1, count + 1))
    assert box.dropped == count - len(kept)
    assert box.queued == len(kept) + 1


def test_important_records_go_once_no_ordinary_file_is_left(tmp_path: Path) -> None:
    box = outbox(tmp_path)
    put(box, "ordinary")
    for number in range(2 * LEAST_BYTES // len(TEXT)):
        put(box, f"{number} {TEXT}", important=True)
    assert sum(file.stat().st_size for file in files_of(tmp_path)) <= LEAST_BYTES
    assert "gap" in records(*take_all(box, important=True))[0]
    assert items(*take_all(box)) == ["ordinary"]


def test_a_file_that_is_being_sent_is_not_given_up(tmp_path: Path) -> None:
    box = outbox(tmp_path, batch_records=1)
    put(box, *[TEXT] * 600)
    first, second = box.take(), box.take()
    assert first is not None
    assert second is not None
    put(box, *[TEXT] * (2 * LEAST_BYTES // len(TEXT)))
    acknowledge(box, first)
    box.rewind()
    kept = records(*take_all(box))
    assert kept[0]["seq"] == 2
    assert any("gap" in record for record in kept)
    assert accounted(kept) == set(range(2, 600 + 2 * LEAST_BYTES // len(TEXT) + 1))


@pytest.mark.parametrize("seed", range(60))
def test_small_files_a_tight_bound_and_restarts_lose_count_of_nothing(
    memory: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Everything at once, files of a few records, and what is given up while it is in flight."""
    monkeypatch.setattr("edge_agent.mqtt.journal_writer.SEGMENT_BYTES", 600)
    monkeypatch.setattr("edge_agent.mqtt.journal_writer.EMPTY_BYTES", 300)
    chance = random.Random(seed)
    made = partial(outbox, memory, batch_records=4, disk_bytes=8_000)
    box, in_flight = made(), dict[bool, list[Batch]]({False: [], True: []})
    got: dict[bool, list[dict[str, object]]] = {False: [], True: []}
    count = {False: 0, True: 0}

    def take(important: bool) -> None:
        if batch := box.take(important, max_bytes=chance.choice([300, 65_536])):
            got[important] += records(batch)
            in_flight[important].append(batch)

    for _ in range(400):
        important = chance.random() < 0.3
        match chance.randrange(8):
            case 0 | 1 | 2:
                for _ in range(chance.randrange(1, 12)):
                    count[important] += 1
                    box.put(f"{count[important]}".ljust(40), important=important)
                box.pack(1 << 20, 0.0)
            case 3 | 4:
                take(important)
            case 5 | 6:
                while in_flight[important]:
                    box.acknowledge(in_flight[important].pop(0))
            case 7 if chance.random() < 0.3:
                in_flight = {False: [], True: []}
                if chance.random() < 0.5:
                    box.rewind()
                    continue
                if chance.random() < 0.5:
                    box.finish()
                box = made()
        assert box.journal is not None
        assert box.journal.bytes == sum(file.stat().st_size for file in files_of(memory))
        assert (
            box.journal.bytes <= 8_000 + 3_000
        )  # what is in flight and being written is beside it
        assert box.queued >= 0
    box.rewind()
    for kind in (True, False):
        count[kind] += 1
        box.put(f"{count[kind]}".ljust(40), important=kind)
    for kind in (True, False):
        for batch in take_all(box, kind):
            got[kind] += records(batch)
            box.acknowledge(batch)
        assert accounted(got[kind]) == set(range(1, count[kind] + 1))
        assert all(
            int(str(record["item"])) == record["seq"] for record in got[kind] if "item" in record
        )
    assert box.queued == 0
    assert box.journal is not None
    assert len(files_of(memory)) <= 2


def test_files_go_as_they_are_acknowledged_and_the_last_one_is_emptied(tmp_path: Path) -> None:
    box = outbox(tmp_path, batch_records=50)
    put(box, *[TEXT] * 1000)
    assert len(files_of(tmp_path)) >= 4
    for batch in take_all(box):
        box.acknowledge(batch)
        assert box.journal is not None
        assert box.journal.bytes == sum(file.stat().st_size for file in files_of(tmp_path))
    (left,) = files_of(tmp_path)
    assert left.stat().st_size < EMPTY_BYTES
    put(box, "next")
    assert records(*take_all(box)) == [{"item": "next", "seq": 1001}]
    assert records(*take_all(outbox(tmp_path))) == [{"item": "next", "seq": 1001}]


def test_a_lower_bound_in_the_configuration_is_kept_at_the_start(tmp_path: Path) -> None:
    put(outbox(tmp_path, disk_bytes=4 * LEAST_BYTES), *[TEXT] * (2 * LEAST_BYTES // len(TEXT)))
    box = outbox(tmp_path)
    assert sum(file.stat().st_size for file in files_of(tmp_path)) <= LEAST_BYTES
    assert box.dropped > 0
    assert box.dropped + box.packed() == 2 * LEAST_BYTES // len(TEXT)


# --- damage


@given(st.integers(0, 2**32), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_damaged_bytes_cost_only_records_that_they_hit_and_are_told(seed: int, hits: int) -> None:
    chance = random.Random(seed)
    with _folder() as folder:
        put(outbox(folder), *[f"{number} {TEXT}" for number in range(700)])
        for _ in range(hits):
            file = chance.choice(files_of(folder))
            content = bytearray(file.read_bytes())
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
            file.write_bytes(content)
        box = outbox(folder)
        put(box, "after")
        got = records(*take_all(box))
        seen = [record for record in got if "gap" not in record]
        assert len(seen) >= 701 - hits
        assert all(
            str(each["item"]).startswith(f"{int(str(each['seq'])) - 1} ") for each in seen[:-1]
        )
        assert seen[-1]["item"] == "after"
        assert box.queued + box.dropped <= 701
        _all_told(got)


def _all_told(got: list[dict[str, object]]) -> None:
    """Numbers up to the highest are in a record or a gap, in each of the streams in turn."""
    numbers: list[set[int]] = [set()]
    for record in got:
        told = accounted([record])
        if numbers[-1] and min(told) <= max(numbers[-1]):
            numbers.append(set())
        numbers[-1] |= told
    for stream in numbers:
        assert stream == set(range(1, max(stream) + 1))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_cut_file_costs_what_is_behind_the_cut(data: st.DataObject) -> None:
    with _folder() as folder:
        put(outbox(folder), *range(300))
        (file,) = files_of(folder)
        size = data.draw(st.integers(0, file.stat().st_size))
        os.truncate(file, size)
        box = outbox(folder)
        put(box, "after")
        *before, after = records(*take_all(box))
        assert before == [{"item": item, "seq": item + 1} for item in range(len(before))]
        assert after["item"] == "after"
        if size > HEADER_BYTES:
            assert after["seq"] == len(before) + 1


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"edgelog1", os.urandom(100_000)])
def test_files_of_rubbish_stop_nothing(tmp_path: Path, content: bytes) -> None:
    put(outbox(tmp_path), "a")
    for index in (0, 7):
        (tmp_path / f"results-{index:010}-{'5' * 16}.seg").write_bytes(content)
    (tmp_path / "results-x.seg").write_bytes(content)
    (tmp_path / f"results-{9:010}-{'6' * 16}.seg").mkdir()
    box = outbox(tmp_path)
    put(box, "b")
    assert items(*take_all(box)) == ["a", "b"]


def test_a_file_that_disappears_is_told_as_a_gap(tmp_path: Path) -> None:
    box = outbox(tmp_path)
    put(box, *[TEXT] * 800)
    files_of(tmp_path)[1].unlink()
    got = records(*take_all(box))
    assert accounted(got) == set(range(1, 801))
    assert any("gap" in record for record in got)
    assert box.dropped == 800 - sum("gap" not in record for record in got)
    assert box.queued == 800 - box.dropped


@contextmanager
def _folder() -> Iterator[Path]:
    from tempfile import mkdtemp

    folder = Path(mkdtemp())
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def test_records_are_what_any_consumer_reads(tmp_path: Path) -> None:
    box = outbox(tmp_path)
    put(box, {"nested": [1, b"\0", None]})
    (batch,) = take_all(box)
    assert msgpack.unpackb(batch.payload)["records"] == [
        {"item": {"nested": [1, b"\0", None]}, "seq": 1}
    ]
