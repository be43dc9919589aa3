"""What an outbox on disk holds over the end of its process, of its machine, and of its disk."""

import contextlib
import errno
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.mqtt.journal import LEAST_BYTES, SYNC_S
from edge_agent.mqtt.journal_writer import EMPTY_BYTES, SEGMENT_BYTES
from edge_agent.mqtt.outbox import RETRY_DISK_S, Outbox
from edge_agent.mqtt.segment import HEADER_BYTES, read_header
from edge_agent.mqtt.stream import Batch
from tests.mqtt import test_outbox
from tests.mqtt.observer import accounted
from tests.mqtt.test_outbox import records, stream_of, take_all
from tests.support.smalldisk import small_disk

outbox = partial(test_outbox.outbox, queue_records=10_000)
OTHER_BOOT = b"this boot is two"
TEXT = "x" * 1000


def put(box: Outbox, *items: object, important: bool = False, now: float = 0.0) -> None:
    """Put and pack."""
    for item in items:
        box.put(item, important=important)
    box.pack(1 << 20, now)


def items(*batches: Batch) -> list[object]:
    """What the records of the batches say."""
    return [record["item"] for record in records(*batches)]


def files_of(folder: Path) -> list[Path]:
    """The segments."""
    return sorted(folder.glob("*.seg"))


