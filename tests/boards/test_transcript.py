"""What a person reads of a board's test."""

from __future__ import annotations

import pytest

from tests.boards.transcript import Transcript


def test_each_step_says_what_was_seen_checked_and_how_long_it_took() -> None:
    lines: list[str] = []
    transcript = Transcript("arm64", lines.append)
    with transcript.step("boots"):
        transcript.saw("\n".join(f"line {number}" for number in range(5)), lines=3)
        transcript.check(True, "it is up")
    assert lines == [
        "\n== arm64: boots",
        "  | line 0",
        "  | line 1",
        "  | line 2",
        "  | ... and 2 lines more",
        "  ok: it is up",
        "  0 s",
    ]
    assert transcript.summary() == "arm64: 1 steps, 1 checks in 0 s"


def test_what_is_not_so_ends_the_step_and_is_told() -> None:
    lines: list[str] = []
    transcript = Transcript("arm64", lines.append)
    with pytest.raises(AssertionError, match="not so: it is up; down"), transcript.step("boots"):
        transcript.check(False, "it is up", "down")
    assert lines[-1] == "  FAILED after 0 s: not so: it is up; down"
    assert transcript.seconds == {}
