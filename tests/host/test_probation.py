"""Whether a new release is kept: the rule by itself, and at the slots of a supervisor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.config import PluginSettings
from edge_agent.host.probation import (
    EARLIEST_SHARE,
    MAX_REASON_CHARS,
    Trial,
    Trials,
    Verdict,
)
from edge_agent.loop import Loop
from edge_agent.pb import nri_pb2
from edge_agent.sim.runtime import SimRuntime
from edge_agent.store.digest import Digest
from edge_agent.store.release import Probation, Release
from tests.host.house import House
from tests.support.wat import constant

HERE, THERE = object(), object()  # runtimes
LONG = Probation(events=1_000_000, seconds=3600, allowed_failures=0)
SHORT = Probation(events=0, seconds=0.1, allowed_failures=0)


def trial(events: int = 20, seconds: float = 60.0, allowed: int = 0) -> Trial:
    return Trial(Probation(events, seconds, allowed), lambda: None)


def answer(tried: Trial, times: int) -> None:
    for _ in range(times):
        tried.answered()


# --- the rule


def test_time_alone_is_enough() -> None:
    tried = trial()
    tried.serves(HERE, 1000.0)
    tried.look(1059.9)
    assert tried.open
    assert tried.remaining_s == pytest.approx(0.1)
    tried.look(1060.0)
    assert tried.verdict == Verdict(True, "0 events in 60 s")
    assert tried.remaining_s is None


def test_events_end_it_early_but_not_at_once() -> None:
    tried = trial()
    tried.serves(HERE, 0.0)
    answer(tried, 20)
    tried.look(60 * EARLIEST_SHARE - 0.1)
    assert tried.open
    tried.look(60 * EARLIEST_SHARE)
    assert tried.verdict == Verdict(True, "20 events in 6 s")


def test_one_event_less_does_not_end_it_early() -> None:
    tried = trial()
    tried.serves(HERE, 0.0)
    answer(tried, 19)
    tried.look(59.0)
    assert tried.open


def test_events_that_are_set_to_zero_end_nothing() -> None:
    tried = trial(events=0)
    tried.serves(HERE, 0.0)
    tried.look(59.0)
    assert tried.open


def test_time_counts_only_while_it_serves_somewhere() -> None:
    tried = trial()
    tried.look(100.0)
    assert tried.remaining_s is None
    tried.serves(HERE, 100.0)
    tried.serves(THERE, 110.0)  # two at a time count once
    tried.rests(HERE, 130.0)
    tried.rests(THERE, 140.0)
    tried.rests(THERE, 141.0)  # told twice
    tried.look(500.0)
    assert tried.open
    assert tried.remaining_s is None
    tried.serves(THERE, 500.0)
    assert tried.remaining_s == pytest.approx(20.0)
    tried.look(520.0)
    assert tried.verdict is not None
    assert tried.verdict.kept


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    tried = trial()
    tried.serves(HERE, 100.0)
    tried.look(50.0)
    tried.look(50.0)
    assert tried.remaining_s == pytest.approx(60.0)


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_one_failure_more_than_allowed_rejects(allowed: int) -> None:
    tried = trial(allowed=allowed)
    tried.serves(HERE, 0.0)
    for number in range(allowed):
        tried.failed(f"trap {number}")
        assert tried.open
    tried.failed("the last straw")
    assert tried.verdict is not None
    assert not tried.verdict.kept
    assert tried.verdict.reason.endswith("the last straw")


def test_a_failure_before_it_ever_served_counts() -> None:
    tried = trial()
    tried.failed("start: refused")
    assert tried.verdict == Verdict(False, "start: refused")


def test_what_can_never_succeed_rejects_whatever_is_allowed() -> None:
    tried = trial(allowed=1000)
    tried.failed("not a module", final=True)
    assert tried.verdict == Verdict(False, "not a module")


def test_a_verdict_stands() -> None:
    kept, rejected = trial(), trial()
    kept.serves(HERE, 0.0)
    kept.look(60.0)
    kept.failed("later")
    assert kept.verdict is not None
    assert kept.verdict.kept
    rejected.failed("first")
    rejected.failed("second")
    rejected.serves(HERE, 0.0)
    rejected.look(60.0)
    assert rejected.verdict == Verdict(False, "first")


def test_a_verdict_on_its_way_does_not_meet_the_release_that_follows() -> None:
    # Told apart by digest alone, another configuration of the module would be kept, or rejected.
    told: list[tuple[str, str, bool, str]] = []
    digest = Digest.of_hex("00" * 32)
    before = Release("10", "guard", digest, 8, "a", PluginSettings(), "1", probation=LONG)
    with Loop() as loop:
        trials = Trials(loop, lambda *verdict: told.append(verdict))
        tried = trials.of(before)
        assert tried is not None
        tried.failed("trap", final=True)
        assert trials.of(replace(before, config="b")) is not tried
        loop.call_soon(lambda: None)
        loop.turn()
        assert told == []


def test_a_reason_is_bounded() -> None:
    tried = trial()
    tried.failed("x" * 10_000)
    assert tried.verdict is not None
    assert len(tried.verdict.reason) == MAX_REASON_CHARS


def test_news_come_when_there_is_something_to_look_at() -> None:
    told: list[str] = []
    tried = Trial(Probation(2, 60.0, 1), lambda: told.append("news"))
    tried.serves(HERE, 0.0)
    assert len(told) == 1
    answer(tried, 1)
    assert len(told) == 1
    answer(tried, 2)  # the second is enough
    assert len(told) == 2
    tried.failed("one")
    assert len(told) == 2
    tried.rests(HERE, 1.0)
    assert len(told) == 3
    tried.failed("two")
    tried.failed("three")
    assert len(told) == 4


# --- at the slots


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    with House(tmp_path) as house:
        yield house


def tried(release: Release, terms: Probation = LONG) -> Release:
    return replace(release, probation=terms, version="2.0.0")


def create(house: House, name: str = "c") -> str:
    """A container in a pod of its own; its error, "" if it was created."""
    pod = house.during(lambda: house.runtime.run_pod(f"p-{name}")).pod
    return house.during(lambda: house.runtime.create_container(pod, name)).error


def until_judged(house: House, verdicts: int = 1) -> None:
    house.until(lambda: len(house.verdicts) >= verdicts, "a verdict")


def test_a_release_that_serves_is_kept_and_its_guest_stays(house: House) -> None:
    release = house.release("10-edge", "edge")
    house.apply(tried(release, Probation(0, 0.5, 0)))
    house.until(lambda: house.status("10-edge") == "probation", "it serves")
    assert house.entry("10-edge")["version"] == "2.0.0"
    assert house.supervisor.runtimes()[0]["state"] == "connected"
    until_judged(house)
    [verdict] = house.verdicts
    assert (verdict.identity, verdict.digest, verdict.kept) == ("10-edge", release.digest, True)
    assert house.status("10-edge") == "running"
    guest = house.slot("10-edge").plugin
    house.apply(release)  # as the updater does then
    create(house)
    assert house.slot("10-edge").plugin is guest
    assert house.entry("10-edge")["restarts"] == 0
    assert len(house.verdicts) == 1


def test_enough_events_end_it_before_its_time(house: House) -> None:
    house.run(tried(house.release("10-edge", "edge"), Probation(2, 20.0, 0)))
    create(house)
    create(house, "d")
    until_judged(house)
    assert house.verdicts[0].kept
    assert house.verdicts[0].reason.startswith("2 events in ")
    assert not house.verdicts[0].reason.endswith(" 20 s")


def test_one_that_fails_to_start_never_takes_over_and_the_incumbent_stays(house: House) -> None:
    good = house.release("10-hostile", "hostile", config="* : ok\n")
    house.run(good)
    guest, since = house.slot("10-hostile").plugin, house.entry("10-hostile")["since"]
    bad = ("configure:trap\n", "configure:error\n", "synchronize:trap\n")
    for number, config in enumerate(bad):
        house.apply(tried(replace(good, config=config)))
        until_judged(house, number + 1)
        assert not house.verdicts[-1].kept
        house.apply(good)
        assert create(house, f"c{number}") == ""
        assert house.slot("10-hostile").plugin is guest
    entry = house.entry("10-hostile")
    assert (entry["since"], entry["restarts"], entry["status"]) == (since, 0, "running")
    assert len(house.verdicts) == 3


def test_one_that_fails_on_what_it_is_shown_never_takes_over(house: House) -> None:
    good = house.release("10-hostile", "hostile", config="* : ok\n")
    house.run(good)
    guest = house.slot("10-hostile").plugin
    pod = house.during(lambda: house.runtime.run_pod("p")).pod
    house.apply(tried(replace(good, config="create_container:trap\n")))
    house.until(lambda: house.hands_over("10-hostile"), "both are there")
    assert house.during(lambda: house.runtime.create_container(pod, "c")).ok
    until_judged(house)
    assert house.verdicts[0].reason.startswith("trap: ")
    house.apply(good)
    assert create(house, "d") == ""
    assert house.slot("10-hostile").plugin is guest


def test_one_that_fails_later_goes_and_the_one_before_comes_back(house: House) -> None:
    good = house.release("10-hostile", "hostile", config="* : ok\n")
    house.run(good)
    bad = tried(replace(good, config="create_container:trap\n"))
    house.run(bad)  # nothing happened meanwhile
    assert "10-hostile" in create(house)
    until_judged(house)
    assert [(each.digest, each.kept) for each in house.verdicts] == [(good.digest, False)]
    house.run(good)
    assert create(house, "d") == ""
    assert house.entry("10-hostile")["restarts"] == 2
    assert house.entry("10-hostile")["status"] == "running"


def test_the_state_tells_that_the_configuration_before_still_answers(house: House) -> None:
    """Module and status are the same; only this tells an operator that the new one does not run."""
    old = replace(house.release("10-hostile", "hostile", config="* : ok\n"), version="1")
    house.run(old)
    assert "running" not in house.entry("10-hostile")
    new = replace(tried(old), config="# new\n* : ok\n", version="1+2")
    house.apply(new)
    entry = house.entry("10-hostile")
    assert (entry["version"], entry["status"]) == ("1+2", "running")
    assert entry["running"] == old.setup
    house.run(new)
    assert "running" not in house.entry("10-hostile")


def test_a_refused_permission_is_a_failure(house: House) -> None:
    release = house.release("10-bench", "bench", permissions=("env",))
    house.run(tried(release))
    assert "annotations" in create(house)
    until_judged(house)
    assert "denied" in house.verdicts[0].reason
    # It answers until another takes its place, and is not through its probation for that.
    assert house.status("10-bench") == "probation"


def test_an_error_that_the_guest_returns_is_none(house: House) -> None:
    release = house.release("10-hostile", "hostile", config="create_container:error\n")
    house.run(tried(release, Probation(1, 1.0, 0)))
    assert "refused on request" in create(house)
    until_judged(house)
    assert house.verdicts[0].kept


def test_allowed_failures_are_allowed(house: House) -> None:
    release = house.release("10-hostile", "hostile", config="create_container:trap\n")
    house.run(tried(release, replace(LONG, allowed_failures=1)))
    create(house)
    house.until(lambda: house.entry("10-hostile")["restarts"] == 1, "it is made anew")
    assert house.status("10-hostile") == "probation"
    assert not house.verdicts
    create(house, "d")
    until_judged(house)
    assert house.verdicts[0].reason.startswith("2 failures")


def test_what_is_no_module_is_rejected_at_once(house: House) -> None:
    one, other = house.folder / "one.wasm", house.folder / "other.wasm"
    one.write_bytes(b"not a module")
    other.write_bytes(constant({"plugin_configure": b""})[:-3] + b"\xff\x00\x0b")
    terms = replace(LONG, allowed_failures=100)
    releases = (house.release("10-one", one), house.release("20-other", other))
    house.apply(*(tried(release, terms) for release in releases))
    until_judged(house, 2)
    assert {each.kept for each in house.verdicts} == {False}


def test_a_file_that_cannot_be_read_is_not_held_against_it(house: House) -> None:
    release = house.release("10-edge", "edge")
    house.apply(tried(replace(release, path=house.folder / "gone.wasm")))
    house.until(lambda: house.entry("10-edge")["failures"] == {"load": 2}, "it is tried")
    assert not house.verdicts
    house.run(tried(release, SHORT))
    until_judged(house)
    assert house.verdicts[0].kept


def test_another_release_ends_a_trial_without_a_verdict(house: House) -> None:
    one, two = (house.release("10-edge", "edge", config=each) for each in "ab")
    house.run(tried(one, Probation(0, 3.0, 0)))
    house.run(tried(two, SHORT))
    until_judged(house)
    house.apply()
    house.run(tried(one, SHORT))
    until_judged(house, 2)
    assert len(house.verdicts) == 2
    assert all(each.kept for each in house.verdicts)


class Leaving(SimRuntime):
    """Ends in the middle of the first synchronisations."""

    ends = 2

    def sync_parts(self) -> list[nri_pb2.SynchronizeRequest]:
        if self.ends:
            self.ends -= 1
            for connection in list(self._connections):
                connection.close("ends")
        return super().sync_parts()


def test_a_runtime_that_ends_once_during_a_start_is_not_held_against_it(tmp_path: Path) -> None:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    with House(tmp_path, Leaving(tmp_path / "nri.sock")) as house:
        Leaving.ends = 1
        house.run(tried(house.release("10-edge", "edge"), SHORT))
        until_judged(house)
        assert house.verdicts[0].kept


def test_one_that_no_runtime_takes_is_rejected(tmp_path: Path) -> None:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    refusing = SimRuntime(tmp_path / "nri.sock", refuse=lambda *_: "not here")
    with House(tmp_path, refusing) as house:
        house.apply(tried(house.release("10-edge", "edge")))
        until_judged(house)
        assert "not here" in house.verdicts[0].reason


@pytest.fixture
def two(tmp_path: Path) -> Iterator[House]:
    """At two runtimes."""
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    with House(tmp_path, second=SimRuntime(tmp_path / "second.sock")) as house:
        yield house


def statuses(house: House) -> list[str]:
    return [entry["status"] for entry in house.supervisor.plugins()]


def test_two_runtimes_make_one_verdict_for_it(two: House) -> None:
    two.apply(tried(two.release("10-edge", "edge"), Probation(0, 1.0, 0)))
    two.until(lambda: statuses(two) == ["running"] * 2, "it is kept, and serves at both")
    until_judged(two)
    assert [each.kept for each in two.verdicts] == [True]


def test_a_failure_at_one_of_two_runtimes_rejects_it_at_both(two: House) -> None:
    good = two.release("10-hostile", "hostile", config="* : ok\n")
    two.apply(good)
    two.until(lambda: statuses(two) == ["running"] * 2, "it serves at both")
    two.apply(tried(replace(good, config="create_container:trap\n")))
    two.until(lambda: statuses(two) == ["probation"] * 2, "the new one serves at both")
    assert create(two)
    until_judged(two)
    two.apply(good)
    two.until(
        lambda: [entry["restarts"] for entry in two.supervisor.plugins()] == [2, 2], "back at both"
    )
    assert statuses(two) == ["running"] * 2
    assert len(two.verdicts) == 1
