"""A plugin's place at a runtime, when things come at the wrong moment."""

from __future__ import annotations

import logging
import select
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent import process
from edge_agent.host.slot_state import Successor
from edge_agent.nri import events
from edge_agent.nri.events import OLD_EVENTS
from edge_agent.pb import edge_pb2, nri_pb2
from edge_agent.sim.plugin_connection import Outcome
from edge_agent.sim.runtime import SimRuntime
from edge_agent.store.release import PluginId
from tests.host.house import House
from tests.support.agent import guest
from tests.support.wat import constant


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    with House(tmp_path) as house:
        yield house


def test_a_new_release_does_not_wait_for_the_failures_of_the_last(house: House) -> None:
    good = house.release("10-edge", "edge")
    house.apply(replace(good, path=house.folder / "gone.wasm"))
    house.until(lambda: house.status("10-edge") == "backoff", "it cannot be loaded")
    house.apply(good)
    assert house.status("10-edge") == "starting"
    house.run(good)


def test_back_and_forth_while_it_loads_runs_the_last(house: House) -> None:
    one, two = (house.release("10-edge", "edge", config=each) for each in "ab")
    house.apply(one)
    house.apply(two)
    house.apply(one)
    house.run(one)
    house.apply(two)
    house.apply(one)
    house.until(
        lambda: house.slot("10-edge").state.successor is Successor.NONE,
        "what was asked for has come",
    )
    assert house.slot("10-edge").plugin.release == one
    assert house.entry("10-edge")["restarts"] == 0


def test_what_fails_to_load_is_not_held_against_the_next_release(house: House) -> None:
    good = house.release("10-edge", "edge")
    house.apply(replace(good, path=house.folder / "gone.wasm"))
    house.apply(good)
    house.run(good)
    assert house.entry("10-edge")["failures"] == {}


def test_a_guest_is_made_anew_while_another_is_compiled(house: House) -> None:
    """On a small board a compiler takes minutes: no plugin may answer by policy so long."""
    trap = house.release("10-hostile", "hostile", config="create_container:trap\n")
    house.run(trap)
    house.may_compile.clear()
    house.apply(trap, house.release("20-edge", "edge"), house.release("30-edge", "edge"))
    pod = house.during(lambda: house.runtime.run_pod("p")).pod
    house.during(lambda: house.runtime.create_container(pod, "c"))
    house.until(lambda: house.entry("10-hostile")["restarts"] == 1, "it is made anew")
    assert house.status("20-edge") == "starting"
    house.may_compile.set()
    for identity in ("20-edge", "30-edge"):
        house.until(lambda each=identity: house.status(each) == "running", "compiled")  # type: ignore[misc]


def test_a_module_that_does_not_compile_is_told_with_its_file(house: House) -> None:
    path = house.folder / "broken.wasm"
    path.write_bytes(constant({"plugin_configure": b""})[:-3] + b"\xff\x00\x0b")
    house.apply(house.release("10-broken", path))
    house.until(lambda: house.status("10-broken") == "backoff", "it cannot be compiled")
    assert str(path) in house.entry("10-broken")["error"]


