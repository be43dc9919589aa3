"""Disks as cuts of the power leave them, from a log that QEMU wrote."""

from __future__ import annotations

import base64
import random
import struct
import zlib
from pathlib import Path

import pytest

from tests.powercuts.writelog import (
    DISCARD,
    FLUSH,
    MAGIC,
    Cut,
    Fate,
    LogError,
    Replay,
    Write,
    cut,
    cuts,
    requests,
)

# By qemu-system-x86_64 7.2 with driver=blklogwrites: "write -P 7 4096 8192", "flush",
# "write -P 9 0 512", "write -z 8192 4096", and the flush when the disk is given back.
RECORDED = zlib.decompress(
    base64.b85decode(
        b"c-rmSAr62r5Cp(02?1PRNeGe(zK@`)KY*Jt>u=p<ucO_2JEO#F?io{%z}mAqMM?_*00000008iL;~t=xM5LtmoHkOc"
        b"!wwJt004l0^9Ro50ZXR!Lj"
    )
)
DISK = 64 << 10


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.write_bytes(RECORDED)
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base"
    path.write_bytes(b"\1" * DISK)
    return path


def test_what_qemu_recorded_is_read(log: Path) -> None:
    found = requests(log)
    assert [(each.start, each.size, each.flush) for each in found] == [
        (4096, 8192, False),
        (0, 0, True),
        (0, 512, False),
        (8192, 4096, False),
        (0, 0, True),
    ]
    assert [each.end for each in found] == sorted(each.end for each in found)
    assert found[-1].end == len(RECORDED)


@pytest.mark.parametrize("left", [1, 511, 512, 513, 1024 + 4095])
def test_a_request_that_is_not_whole_is_left_out(log: Path, left: int) -> None:
    whole = requests(log)
    log.write_bytes(RECORDED[:-left])
    assert requests(log) == [each for each in whole if each.end <= len(RECORDED) - left]


def test_space_that_was_not_written_yet_ends_the_log(log: Path) -> None:
    whole = requests(log)
    log.write_bytes(RECORDED + bytes(4096))
    assert requests(log) == whole