def acknowledge(box: Outbox, *batches: Batch) -> None:
    """All of them."""
    for batch in batches:
        box.acknowledge(batch)


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Everything at once, files of a few records, and what is given up while it is in flight."""
    monkeypatch.setattr("edge_agent.mqtt.journal_writer.SEGMENT_BYTES", 600)
    monkeypatch.setattr("edge_agent.mqtt.journal_writer.EMPTY_BYTES", 300)
    chance = random.Random(seed)
    made = partial(outbox, tmp_path, batch_records=4, disk_bytes=8_000)
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
        assert box.journal.bytes == sum(file.stat().st_size for file in files_of(tmp_path))
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
    assert len(files_of(tmp_path)) <= 2


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


# --- the disk


@pytest.mark.system
def test_a_full_disk_is_told_once_and_results_go_on_in_memory_and_then_on_disk_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.store.files.RESERVED_BYTES", 0)
    with small_disk(tmp_path / "disk", 1024) as disk:
        folder = disk / "outbox"
        box = outbox(folder)
        put(box, "on disk")
        ballast = disk / "ballast"
        with pytest.raises(OSError, match="No space"):
            ballast.write_bytes(b"x" * 2_000_000)
        put(box, *[f"{number} {TEXT}" for number in range(100)], now=1.0)
        put(box, *[f"{number} {TEXT}" for number in range(100, 200)], now=2.0)
        assert "free some space" in box.disk_trouble
        assert len(caplog.records) == 1
        assert "in memory only" in caplog.text
        ballast.unlink()
        put(box, "too early", now=2.0)
        assert box.disk_trouble
        put(box, "on disk again", now=2.0 + RETRY_DISK_S)
        assert not box.disk_trouble
        batches = take_all(box)
        told = [str(item).split(" x")[0] for item in items(*batches)]
        assert told == ["on disk", "on disk again", *map(str, range(200)), "too early"]
        assert len({stream_of(batch) for batch in batches}) == 2
        acknowledge(box, *batches)
        assert (box.queued, box.sent, box.dropped) == (0, 203, 0)
        assert items(*take_all(outbox(folder))) == []


@pytest.mark.system
def test_the_disk_is_not_filled_up_to_its_last_byte(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 6 * 1024) as disk:
        box = outbox(disk / "outbox")
        put(box, "a")
        assert "8.0 MiB to stay free" in box.disk_trouble
        assert items(*take_all(box)) == ["a"]


@pytest.mark.system
def test_a_read_only_disk_gives_what_it_has_and_takes_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 16 * 1024) as disk:
        first = outbox(disk / "outbox")
        put(first, "old")
        first.finish()
        _remount(disk, "ro")
        box = outbox(disk / "outbox")
        put(box, "new")
        assert box.disk_trouble
        batches = take_all(box)
        assert items(*batches) == ["old", "new"]
        acknowledge(box, *batches)
        assert box.queued == 0
        _remount(disk, "rw")
        put(box, "later", now=RETRY_DISK_S)
        assert not box.disk_trouble
        assert items(*take_all(box)) == ["later"]


def _remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", disk], check=True)


def test_a_folder_that_cannot_be_made_is_told_and_tried_again(tmp_path: Path) -> None:
    (tmp_path / "in the way").write_text("")
    box = outbox(tmp_path / "in the way")
    put(box, "a")
    assert "in the way" in box.disk_trouble
    (tmp_path / "in the way").unlink()
    put(box, "b", now=RETRY_DISK_S)
    assert not box.disk_trouble
    assert items(*take_all(box)) == ["b", "a"]
    assert box.queued == 2


@pytest.mark.parametrize("name", ["pwrite", "open", "fdatasync", "ftruncate", "unlink"])
@pytest.mark.parametrize("after", [0, 1, 3])
@pytest.mark.parametrize("hold_s", [0.0, 5.0])
def test_a_failing_call_loses_and_repeats_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, after: int, hold_s: float
) -> None:
    box = outbox(tmp_path, hold_s=hold_s)
    box.connected(True, 0.0)
    put(box, *[f"{number} {TEXT}" for number in range(300)])
    acknowledge(box, *take_all(box)[:10])
    box.rewind()
    with _failing(monkeypatch, name, after):
        put(box, *[f"{number} {TEXT}" for number in range(300, 600)], now=1.0)
        acknowledge(box, *take_all(box)[:20])
        box.tick(1.0 + SYNC_S)
    box.rewind()
    put(box, *[f"{number} {TEXT}" for number in range(600, 700)], now=2.0 + RETRY_DISK_S)
    for batch in take_all(box):
        box.acknowledge(batch)
    assert (box.queued, box.sent, box.dropped) == (0, 700, 0)
    box.finish()
    again = outbox(tmp_path)
    assert again.queued == len(records(*take_all(again))) <= 300


@pytest.mark.parametrize("cut_fails", [False, True])
@pytest.mark.parametrize("hold_s", [0.0, 5.0])
def test_what_was_written_in_part_is_never_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_fails: bool, hold_s: float
) -> None:
    """Those records are in memory, with other numbers; the disk's own go to later ones. What is
    held keeps its numbers, and is written again."""
    box = outbox(tmp_path, batch_records=100, hold_s=hold_s)
    box.connected(True, 0.0)
    put(box, *range(10))
    box.connected(hold_s > 0, 0.0)
    with _failing(monkeypatch, "pwrite", 0), contextlib.ExitStack() as more:
        if cut_fails:
            more.enter_context(_failing(monkeypatch, "ftruncate", 0))
        box.connected(False, 1.0)
        put(box, *range(100, 200), now=1.0)
    put(box, *range(200, 300), now=2.0 + RETRY_DISK_S)
    sent = {
        (stream_of(batch), record["seq"]): record["item"]
        for batch in take_all(box)
        for record in records(batch)
    }
    assert sorted(map(int, map(str, sent.values()))) == [*range(10), *range(100, 300)]
    again = outbox(tmp_path, batch_records=100)
    put(again, "more")
    for batch in take_all(again):
        for record in records(batch):
            key = (stream_of(batch), record["seq"])
            assert sent.setdefault(key, record["item"]) == record["item"]
    # Where the disk takes neither the rest nor the cut, the next process sends it once more.
    assert cut_fails or len(set(map(str, sent.values()))) == len(sent)


@contextmanager
def _failing(monkeypatch: pytest.MonkeyPatch, name: str, after: int) -> Iterator[None]:
    """The `after`th call of os.`name` and all later ones fail, a write half done."""
    real: Callable[..., object] = getattr(os, name)
    calls = 0

    def fails(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls <= after:
            return real(*arguments, **options)
        if name == "pwrite":
            fd, data, at = arguments
            assert isinstance(data, memoryview)
            real(fd, data[: len(data) // 2], at)
        raise OSError(errno.EMFILE if name == "open" else errno.EIO, "failing")

    with monkeypatch.context() as patch:
        patch.setattr(os, name, fails)
        yield


# --- loss of power


class Machine:
    """A disk that keeps what was synced, and perhaps some of the rest."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._synced: dict[str, bytes] = {}
        real = os.fdatasync

        def fdatasync(fd: int) -> None:
            real(fd)
            path = Path(f"/proc/self/fd/{fd}").readlink()
            self._synced[path.name] = path.read_bytes()

        monkeypatch.setattr(os, "fdatasync", fdatasync)

    def lose_power(self, chance: random.Random) -> None:
        """Each file is as it was synced last, or as the kernel may have written it since."""
        for file in files_of(self._folder):
            now, synced = file.read_bytes(), self._synced.get(file.name)
            if synced is None and chance.random() < 0.5:
                file.unlink()  # not even its name
            elif chance.random() < 0.8:
                reached = chance.randrange(
                    len(synced or b""), max(len(now), len(synced or b"")) + 1
                )
                content = bytearray(now[:reached])
                if synced is not None and chance.random() < 0.5:
                    content[:HEADER_BYTES] = synced[:HEADER_BYTES]
                file.write_bytes(content)