def test_a_file_that_was_replaced_again_is_no_error(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    """The folder has read the first of two quick replacements, and brings the second soon."""
    first, second = house.release("10-edge", "edge"), house.folder / "10-edge.wasm"
    second.write_bytes(guest("bench").read_bytes())
    with caplog.at_level(logging.INFO):
        house.apply(replace(first, path=second))
        house.until(lambda: "changed while it was read" in caplog.text, "it is told")
        house.run(house.release("10-edge", second))
    assert [each.message for each in caplog.records if each.levelno > logging.INFO] == []
    assert house.entry("10-edge")["failures"] == {}
    assert "serving sim v1.0.0 with 10-edge" in caplog.text


def test_a_blob_of_the_store_with_other_content_is_damaged(house: House) -> None:
    release = house.release("10-edge", "edge")
    blob = house.folder / release.digest.hex
    blob.write_bytes(guest("bench").read_bytes())
    house.apply(replace(release, path=blob))
    house.until(lambda: house.status("10-edge") == "backoff", "it cannot be loaded")
    assert "it is damaged" in house.entry("10-edge")["error"]
    assert house.entry("10-edge")["failures"]["load"]


def test_what_a_plugin_asks_for_in_vain_is_told_by_whose_doing(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    known = (events.BY_METHOD[each].bit for each in ("CreateContainer", "StopContainer"))
    asks = nri_pb2.ConfigureResponse(events=sum(known) | 1 << 20).SerializeToString()
    path = house.folder / "asks.wasm"
    path.write_bytes(constant({"plugin_configure": asks, "plugin_create_container": b""}))
    house.run(house.release("10-asks", path))
    told = [each.message for each in caplog.records if each.levelno == logging.WARNING]
    assert told == [
        "10-asks asked for unknown events, which sim v1.0.0, NRI v0.12.0 does not send",
        "10-asks asked for StopContainer, which its exports do not take",
    ]


def test_removed_while_it_loads_it_never_registers(house: House) -> None:
    house.apply(house.release("10-edge", "edge"))
    house.apply()
    house.run(house.release("20-edge", "edge"))
    assert {plugin.identity for plugin in house.during(house.runtime.plugins)} == {"20-edge"}


def test_removed_during_a_handover_both_leave(house: House) -> None:
    one, two = (house.release("10-edge", "edge", config=each) for each in "ab")
    house.run(one)
    house.apply(two)
    house.until(lambda: house.hands_over("10-edge"), "both are there")
    house.apply()
    house.during(lambda: house.runtime.wait_for_plugins(0))
    pod = house.during(lambda: house.runtime.run_pod("p")).pod
    assert house.during(lambda: house.runtime.create_container(pod, "c")).ok


def test_the_runtime_vanishes_during_a_handover(house: House) -> None:
    one, two = (house.release("10-edge", "edge", config=each) for each in "ab")
    house.run(one)
    house.apply(two)
    house.until(lambda: house.hands_over("10-edge"), "both are there")
    house.during(house.runtime.restart)
    house.run(two)
    house.during(lambda: house.runtime.wait_for_plugins(1))


def test_a_plugin_that_comes_back_remembers_nothing(house: House) -> None:
    release = house.release("10-edge", "edge")
    pod = house.during(lambda: house.runtime.run_pod("p")).pod
    for number in range(2):
        house.run(release)
        created = house.during(lambda n=number: house.runtime.create_container(pod, f"c{n}"))  # type: ignore[misc]
        assert created.container.annotations["edge.test/count"] == "1"
        house.apply()


def test_an_error_is_forgotten_once_a_successor_answers(house: House) -> None:
    release = house.release("10-hostile", "hostile", config="create_container:trap\n")
    house.run(release)
    pod = house.during(lambda: house.runtime.run_pod("p")).pod
    house.during(lambda: house.runtime.create_container(pod, "c1"))
    assert house.entry("10-hostile")["error"]
    house.run(release)
    assert "error" not in house.entry("10-hostile")
    # And one in the middle of a handover, in which the successor stands its test.
    better = replace(release, config="* : ok\n")
    house.apply(better)
    house.until(lambda: house.hands_over("10-hostile"), "both are there")
    house.during(lambda: house.runtime.create_container(pod, "c2"))
    house.run(better)
    assert house.entry("10-hostile")["failures"] == {"trap": 2}
    assert "error" not in house.entry("10-hostile")


class Fickle(SimRuntime):
    """Goes away in the middle of the first synchronisation."""

    away = True

    def sync_parts(self) -> list[nri_pb2.SynchronizeRequest]:
        if self.away:
            self.away = False
            for connection in list(self._connections):
                connection.close("goes away")
        return super().sync_parts()


def test_a_runtime_that_ends_during_a_start_is_still_asked_for_every_event(tmp_path: Path) -> None:
    """A validator that was not asked to validate would let everything pass."""
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    with House(tmp_path, Fickle(tmp_path / "nri.sock")) as house:
        house.run(house.release("90-validator", "validator", config="deny env FORBIDDEN\n"))
        session = house.slot("90-validator").plugin.session
        assert session.subscribed & events.VALIDATE.bit


def test_a_runtime_that_knows_fewer_events_than_inferred_gets_a_second_try(tmp_path: Path) -> None:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    older = SimRuntime(tmp_path / "nri.sock", "old", name="containerd", version="v2.2.0")
    with House(tmp_path, older) as house:
        house.run(house.release("10-hostile", "hostile"))
        assert house.slot("10-hostile").plugin.session.subscribed == OLD_EVENTS


def test_what_a_guest_reports_while_it_starts_is_told_at_once(house: House) -> None:
    """Its inventory, say: no event may come for hours."""
    report = edge_pb2.Report(kind="inventory", payload=b"42").SerializeToString()
    text = "".join(f"\\{byte:02x}" for byte in report)
    imports = '(import "edge" "report" (func $report (param i32 i32) (result i64)))'
    start = (
        f'(data (i32.const 0) "{text}")'
        '(func (export "plugin_synchronize") (param i32 i32) (result i64)'
        f" (call $report (i32.const 0) (i32.const {len(report)})))"
    )
    path = house.folder / "starts.wasm"
    path.write_bytes(constant({"plugin_create_container": b""}, imports, start))
    house.run(house.release("10-starts", path))
    [told] = house.results
    assert (told.event, told.kind, told.request) == ("Synchronize", "ok", b"")
    assert [each.payload for each in told.reports] == [b"42"]
    assert told.runtime
    assert house.entry("10-starts")["events"] == 0


def test_a_guest_that_is_renewed_is_another_and_keeps_its_state(house: House) -> None:
    release = house.release("10-edge", "edge")
    house.run(release)
    before = house.slot("10-edge").plugin
    assert house.supervisor.renew(PluginId("10-edge"))
    house.until(lambda: house.entry("10-edge")["restarts"] == 1, "it was replaced")
    after = house.slot("10-edge").plugin
    assert after is not before
    assert after.release == release
    assert house.status("10-edge") == "running"
    house.supervisor.apply(
        {PluginId("10-edge"): release}, {}
    )  # wanted as it is: nothing more to do
    assert house.slot("10-edge").plugin is after
    assert house.slot("10-edge").state.successor is Successor.NONE


def test_what_is_not_there_cannot_be_renewed(house: House) -> None:
    assert not house.supervisor.renew(PluginId("10-edge"))


def test_memory_is_given_back_once_the_replaced_guest_is_gone(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (house.release("10-edge", "edge", config=each) for each in "ab")
    house.run(one)
    replaced, trim = house.slot("10-edge").plugin, process.trim
    held: list[int] = []

    def watched() -> None:
        held.append(replaced.memory_bytes)
        trim()

    monkeypatch.setattr(process, "trim", watched)
    house.run(two)
    house.until(lambda: 0 in held, "the heap is trimmed without it")


def test_an_event_that_came_before_the_agents_end_is_answered_and_counted(house: House) -> None:
    guests = {"10-edge": "edge", "20-bench": "bench"}  # "Ignore": no placeholder beside them
    house.run(*(house.release(*each, failure_policy="Ignore") for each in guests.items()))
    pod = house.during(lambda: house.runtime.run_pod("p")).pod
    link = house.slot("10-edge").plugin._link  # noqa: SLF001
    outcomes: list[Outcome] = []
    asking = threading.Thread(
        target=lambda: outcomes.append(house.runtime.create_container(pod, "c", start=False))
    )
    asking.start()
    # The event has arrived, and no turn of the loop has read it.
    select.select([link._socket], [], [], 30)  # noqa: SLF001
    told = len(house.results)
    house.supervisor.close()
    asking.join()
    [outcome] = outcomes
    assert outcome.ok
    assert outcome.container.annotations["edge.test/count"] == "1"
    # The second one was asked in time or not at all.
    answered = [each.plugin for each in outcome.answers if not each.dropped]
    assert answered[0] == "10-edge"
    counted = [(each.plugin, each.event, each.kind) for each in house.results[told:]]
    assert counted == [(each, "CreateContainer", "ok") for each in answered]
    assert house.slot("10-edge").plugin is None
