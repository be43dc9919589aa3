"""scripts/count-instructions: counts are compared as its page says, and a longer path is found."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.benchmarks import instructions
from scripts.benchmarks.counted_agent import EMPTY, FEW, MANY
from scripts.benchmarks.instructions import Counts, differences, judge, lesser, read, written
from tests.support import tiers
from tests.support.gobuild import ROOT

THEN = Counts({"python": "3.11.7"}, 1000, {"a part": 100_000}, "because")


def test_growth_within_the_bound_passes_and_more_does_not() -> None:
    assert judge(THEN, replace(THEN, parts={"a part": 105_000})) == (
        ["a part: 105,000, +5.0%"],
        [],
    )
    lines, grown = judge(THEN, replace(THEN, parts={"a part": 105_100}))
    assert grown
    assert "more than 5%" in lines[1]


def test_what_became_cheaper_passes_and_is_to_be_written_down() -> None:
    lines, grown = judge(THEN, replace(THEN, parts={"a part": 60_000}))
    assert not grown
    assert lines[0] == "a part: 60,000, -40.0%"
    assert "cheaper" in lines[1]


def test_a_part_of_which_the_file_says_nothing_does_not_pass() -> None:
    _, grown = judge(THEN, replace(THEN, parts={"another": 1}))
    assert grown


def test_with_other_programs_the_ratio_to_the_reference_is_compared_and_said() -> None:
    """A Python that takes half for everything: the same path passes, one twice as long does not."""
    other = Counts({"python": "3.13.0"}, 500, {"a part": 50_000})
    lines, grown = judge(THEN, other)
    assert not grown
    assert lines[0].startswith("NOTE: counted with other programs (python 3.11.7, here 3.13.0)")
    _, grown = judge(THEN, replace(other, parts={"a part": 100_000}))
    assert grown


def test_what_grew_counts_by_the_lesser_of_two_counts() -> None:
    one, two = Counts({}, 1, {"a": 10, "b": 5}), Counts({}, 1, {"a": 7})
    assert lesser(one, two).parts == {"a": 7, "b": 5}
    assert lesser(replace(one, parts={"a": 6}), two).parts == {"a": 6}


def test_the_file_is_read_as_it_is_written(tmp_path: Path) -> None:
    counts = Counts({"python": 'it said "3.11" \\ so'}, 7, {"C plugin, published": 3}, 'a "why"')
    (tmp_path / "counts.toml").write_text(written(counts))
    assert read(tmp_path / "counts.toml") == counts


def test_the_file_that_is_checked_in_has_each_part_and_a_reason() -> None:
    counts = read(instructions.FILE)
    assert tuple(counts.parts) == instructions.PARTS
    assert counts.why


def test_what_is_not_of_each_round_falls_out() -> None:
    dump = "desc: Trigger: Client Request: a part {}\ntotals: {}\n"
    disturbed = {(FEW, 0): 5000, (MANY, 1): 300}
    dumps = [
        dump.format(rounds, 12_345 + 10 * rounds + disturbed.get((rounds, series), 0))
        for series in range(3)
        for rounds in (FEW, MANY)
    ]
    assert differences([*dumps, "desc: Trigger: Program termination\ntotals: 5\n"]) == {
        "a part": 10
    }


@pytest.mark.system
@pytest.mark.not_emulated("valgrind runs on the machine's own processor")
def test_an_event_that_takes_longer_is_found() -> None:
    """The real count of the real agent, with a short loop at each event and without one."""
    tiers.system("valgrind")
    plain, burdened = _counted(), _counted("--burden", "2000")
    assert plain.returncode == 0, plain.stdout + plain.stderr
    assert burdened.returncode == 1, burdened.stdout + burdened.stderr
    assert "more than" in burdened.stdout
    # A turn of the loop is at least an instruction of the machine.
    assert _count(burdened) > _count(plain) + 2000


def _counted(*options: str) -> "subprocess.CompletedProcess[str]":
    command = [str(ROOT / "scripts" / "count-instructions"), "--part", EMPTY, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _count(done: "subprocess.CompletedProcess[str]") -> int:
    found = re.findall(rf"^{EMPTY}: ([\d,]+)", done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr
    return int(found[-1].replace(",", ""))
