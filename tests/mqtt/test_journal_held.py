"""Records that are held in memory while a broker acknowledges: bytes, ends, breaks, numbers."""

import math
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from edge_agent.mqtt.journal import HELD_BYTES, SYNC_S
from edge_agent.mqtt.outbox import RETRY_DISK_S, Outbox
from edge_agent.mqtt.segment import HEADER_BYTES
from edge_agent.mqtt.stream import Batch
from tests.mqtt import outboxes
from tests.mqtt.harness import config_for, running, wait_until_connected
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
from tests.support.mosquitto import Mosquitto, needs_mosquitto
from tests.support.wait import wait_until

HOLD_S = 5.0


def outbox(folder: Path, *, up: bool = True, **changes: object) -> Outbox:
    """On disk in `folder`, with a broker there or not."""
    box = outboxes.outbox(folder, hold_s=HOLD_S, **{"queue_records": 10_000, **changes})  # type: ignore[arg-type]
    box.connected(up, 0.0)
    return box


class Written:
    """Bytes that this process writes into files below a folder."""

    def __init__(self) -> None:
        self.bytes = 0


@contextmanager
def written(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Written]:
    """Counted where the journal writes."""
    found, real = Written(), os.pwrite

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        count = real(fd, data, offset)
        if folder in Path(f"/proc/self/fd/{fd}").readlink().parents:
            found.bytes += count
        return count

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        yield found


def on_disk(folder: Path) -> list[object]:
    """What the next process would find, read from a copy that nobody writes to."""
    with TemporaryDirectory() as copy:
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        box = outboxes.outbox(Path(copy), queue_records=10_000, boot=OTHER_BOOT)
        return items(*take_all(box))


# --- bytes


def test_a_result_that_is_acknowledged_in_time_is_never_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = outbox(tmp_path)
    with written(monkeypatch, tmp_path) as found:
        put(box, "the first")
        acknowledge(box, *take_all(box))
        assert found.bytes == HEADER_BYTES  # numbers are used from now on
        for item in range(200):
            put(box, item, now=float(item))
            acknowledge(box, *take_all(box))
            box.tick(float(item))
        assert found.bytes == HEADER_BYTES
    assert (box.sent, box.queued, box.dropped) == (201, 0, 0)
    assert box.tick(200.0) == math.inf


def test_with_durability_always_each_result_is_written_before_it_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = outboxes.outbox(tmp_path)
    box.connected(True, 0.0)
    with written(monkeypatch, tmp_path) as found:
        for item in range(10):
            before = found.bytes
            put(box, item)
            assert found.bytes > before
            acknowledge(box, *take_all(box))


@pytest.mark.system
@needs_mosquitto
def test_a_real_broker_costs_below_100_bytes_on_disk_for_each_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, state_dir = 50, tmp_path / "state"
    with (
        Mosquitto(tmp_path) as broker,
        written(monkeypatch, state_dir) as found,
        running(config_for(broker.port, durability_delay_s=30.0), state_dir=state_dir) as link,
    ):
        wait_until_connected(link)
        for number in range(1, count + 1):
            link.report("x" * 300)
            wait_until(lambda number=number: link.status()["sent"] == number, "it is acknowledged")  # type: ignore[misc]
        assert found.bytes < 100 * count


# --- what goes to the disk, and when


def test_what_is_not_acknowledged_in_time_is_written_and_sent_once(tmp_path: Path) -> None:
    box = outbox(tmp_path)
    put(box, "a", now=100.0)
    put(box, "b", now=103.0)
    (batch,) = take_all(box)
    assert box.unkept == 2
    assert box.tick(104.0) == 100.0 + HOLD_S
    assert on_disk(tmp_path) == []
    assert box.tick(100.0 + HOLD_S) == 100.0 + SYNC_S
    assert box.unkept == 0
    assert on_disk(tmp_path) == ["a", "b"]
    acknowledge(box, batch)
    assert take_all(box) == []
    assert (box.sent, box.queued) == (2, 0)
    assert on_disk(tmp_path) == []


def test_nothing_waits_longer_for_the_card_because_it_was_held(tmp_path: Path) -> None:
    box = outbox(tmp_path)
    put(box, "a", now=100.0)
    assert box.tick(100.0 + HOLD_S) == 100.0 + SYNC_S


def test_a_broken_connection_brings_to_disk_what_is_held(tmp_path: Path) -> None:
    box = outbox(tmp_path, batch_records=1)
    put(box, *"abc")
    first, _ = box.take(), box.take()
    assert first is not None
    acknowledge(box, first)
    box.rewind()
    box.connected(False, 1.0)
    assert on_disk(tmp_path) == ["b", "c"]
    put(box, "d", now=2.0)
    assert on_disk(tmp_path) == ["b", "c", "d"]
    assert [each["seq"] for each in records(*take_all(box))] == [2, 3, 4]


