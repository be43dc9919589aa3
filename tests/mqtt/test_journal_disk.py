"""What an outbox does on a disk that is full, read-only, failing, or loses its power."""

import contextlib
import errno
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from edge_agent.mqtt.journal import LEAST_BYTES, SYNC_S
from edge_agent.mqtt.journal_writer import EMPTY_BYTES, SEGMENT_BYTES
from edge_agent.mqtt.outbox import RETRY_DISK_S
from edge_agent.mqtt.segment import HEADER_BYTES, read_header
from tests.mqtt import outboxes
from tests.mqtt.outboxes import (
    acknowledge,
    files_of,
    items,
    put,
    records,
    stream_of,
    take_all,
)
from tests.support.smalldisk import small_disk

outbox = partial(outboxes.outbox, queue_records=10_000)
TEXT = "x" * 1000


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
    memory: Path, monkeypatch: pytest.MonkeyPatch, seed: int, hold_s: float
) -> None:
    """A consumer would take the second one for a duplicate: lost without a trace."""
    # All is a quarter of what it is on boards, the bound and the files too: as much happens.
    monkeypatch.setattr("edge_agent.mqtt.journal_writer.SEGMENT_BYTES", SEGMENT_BYTES // 4)
    monkeypatch.setattr("edge_agent.mqtt.journal_writer.EMPTY_BYTES", EMPTY_BYTES // 4)
    bound = LEAST_BYTES // 4
    made = partial(outbox, memory, batch_records=5, hold_s=hold_s, disk_bytes=bound)
    chance = random.Random(seed)
    machine = Machine(memory, monkeypatch)
    given_to: dict[tuple[str, object], object] = {}
    count, now = 0, 0.0
    for boot in range(6):
        for _life in range(chance.randrange(1, 4)):
            box = made(boot=b"boot number %4d" % boot)
            box.connected(True, now)
            for _ in range(chance.randrange(1, 60)):
                now += chance.random() * 10
                fresh = [f"{count + each} {TEXT}" for each in range(chance.randrange(10))]
                count += len(fresh)
                put(box, *fresh, now=now)
                for _ in range(chance.randrange(4)):
                    batch = box.take()
                    if batch is None:
                        break
                    stream = stream_of(batch)
                    for record in records(batch):
                        if "gap" not in record:
                            key = (stream, record["seq"])
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