@pytest.mark.parametrize("hold_s", [0.0, 5.0])
@pytest.mark.parametrize("seed", range(40))
def test_no_number_is_ever_given_to_two_records_whatever_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, hold_s: float
) -> None:
    """A consumer would take the second one for a duplicate: lost without a trace."""
    chance = random.Random(seed)
    machine = Machine(tmp_path, monkeypatch)
    given_to: dict[tuple[str, object], object] = {}
    count, now = 0, 0.0
    for boot in range(6):
        for _life in range(chance.randrange(1, 4)):
            box = outbox(tmp_path, boot=b"boot number %4d" % boot, batch_records=20, hold_s=hold_s)
            box.connected(True, now)
            for _ in range(chance.randrange(1, 60)):
                now += chance.random() * 10
                fresh = [f"{count + each} {TEXT}" for each in range(chance.randrange(40))]
                count += len(fresh)
                put(box, *fresh, now=now)
                for _ in range(chance.randrange(4)):
                    batch = box.take()
                    if batch is None:
                        break
                    for record in records(batch):
                        if "gap" not in record:
                            key = (stream_of(batch), record["seq"])
                            assert given_to.setdefault(key, record["item"]) == record["item"]
                    if chance.random() < 0.8:
                        box.acknowledge(batch)
                if chance.random() < 0.1:
                    box.rewind()
                    box.connected(chance.random() < 0.7, now)
                box.tick(now)
            if chance.random() < 0.3:
                box.finish()
        machine.lose_power(chance)
    assert count > 100


def test_what_waits_long_is_synced_and_what_was_acknowledged_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = 0
    real = os.fdatasync

    def fdatasync(fd: int) -> None:
        nonlocal synced
        synced += 1
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    box = outbox(tmp_path)
    put(box, "a", now=100.0)
    assert synced == 1  # that numbers are used now
    assert box.tick(100.0) == 100.0 + SYNC_S
    acknowledge(box, *take_all(box))
    assert box.tick(100.0 + SYNC_S) == float("inf")
    assert synced == 1
    put(box, "b", now=200.0)
    put(box, "c", now=220.0)
    assert box.tick(200.0 + SYNC_S) == float("inf")
    assert synced == 2


def test_a_header_tells_what_the_broker_has_before_a_file_goes(tmp_path: Path) -> None:
    box = outbox(tmp_path, batch_records=100)
    put(box, *[TEXT] * 500)
    batches = take_all(box)[:6]
    acknowledge(box, *batches)
    last = read_header(files_of(tmp_path)[-1].read_bytes())
    assert last is not None
    assert len(files_of(tmp_path)) == 1
    assert last.first <= last.acknowledged <= batches[-1].last


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
