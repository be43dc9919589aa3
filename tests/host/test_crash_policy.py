"""Who may not run any more because the agent died while it did."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.config import PluginSettings
from edge_agent.errors import EngineError
from edge_agent.fleet_protocol.event_result import ERROR, OK, EventResult
from edge_agent.host.crash_marker import MAX_IDENTITY_BYTES, Suspect
from edge_agent.host.crash_policy import (
    ENOUGH,
    FORGET_S,
    FORGIVE_EVENTS,
    MAX_RECORDS,
    CrashPolicy,
)
from edge_agent.sim.runtime import SimRuntime
from edge_agent.store.digest import Digest
from edge_agent.store.release import Code, PluginId, Probation, Release
from edge_agent.wasm.engines.native import WasmerEngine
from tests.host.house import House
from tests.support.smalldisk import small_disk

DIGEST = Digest.of_hex("ab" * 32)
GUILTY = Suspect("10-a", DIGEST)
RELEASE = Release("10", "a", DIGEST, 1, "", PluginSettings())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "crashes"


def at_once(job: Callable[[], None]) -> None:
    job()


def after(path: Path, *suspects: Suspect, excuse: str = "") -> CrashPolicy:
    """A start of the agent, after these crashed it."""
    quarantine = CrashPolicy(path, at_once)
    quarantine.begin(suspects, excuse)
    return quarantine


def outcome(plugin: str, digest: Digest, kind: str = OK) -> EventResult:
    """One event that is over."""
    event = ("CreateContainer", "nri_plugin_create_container")
    return EventResult(0, PluginId(plugin), digest, "sim", *event, kind, 1, b"", b"", "", (), "all")


def test_the_second_crash_is_enough_and_remembered(path: Path) -> None:
    assert after(path).why(RELEASE) == ""
    assert after(path, GUILTY).why(RELEASE) == ""
    assert "2 times" in after(path, GUILTY).why(RELEASE)
    assert "2 times" in after(path).why(RELEASE)


def test_a_death_that_is_not_the_plugins_does_not_count(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        assert after(path, GUILTY, excuse="it was killed from outside").why(RELEASE) == ""
    assert "does not count: it was killed from outside" in caplog.text
    after(path, GUILTY)
    assert after(path, excuse="whatever").why(RELEASE) == ""
    assert after(path, GUILTY).why(RELEASE)  # what counted before still does


def crashed(path: Path, count: int, ago_s: float) -> None:
    record = {"plugin": "10-a", "digest": DIGEST.hex, "count": count, "time": time.time() - ago_s}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"version": 1, "crashes": [record]}))  # as it always was


@pytest.mark.parametrize(("ago_s", "held"), [(FORGET_S - 60, True), (FORGET_S + 60, False)])
def test_one_crash_is_forgotten_after_a_week(path: Path, ago_s: float, held: bool) -> None:
    crashed(path, 1, ago_s)
    assert bool(after(path, GUILTY).why(RELEASE)) is held


def test_a_quarantine_is_not_forgotten(path: Path) -> None:
    crashed(path, 2, 100 * FORGET_S)
    assert after(path).why(RELEASE)


def test_a_clock_that_was_set_back_forgets_nothing(path: Path) -> None:
    crashed(path, 1, -1e6)
    assert after(path, GUILTY).why(RELEASE)


@pytest.mark.parametrize(
    ("hours", "events", "held"),
    [(1.1, FORGIVE_EVENTS, False), (0.9, FORGIVE_EVENTS, True), (1.1, FORGIVE_EVENTS - 1, True)],
)
def test_one_crash_is_forgotten_when_the_plugin_has_worked_well_since(
    path: Path, hours: float, events: int, held: bool
) -> None:
    now = 5.0
    after(path, GUILTY)
    quarantine = CrashPolicy(path, at_once, lambda: now)
    quarantine.begin(())
    now += hours * 3600
    for _ in range(events):
        quarantine.answered(outcome("10-a", DIGEST))
        quarantine.answered(outcome("10-a", Digest.of_hex("cd" * 32)))  # another module
        quarantine.answered(outcome("20-b", DIGEST))
    assert bool(after(path, GUILTY).why(RELEASE)) is held


@pytest.mark.parametrize("crashes", [1, 2])
def test_what_is_refused_in_its_place_is_no_answer_of_the_plugin(path: Path, crashes: int) -> None:
    now = 5.0
    for _ in range(crashes):
        after(path, GUILTY)
    quarantine = CrashPolicy(path, at_once, lambda: now)
    quarantine.begin(())
    now += 2 * 3600
    for _ in range(FORGIVE_EVENTS + 1):
        quarantine.answered(outcome("10-a", DIGEST, ERROR))
    assert bool(quarantine.why(RELEASE)) is (crashes == 2)
    assert after(path, GUILTY).why(RELEASE)


def test_it_holds_for_this_module_under_this_name_only(path: Path) -> None:
    after(path, GUILTY)
    quarantine = after(path, GUILTY)
    assert quarantine.why(replace(RELEASE, config="another"))
    assert not quarantine.why(replace(RELEASE, digest=Digest.of_hex("cd" * 32)))
    assert not quarantine.why(replace(RELEASE, index="20"))


def test_crashes_of_different_plugins_are_counted_apart(path: Path) -> None:
    other = Suspect("20-b", DIGEST)
    after(path, GUILTY)
    quarantine = after(path, other)
    assert not quarantine.why(RELEASE)
    assert "2 times" in after(path, GUILTY, other).why(RELEASE)


@pytest.mark.parametrize(("allowed", "crashes"), [(0, 1), (1, 2), (5, ENOUGH)])
def test_on_probation_the_allowed_failures_count(path: Path, allowed: int, crashes: int) -> None:
    tried = replace(RELEASE, probation=Probation(20, 60.0, allowed))
    for number in range(1, crashes + 1):
        assert bool(after(path, GUILTY).why(tried)) is (number == crashes)


BY_CODE = GUILTY._replace(by_code=True)


def test_what_the_fleets_machine_code_did_is_not_held_against_the_module(path: Path) -> None:
    tried = replace(RELEASE, probation=Probation(20, 60.0, 0))
    assert not after(path).refuses_code(RELEASE)
    quarantine = after(path, BY_CODE)
    assert quarantine.refuses_code(RELEASE)
    assert not quarantine.refuses_code(replace(RELEASE, index="20"))
    assert quarantine.why(tried) == quarantine.why(RELEASE) == ""
    quarantine = after(path, GUILTY)  # by what was compiled here
    assert quarantine.refuses_code(RELEASE)
    assert "once, on probation" in quarantine.why(tried)
    assert quarantine.why(RELEASE) == ""


def test_the_fleets_machine_code_may_be_tried_again_once_it_is_lifted(path: Path) -> None:
    after(path, BY_CODE)
    quarantine = after(path)
    assert quarantine.unquarantine(PluginId("10-a"))
    assert not quarantine.refuses_code(RELEASE)
    assert not after(path).refuses_code(RELEASE)


def test_an_agent_that_knows_no_machine_code_reads_the_record_as_the_modules(path: Path) -> None:
    after(path, BY_CODE)
    (record,) = json.loads(path.read_bytes())["crashes"]
    assert record.pop("code") is True
    assert set(record) == {"plugin", "digest", "count", "time"}
    after(path, GUILTY)
    assert "code" not in json.loads(path.read_bytes())["crashes"][1]


def machine_code(folder: Path, release: Release) -> Code:
    """What the fleet would compile for this machine."""
    try:
        engine = WasmerEngine()
    except EngineError as error:
        pytest.skip(f"needs wasmer: {error}")
    data = engine.compile_for(release.path.read_bytes(), os.uname().machine, engine.wide)
    (folder / "code").write_bytes(data)
    return Code(
        *(engine.name, engine.version, os.uname().machine, engine.settings(), ()),
        *(Digest.of(data), len(data), folder / "code"),
    )


@pytest.mark.parametrize("ended", [False, True])
def test_whose_machine_code_ended_the_agent_is_compiled_here(tmp_path: Path, ended: bool) -> None:
    with SimRuntime(tmp_path / "second.sock") as second:
        house = House(tmp_path, second=second, engine="wasmer")
        release = house.release("10-bench", "bench")
        release = replace(release, code=machine_code(tmp_path, release))
        house.suspects = [Suspect("10-bench", release.digest, by_code=True)] if ended else []
        with house:
            house.run(release)
            house.until(
                lambda: all(each["status"] == "running" for each in house.supervisor.plugins()),
                "it runs at both runtimes",
            )
            compiled = list((tmp_path / "state" / "artifacts").glob("*.artifact"))
            assert bool(compiled) is ended
            plugins = [
                runtime.slots[PluginId("10-bench")].plugin for runtime in house.supervisor.endpoints
            ]
            marks = [each.guest.mark for each in plugins if each]
            lengths = [mark.memory[128 * mark.index + 32] for mark in marks]
            assert lengths == [len("10-bench") | (0 if ended else 0x80)] * 2


def test_a_release_forgets_its_crashes_for_good(path: Path) -> None:
    after(path, GUILTY)
    quarantine = after(path, GUILTY, Suspect("20-b", DIGEST))
    assert quarantine.unquarantine(PluginId("10-a"))
    assert not quarantine.why(RELEASE)
    assert not quarantine.unquarantine(PluginId("10-a"))
    assert not quarantine.unquarantine(PluginId("30-unknown"))
    assert not after(path, GUILTY).why(RELEASE)  # one again
    assert after(path, Suspect("20-b", DIGEST)).why(replace(RELEASE, index="20", name="b"))


def test_a_long_name_is_recognised_though_it_was_cut(path: Path) -> None:
    long = replace(RELEASE, name="n" * 300)
    cut = Suspect(long.identity[:MAX_IDENTITY_BYTES], DIGEST)
    after(path, cut)
    quarantine = after(path, cut)
    assert quarantine.why(long)
    assert quarantine.unquarantine(long.identity)


def test_the_oldest_are_forgotten_first(path: Path) -> None:
    for number in range(MAX_RECORDS + 5):
        after(path, Suspect(f"10-n{number}", DIGEST))
    kept = [record["plugin"] for record in json.loads(path.read_bytes())["crashes"]]
    assert kept == [f"10-n{number}" for number in range(5, MAX_RECORDS + 5)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
RECORD = st.fixed_dictionaries(
    {},
    optional={"plugin": JSON | st.just("10-a"), "digest": JSON | st.just(DIGEST.hex)}
    | dict.fromkeys(("count", "time", "code"), JSON),
)


@given(
    st.binary(max_size=100)
    | JSON.map(lambda document: json.dumps(document).encode())
    | st.lists(RECORD, max_size=4).map(lambda all_: json.dumps({"crashes": all_}).encode())
)
def test_whatever_is_in_the_file_is_harmless(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("noise") / "crashes"
    path.write_bytes(content)
    after(path, GUILTY)
    assert after(path, GUILTY).why(RELEASE)
    after(path)


@pytest.mark.system
def test_a_disk_that_cannot_be_written_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk", 4, "ro") as disk:
        after(disk / "crashes", GUILTY)
        assert "are not remembered" in caplog.text


def test_who_crashed_twice_does_not_start_and_the_others_do(tmp_path: Path) -> None:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    house = House(tmp_path)
    bad = house.release("10-edge", "edge", failure_policy="Ignore")
    good = house.release("20-bench", "bench")
    house.suspects = [Suspect("10-edge", bad.digest)]
    after(tmp_path / "state" / "crashes", *house.suspects)
    with house:
        house.apply(bad, good)
        house.until(lambda: house.status("20-bench") == "running", "the other runs")
        assert house.status("10-edge") == "quarantined"
        assert "the agent died while it ran, 2 times" in house.entry("10-edge")["error"]
        [verdict] = house.verdicts
        assert (verdict.identity, verdict.digest, verdict.kept) == ("10-edge", bad.digest, False)
        assert [plugin.name for plugin in house.during(house.runtime.plugins)] == ["bench"]
        house.apply(bad, good)  # once more, as each scan of the folder may
        assert house.supervisor.unquarantine(PluginId("10-edge"))
        house.until(lambda: house.status("10-edge") == "running", "it was released")
        assert "error" not in house.entry("10-edge")
        assert len(house.verdicts) == 1
        assert not house.supervisor.unquarantine(PluginId("10-edge"))
    house = House(tmp_path)
    with house:
        house.run(bad)


def test_a_quarantined_plugin_refuses_unless_the_operator_said_ignore(tmp_path: Path) -> None:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    house = House(tmp_path)
    bad, good = house.release("10-edge", "edge"), house.release("20-bench", "bench")
    for _ in range(2):
        after(tmp_path / "state" / "crashes", Suspect("10-edge", bad.digest))

    def creation() -> str:
        return house.runtime.create_container(house.runtime.run_pod("p").pod, "c").error

    with house:
        house.run(good)
        house.apply(bad, good)
        house.until(lambda: "refusing" in house.entry("10-edge"), "it is missed")
        refused = house.during(creation)
        assert "plugin 10-edge does not run" in refused
        assert "quarantined: the agent died while it ran, 2 times" in refused
        ignored = replace(bad, settings=replace(bad.settings, failure_policy="Ignore"))
        house.apply(ignored, good)
        house.until(lambda: "refusing" not in house.entry("10-edge"), "it is not missed")
        assert house.status("10-edge") == "quarantined"
        assert house.during(creation) == ""
        house.apply(bad, good)
        house.until(lambda: "refusing" in house.entry("10-edge"), "it is missed again")
        assert house.supervisor.unquarantine(PluginId("10-edge"))
        house.until(lambda: house.status("10-edge") == "running", "it was released")
        house.during(lambda: house.runtime.wait_for_plugins(2))  # the placeholder has left
        assert house.during(creation) == ""


def test_another_module_lifts_it(tmp_path: Path) -> None:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    house = House(tmp_path)
    bad, good = house.release("10-a", "edge"), house.release("10-a", "bench")
    for _ in range(2):
        after(tmp_path / "state" / "crashes", Suspect("10-a", bad.digest))
    with house:
        house.apply(bad)
        assert house.status("10-a") == "quarantined"
        house.run(good)
        house.apply(bad)  # and back: the incumbent stays
        house.until(lambda: len(house.verdicts) == 2, "told again")
        assert house.status("10-a") == "quarantined"
        assert house.entry("10-a")["running"] == good.digest
        house.run(good)
        assert house.entry("10-a")["restarts"] == 0
