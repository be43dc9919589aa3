"""What must hold after a cut of the power, judged by what the node told before and after."""

from __future__ import annotations

import json
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest

from tests.powercuts.cutlog import Deployed, Told, broken, known, late_releases, went_on


def state(logged: int, accepted: int, runs: int) -> Told:
    value = {"updates": {"accepted": accepted, "generation": runs}}
    return Told(logged, "state", json.dumps(value).encode())


def results(logged: int, stream: str, **records: str) -> Told:
    """`_8="text"` is record 8."""
    batch = [{"gap": {"from": 1, "to": 7, "count": 7}}]
    batch += [{"seq": int(seq[1:]), "event": text} for seq, text in records.items()]  # type: ignore[dict-item]
    return Told(logged, "results", msgpack.packb({"stream": stream, "records": batch}))


def facts(accepted: int = 2, runs: int = 1, limit: int = 48, **more: Any) -> dict[str, Any]:
    updates = {"accepted": accepted, "generation": runs, "trouble": "", "rejected": {}}
    plugins = [{"name": "guard", "status": "running"}]
    return {
        "status": {"updates": updates, "plugins": plugins},
        "limit": limit,
        "error": "",
        **more,
    }


TOLD = [
    state(100, 1, 1),
    results(150, "a", _8="x"),
    state(200, 2, 1),
    results(300, "a", _9="y"),
    state(400, 3, 3),
]
DEPLOYED = [Deployed(1, 0, 48), Deployed(2, 180, 96), Deployed(3, 350, 32)]
NEW = [results(0, "b", _1="z")]


def judged(facts: dict[str, Any], after: list[Told], logged: int = 250) -> list[str]:
    return broken(known(TOLD, logged, DEPLOYED), facts, after)


def test_only_what_had_come_before_the_cut_is_known() -> None:
    assert known(TOLD, 99, DEPLOYED) == (0, 0, {}, DEPLOYED[:1], [])
    assert known(TOLD, 150, DEPLOYED)[:3] == (1, 1, {("a", 8): {"seq": 8, "event": "x"}})
    assert known(TOLD, 250, DEPLOYED).accepted == 2
    assert known(TOLD, 250, DEPLOYED).possible == DEPLOYED[:2]
    assert set(known(TOLD, 300, DEPLOYED).records) == {("a", 8), ("a", 9)}
    assert known(TOLD, 400, DEPLOYED).possible == DEPLOYED[2:]
    assert known(TOLD, 400, DEPLOYED).fallback == DEPLOYED[:2]


def test_a_board_that_goes_on_or_begins_anew_is_whole() -> None:
    assert judged(facts(), NEW) == []
    assert judged(facts(runs=2, limit=96), NEW) == []
    assert judged(facts(accepted=3), NEW, 350) == []  # accepted, and not told any more
    # Sent again, as nobody acknowledged it, and then the next number.
    assert judged(facts(), [results(0, "a", _8="x", _9="other than what came later")]) == []


@pytest.mark.parametrize(
    ("found", "after", "word"),
    [
        (facts(accepted=1), NEW, "generation 2 was accepted, now it is 1"),
        (facts(accepted=3), NEW, "now it is 3"),  # that was deployed later
        (facts(runs=0), NEW, "generation 0 runs, and not one of [1, 2]"),
        (facts(runs=3), NEW, "generation 3 runs, and not one of [1, 2]"),
        (facts(limit=0, error="refused"), NEW, "of no release: refused"),
        (facts(limit=32), NEW, "a container has 32, of no release"),
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


def told(runs: int, status: str, **rejected: str) -> Told:
    updates = {"accepted": runs, "generation": runs, "rejected": rejected}
    value = {"updates": updates, "plugins": [{"name": "guard", "status": status}]}
    return Told(100 * runs, "state", json.dumps(value).encode())


def test_a_release_that_was_late_is_rejected_and_the_one_kept_before_runs() -> None:
    """A starved emulator: the generation stays, docs/fleet-protocol.md, Rejected."""
    states = [told(1, "running"), told(2, "running"), told(3, "probation")]
    before = known(states, 400, DEPLOYED)
    assert (before.possible, before.fallback) == (DEPLOYED[2:], DEPLOYED[1:2])
    found = facts(accepted=3, runs=3, limit=96)
    (wrong,) = broken(before, found, NEW)
    assert "a container has 96, of no release" in wrong
    rejected = found["status"]["updates"]["rejected"]
    rejected["sha256:1"] = "timeout: plugin_create_container: stopped after 1 s, its limit"
    assert broken(before, found, NEW) == []
    assert late_releases(found) == [rejected["sha256:1"]]
    (wrong,) = broken(before, {**found, "limit": 48}, NEW)
    assert "a container has 48, of no release" in wrong
    rejected["sha256:1"] = "trap: unreachable"
    (wrong,) = broken(before, found, NEW)
    assert "a good release was rejected" in wrong
    assert "trap: unreachable" in wrong


def test_a_bad_release_leads_back_to_the_last_that_was_kept() -> None:
    """Whatever was deployed between both, but was still on probation."""
    deployed = [*DEPLOYED[:2], DEPLOYED[2]._replace(limit=96, bad=True)]
    found = facts(accepted=3, runs=3, limit=48)
    found["status"]["updates"]["rejected"]["sha256:2"] = "trap: unreachable"
    states = [told(1, "running"), told(2, "probation"), told(3, "probation")]
    assert broken(known(states, 400, deployed), found, NEW) == []
    states[1] = told(2, "running")
    (wrong,) = broken(known(states, 400, deployed), found, NEW)
    assert "a container has 48, of no release" in wrong
    # What runs once a release was rejected is not this generation's.
    assert known([*states, told(3, "running", two="trap")], 400, deployed).fallback == DEPLOYED[1:2]


def test_a_disk_that_lost_what_was_flushed_is_found() -> None:
    """All that was told, and the disk as it was when the first deployment ran."""
    wrong = judged(facts(accepted=1), [results(0, "a", _8="other")], 400)
    assert len(wrong) == 4
    for number, word in enumerate(("3 was accepted", "1 runs", "has 48", "means two things")):
        assert word in wrong[number]


def test_numbers_go_on_or_a_stream_begins() -> None:
    before = known(TOLD, 300, DEPLOYED)
    assert went_on(before, [results(0, "a", _10="z")])
    assert not went_on(before, [results(0, "a", _9="y"), *NEW])