def test_without_a_broker_nothing_is_held(tmp_path: Path) -> None:
    box = outbox(tmp_path, up=False)
    put(box, "a")
    assert box.unkept == 0
    assert on_disk(tmp_path) == ["a"]


def test_while_something_older_waits_on_disk_nothing_is_held(tmp_path: Path) -> None:
    box = outbox(tmp_path, up=False)
    put(box, "old")
    box.connected(True, 1.0)
    put(box, "new")
    assert box.unkept == 0
    acknowledge(box, *take_all(box))
    put(box, "newest")
    assert box.unkept == 1
    assert records(*take_all(box)) == [{"item": "newest", "seq": 3}]


def test_what_is_held_has_a_bound(tmp_path: Path) -> None:
    box = outbox(tmp_path, batch_records=1)
    text, held = "x" * 10_000, 0
    for number in range(2 * HELD_BYTES // len(text)):
        put(box, f"{number} {text}")
        assert box.unkept * len(text) <= HELD_BYTES
        held = max(held, box.unkept)
    assert held > 1
    got = records(*take_all(box))
    assert [each["seq"] for each in got] == list(range(1, len(got) + 1))
    assert len(got) == 2 * HELD_BYTES // len(text)


# --- the end of a process


def test_after_a_good_end_nothing_is_lost_and_numbers_go_on(tmp_path: Path) -> None:
    box = outbox(tmp_path)
    put(box, *"ab")
    acknowledge(box, *take_all(box))
    put(box, *"cd")
    before = take_all(box)
    box.finish()
    heir = outbox(tmp_path, boot=OTHER_BOOT)
    assert heir.journal is not None
    assert heir.journal.streams_cut == 0
    put(heir, "e")
    after = take_all(heir)
    assert {stream_of(batch) for batch in after} == {stream_of(batch) for batch in before}
    assert records(*after) == [
        {"item": item, "seq": number} for number, item in enumerate("cde", start=3)
    ]


def test_after_a_good_end_with_everything_acknowledged_numbers_go_on(tmp_path: Path) -> None:
    box = outbox(tmp_path)
    put(box, *"ab")
    acknowledge(box, *take_all(box))
    box.finish()
    heir = outbox(tmp_path, boot=OTHER_BOOT)
    put(heir, "c")
    assert records(*take_all(heir)) == [{"item": "c", "seq": 3}]


def test_a_killed_process_loses_what_it_held_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    box = outbox(tmp_path, up=False)
    put(box, "on disk")
    acknowledge(box, *take_all(box))
    box.connected(True, 1.0)
    put(box, "held")
    (before,) = take_all(box)
    heir = outbox(tmp_path)
    assert heir.journal is not None
    assert heir.journal.streams_cut == 1
    assert "results that it had not written" in caplog.text
    assert "number is not known" in caplog.text
    put(heir, "next")
    (after,) = take_all(heir)
    assert stream_of(after) != stream_of(before)
    assert records(after) == [{"item": "next", "seq": 1}]


def test_a_cut_stream_is_told_by_the_next_process_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    box = outbox(tmp_path)
    put(box, "held")
    told = []
    for _ in range(3):
        caplog.clear()
        heir = outbox(tmp_path)
        assert heir.journal is not None
        told.append((heir.journal.streams_cut, bool(caplog.text)))
        heir.finish()
    assert told == [(1, True), (0, False), (0, False)]


@pytest.mark.parametrize("waits", [True, False])
def test_processes_that_are_killed_again_and_again_leave_no_more_files(
    tmp_path: Path, waits: bool
) -> None:
    box = outbox(tmp_path, up=not waits)
    put(box, "a")
    for _ in range(5):
        heir = outbox(tmp_path)
        assert heir.journal is not None
        assert heir.journal.streams_cut == 1
        assert len(files_of(tmp_path)) <= 2
        assert heir.queued == waits
    put(heir, "b")
    assert items(*take_all(heir)) == (["a", "b"] if waits else ["b"])


@pytest.mark.parametrize("held_before", [True, False])
def test_another_durability_goes_on_only_where_each_number_is_in_a_file(
    tmp_path: Path, held_before: bool
) -> None:
    """The process before was killed, in the same boot."""
    hold_s = (HOLD_S, 0.0) if held_before else (0.0, HOLD_S)
    streams = []
    for each in hold_s:
        box = outboxes.outbox(tmp_path, hold_s=each)
        box.connected(True, 0.0)
        put(box, "a")
        streams += [stream_of(batch) for batch in take_all(box)]
    assert len(set(streams)) == (2 if held_before else 1)
    assert box.journal is not None
    assert box.journal.streams_cut == (1 if held_before else 0)


def test_after_a_good_end_nothing_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    box = outbox(tmp_path)
    put(box, "a")
    box.finish()
    heir = outbox(tmp_path)
    assert heir.journal is not None
    assert heir.journal.streams_cut == 0
    assert caplog.text == ""


# --- a disk that fails


def test_what_cannot_be_written_is_held_on_and_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = outbox(tmp_path)
    put(box, "a", now=100.0)
    (batch,) = take_all(box)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", _failing)
        assert box.tick(105.0) == 105.0 + RETRY_DISK_S
        assert box.disk_trouble
        put(box, "b", now=106.0)  # in memory, in a stream of its own
    assert box.tick(110.0) == 105.0 + RETRY_DISK_S
    assert box.unkept == 1
    box.tick(105.0 + RETRY_DISK_S)
    assert box.unkept == 0
    assert on_disk(tmp_path) == ["a"]
    acknowledge(box, batch, *take_all(box))
    assert (box.sent, box.queued, box.dropped) == (2, 0, 0)


def test_an_end_that_cannot_write_what_is_held_is_no_good_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    box = outbox(tmp_path)
    put(box, "a")
    (before,) = take_all(box)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", _failing)
        box.finish()
    assert "1 results are lost with it" in caplog.text
    heir = outbox(tmp_path)
    put(heir, "b")
    (after,) = take_all(heir)
    assert stream_of(after) != stream_of(before)


def _failing(fd: int, data: bytes, offset: int) -> int:  # noqa: ARG001
    raise OSError(5, "failing")


# --- everything at once


@pytest.mark.parametrize("seed", range(60))
def test_no_number_means_two_records_and_only_what_a_killed_process_held_is_lost(
    memory: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("edge_agent.mqtt.journal_writer.SEGMENT_BYTES", 600)
    monkeypatch.setattr("edge_agent.mqtt.journal_writer.EMPTY_BYTES", 300)
    monkeypatch.setattr("edge_agent.mqtt.journal.HELD_BYTES", 500)
    chance = random.Random(seed)
    made = partial(outbox, memory, batch_records=4, disk_bytes=1 << 20)
    box, in_flight = made(), list[Batch]()
    sent: dict[tuple[str, object], object] = {}
    streams: dict[str, set[int]] = {}
    count, now, lost, dropped = 0, 0.0, 0, 0

    def take() -> None:
        # A few are too large for some of the brokers: they become gaps.
        batch = box.take(max_bytes=chance.choice([300, 65_536]))
        if batch is None:
            return
        in_flight.append(batch)
        got = records(batch)
        streams.setdefault(stream_of(batch), set()).update(accounted(got))
        for record in got:
            if "gap" not in record:
                key = (stream_of(batch), record["seq"])
                assert sent.setdefault(key, record["item"]) == record["item"]

    for _ in range(300):
        now += chance.random() * 2
        match chance.randrange(9):
            case 0 | 1 | 2:
                for _ in range(chance.randrange(1, 6)):
                    box.put(f"{count}".ljust(chance.choice([20, 20, 20, 400])))
                    count += 1
                box.pack(1 << 20, now)
            case 3 | 4:
                take()
            case 5 | 6:
                while in_flight and chance.random() < 0.8:
                    box.acknowledge(in_flight.pop(0))
            case 7:
                box.tick(now)
            case 8:
                in_flight.clear()
                box.rewind()
                box.connected(chance.random() < 0.7, now)
                end = chance.random()
                if end < 0.6:
                    dropped += box.dropped
                    if end < 0.3:
                        box.finish()
                    else:
                        lost += box.unkept
                    box = made()
        assert box.queued >= 0
    in_flight.clear()
    box.rewind()
    while batch := box.take():
        got = records(batch)
        streams.setdefault(stream_of(batch), set()).update(accounted(got))
        for record in got:
            if "gap" not in record:
                key = (stream_of(batch), record["seq"])
                assert sent.setdefault(key, record["item"]) == record["item"]
        box.acknowledge(batch)
    assert box.queued == 0
    arrived = set(sent.values())
    assert len(arrived) == len(sent)  # none has two numbers
    dropped += box.dropped
    assert count - lost - dropped <= len(arrived) <= count
    assert sum(map(len, streams.values())) - len(sent) <= dropped  # no gap where none is
    for found in streams.values():
        assert found == set(range(1, max(found) + 1))