@pytest.mark.parametrize("raw", [b"", b"x" * 600, struct.pack("<QQQI", MAGIC, 2, 0, 512)])
def test_what_is_no_log_is_an_error(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(raw)
    with pytest.raises(LogError):
        requests(path)


def disk_after(state: Cut, log: Path, base: Path) -> bytes:
    made = base.with_name("made")
    Replay(log, base).make(state, made)
    return made.read_bytes()


def test_what_was_flushed_is_there_and_nothing_else_if_all_is_lost(log: Path, base: Path) -> None:
    state = cut(requests(log), 4, Fate.ALL_LOST, random.Random(1))
    assert disk_after(state, log, base) == b"\1" * 4096 + b"\7" * 8192 + b"\1" * (DISK - 12288)


def test_all_is_there_if_nothing_is_lost(log: Path, base: Path) -> None:
    state = cut(requests(log), 4, Fate.NONE_LOST, random.Random(1))
    expected = b"\x09" * 512 + b"\1" * 3584 + b"\7" * 4096 + bytes(4096) + b"\1" * (DISK - 12288)
    assert disk_after(state, log, base) == expected


def test_each_write_that_was_not_flushed_may_be_lost_by_itself(log: Path) -> None:
    found = requests(log)
    chance = random.Random(1)
    seen = {
        frozenset(number for number, _ in cut(found, 4, Fate.SOME_LOST, chance).survivors)
        for _ in range(100)
    }
    assert seen == {frozenset(), frozenset({2}), frozenset({3}), frozenset({2, 3})}


def test_a_torn_write_has_its_first_sectors(log: Path, base: Path) -> None:
    state = Cut(4, 2, Fate.TORN, ((3, 512),))
    made = disk_after(state, log, base)
    assert made[8192:12288] == bytes(512) + b"\7" * 3584
    found = requests(log)
    chance = random.Random(1)
    sizes = {size for _ in range(200) for _, size in cut(found, 4, Fate.TORN, chance).survivors}
    assert {0, 512, 1024, 4096} <= sizes
    assert all(size % 512 == 0 and size <= 4096 for size in sizes)


def test_cuts_come_in_order_after_the_beginning_and_are_the_same_for_a_seed() -> None:
    log = [Write(number * 512, 512, 0, number, flush=number % 7 == 0) for number in range(500)]
    found = cuts(log, 200, seed=3, begins=[100])
    assert found == cuts(log, 200, seed=3, begins=[100]) != cuts(log, 200, seed=4, begins=[100])
    moments = [each.requests for each in found]
    assert moments == sorted(moments)
    assert moments[0] >= 100
    assert {each.fate for each in found} == set(Fate)
    for each in found:
        assert each.flushed <= each.requests
        assert each.flushed == 0 or log[each.flushed - 1].flush
        assert all(each.flushed <= number < each.requests for number, _ in each.survivors)


def test_each_part_of_a_log_has_its_share_of_the_cuts() -> None:
    log = [Write(number * 512, 512, 0, number) for number in range(1000)]
    moments = [each.requests for each in cuts(log, 90, seed=3, begins=[100, 110, 900])]
    assert moments == sorted(moments)
    assert sum(100 <= each <= 110 for each in moments) >= 30
    assert sum(900 <= each <= 1000 for each in moments) >= 30


def test_several_cuts_of_one_log_are_made_one_after_the_other(log: Path, base: Path) -> None:
    found = requests(log)
    chance = random.Random(1)
    replay = Replay(log, base)
    contents = []
    for moment in range(len(found) + 1):
        made = base.with_name(f"made-{moment}")
        replay.make(cut(found, moment, Fate.NONE_LOST, chance), made)
        contents.append(made.read_bytes())
    assert contents[0] == b"\1" * DISK
    assert contents[1] == contents[2] != contents[0]
    assert contents[4] == contents[5]
    with pytest.raises(ValueError, match="earlier"):
        replay.make(cut(found, 1, Fate.NONE_LOST, chance), base.with_name("again"))


def test_one_disk_is_turned_into_what_each_cut_left(log: Path, base: Path) -> None:
    found = requests(log)
    chance = random.Random(1)
    states = [cut(found, moment, fate, chance) for moment in range(len(found) + 1) for fate in Fate]
    again = base.with_name("again")
    again.write_bytes(base.read_bytes())
    disk = base.with_name("disk")
    disk.write_bytes(base.read_bytes())
    turning, making = Replay(log, base), Replay(log, again)
    written: list[Write] = []
    for state in states:
        turning.turn(state, disk, written)
        making.make(state, base.with_name("made"))
        assert disk.read_bytes() == base.with_name("made").read_bytes()
        # Who looks at the disk writes to it, too.
        written = [Write(0, 512, 0, 0), Write(8192 - 512, 1024, 0, 0)]
        with disk.open("r+b") as file:
            for each in written:
                file.seek(each.start)
                file.write(b"\xee" * each.size)


def test_what_came_later_is_read_by_itself(log: Path) -> None:
    whole = requests(log)
    for number, each in enumerate(whole):
        assert requests(log, each.end) == whole[number + 1 :]


def test_a_discarded_place_reads_as_zeros(tmp_path: Path, base: Path) -> None:
    log = tmp_path / "log"
    sector = struct.Struct("<QQQQ480x")
    head = struct.pack("<QQQI", MAGIC, 1, 2, 512).ljust(512, b"\0")
    log.write_bytes(head + sector.pack(8, 8, DISCARD, 0) + sector.pack(0, 0, FLUSH, 0))
    state = cut(requests(log), 2, Fate.ALL_LOST, random.Random(1))
    assert disk_after(state, log, base) == b"\1" * 4096 + bytes(4096) + b"\1" * (DISK - 8192)
