"""What is noted while a board works: parts of the work, by what the log of its writes holds."""

from __future__ import annotations

import struct
from pathlib import Path

from tests.boards.fleet import FleetSide
from tests.powercuts.judge import Judge
from tests.powercuts.writelog import FLUSH, MAGIC, Cut, Fate

SECTOR = struct.Struct("<QQQQ480x")
HEADER = struct.pack("<QQQI484x", MAGIC, 1, 0, 512)


def test_the_power_goes_in_a_part_of_the_work(tmp_path: Path) -> None:
    log = tmp_path / "log"
    judge = Judge(FleetSide.__new__(FleetSide), log)  # nobody deploys here
    assert judge.length() == 0
    with log.open("wb", buffering=0) as file:
        file.write(HEADER)
        for part, flushes in (("set up", 2), ("at work", 3), ("at rest", 1)):
            judge.begins(part)
            file.write(SECTOR.pack(0, 0, FLUSH, 0) * flushes)
    judge.ends([])
    assert len(judge.log) == 6
    assert judge.begin_of_parts() == [0, 2, 5]
    parts = [judge.part(Cut(moment, 0, Fate.ALL_LOST, ())) for moment in range(7)]
    assert parts == ["set up"] * 2 + ["at work"] * 3 + ["at rest"] * 2
