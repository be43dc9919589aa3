"""What must hold after a cut of the power, judged by what the node told before and after."""

from __future__ import annotations

import json
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest

from tests.powercuts.cutlog import Told, broken, by_label, known, went_on


def state(logged: int, accepted: int, board: str = "") -> Told:
    value = {"updates": {"accepted": accepted}, "labels": {"board": board}}
    return Told(logged, "state", json.dumps(value).encode())


def status(word: str) -> Told:
    return Told(0, "status", json.dumps({"status": word, "session": 1}).encode())


def results(logged: int, stream: str, **records: str) -> Told:
    """`_8="text"` is record 8."""
    batch = [{"gap": {"from": 1, "to": 7, "count": 7}}]
    batch += [{"seq": int(seq[1:]), "event": text} for seq, text in records.items()]  # type: ignore[dict-item]
    return Told(logged, "results", msgpack.packb({"stream": stream, "records": batch}))


def facts(accepted: int = 2, limit: int = 48, **more: Any) -> dict[str, Any]:
    updates = {"accepted": accepted, "trouble": ""}
    plugins = [{"name": "guard", "status": "running"}]
    return {
        "status": {"updates": updates, "plugins": plugins},
        "limit": limit,
        "error": "",
        **more,
    }


TOLD = [state(100, 1), results(150, "a", _8="x"), state(200, 2), results(300, "a", _9="y")]
NEW = [results(0, "b", _1="z")]


def judged(facts: dict[str, Any], after: list[Told], logged: int = 250) -> list[str]:
    return broken(known(TOLD, logged), facts, after, newest=3, limits=(48, 96))


def test_only_what_had_come_before_the_cut_is_known() -> None:
    assert known(TOLD, 99) == (0, {})
    assert known(TOLD, 150) == (1, {("a", 8): {"seq": 8, "event": "x"}})
    assert known(TOLD, 250).accepted == 2
    assert set(known(TOLD, 300).records) == {("a", 8), ("a", 9)}


def test_a_board_that_goes_on_or_begins_anew_is_whole() -> None:
    assert judged(facts(), NEW) == []
    assert judged(facts(accepted=3, limit=96), NEW) == []  # accepted, and not told any more
    # Sent again, as nobody acknowledged it, and then the next number.
    assert judged(facts(), [results(0, "a", _8="x", _9="other than what came later")]) == []


@pytest.mark.parametrize(
    ("found", "after", "word"),
    [
        (facts(accepted=1), NEW, "generation 2 was accepted, now it is 1"),
        (facts(accepted=4), NEW, "now it is 4"),
        (facts(limit=0, error="refused"), NEW, "of no release: refused"),
        (facts(), [], "no result came"),
        (facts(), [results(0, "a", _8="z")], "means two things"),
        ({"trouble": "it cannot be mounted"}, NEW, "it cannot be mounted"),
    ],
)
def test_what_must_not_be_is_told(found: dict[str, Any], after: list[Told], word: str) -> None:
    (wrong,) = judged(found, after)
    assert word in wrong


def test_plugins_and_the_disk_must_be_well() -> None:
    bad = facts()
    bad["status"]["updates"]["trouble"] = "no space"
    bad["status"]["plugins"].append({"name": "other", "status": "failed"})
    assert len(judged(bad, NEW)) == 2


def test_numbers_go_on_or_a_stream_begins() -> None:
    before = known(TOLD, 300)
    assert went_on(before, [results(0, "a", _10="z")])
    assert not went_on(before, [results(0, "a", _9="y"), *NEW])


def test_lives_are_told_apart_by_what_the_state_says() -> None:
    told = [
        *(status("online"), results(0, "a", _1="x"), state(0, 1, "vdb"), status("offline")),
        status("online"),  # and its end came before a state
        *(status("online"), state(0, 1, "vdc"), results(0, "b", _1="x"), status("lost")),
    ]
    lives = by_label(told, "board")
    assert {name: len(life) for name, life in lives.items()} == {"vdb": 4, "vdc": 4}
    assert lives["vdc"][2].payload == told[7].payload
