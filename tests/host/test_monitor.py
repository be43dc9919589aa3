"""`mode = "monitor"`: a plugin is asked, and nothing of what it answers reaches a container."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_agent.config import PERMISSIONS, Limits
from edge_agent.errors import EngineError
from edge_agent.fleet_protocol.event_result import describe
from edge_agent.host.withheld import Withheld, withheld
from edge_agent.nri.session import Call
from edge_agent.pb import nri_pb2
from edge_agent.sim.plugin_connection import Outcome
from edge_agent.store.release import Probation, Release
from edge_agent.wasm.engine_selection import engine_names, select_engine
from tests.host.house import House
from tests.support.agent import Agent, guest
from tests.support.gopeers import NriRuntime
from tests.support.wait import TIMEOUT_S
from tests.support.wat import constant

PLUGIN = "10-plugin"
UPDATE = nri_pb2.ContainerUpdate(container_id="another")
UPDATE.linux.resources.memory.limit.value = 1 << 20
EVICTION = nri_pb2.ContainerEviction(container_id="another", reason="too large")
ADJUSTED = nri_pb2.CreateContainerResponse(update=[UPDATE], evict=[EVICTION])
ADJUSTED.adjust.annotations["example.com/a"] = "b"
ADJUSTED.adjust.env.add(key="A", value="b")
ADJUSTED.adjust.linux.resources.pids.limit = 7
REPLIES = {
    "plugin_configure": nri_pb2.ConfigureResponse(events=(1 << 14) - 1).SerializeToString(),
    "plugin_synchronize": nri_pb2.SynchronizeResponse(update=[UPDATE]).SerializeToString(),
    "plugin_create_container": ADJUSTED.SerializeToString(),
    "plugin_update_container": nri_pb2.UpdateContainerResponse(
        update=[UPDATE], evict=[EVICTION]
    ).SerializeToString(),
    "plugin_stop_container": nri_pb2.StopContainerResponse(update=[UPDATE]).SerializeToString(),
    "plugin_validate_container_adjustment": nri_pb2.ValidateContainerAdjustmentResponse(
        reject=True, reason="not this one"
    ).SerializeToString(),
}
CREATE, VALIDATE = "CreateContainer", "ValidateContainerAdjustment"


@pytest.fixture(params=engine_names())
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    try:
        select_engine(name)
    except EngineError as error:
        pytest.skip(f"needs {name}: {error}")
    return name


def monitored(house: House, name: str | Path, config: str = "", **settings: Any) -> Release:
    return house.release(PLUGIN, name, config, mode="monitor", **settings)


def told(house: House, event: str = CREATE, plugin: str = PLUGIN) -> list[dict[str, Any]]:
    """The records of the events of this kind."""
    described = [
        describe(each) for each in house.results if (each.plugin, each.event) == (plugin, event)
    ]
    return [each for each in described if each is not None]


def create(house: House, **more: Any) -> Outcome:
    pod = house.during(lambda: house.runtime.run_pod("web")).pod
    return house.during(lambda: house.runtime.create_container(pod, "app", **more))


def created(house: House, event: str = CREATE, **more: Any) -> tuple[Outcome, dict[str, Any]]:
    """Create a container; what became of it, and the one new record of the monitored plugin."""
    before = len(told(house, event))
    outcome = create(house, **more)
    house.until(lambda: len(told(house, event)) > before, "the event is reported")
    [record] = told(house, event)[before:]
    return outcome, record


def untouched(outcome: Outcome) -> bool:
    """Whether every answer was empty and no error. A session that was replaced may leave instead
    of answering (docs/adr/0005)."""
    empty = all(not (each.reply or each.code) for each in outcome.answers)
    return empty and not (outcome.error or outcome.updates or outcome.evictions)


@pytest.fixture
def everything(tmp_path: Path) -> Path:
    """A module that answers each event with all that it can ask for, and rejects as validator."""
    path = tmp_path / "everything.wasm"
    path.write_bytes(constant(REPLIES))
    return path


def test_nothing_of_any_reply_reaches_the_runtime(
    tmp_path: Path, engine: str, everything: Path
) -> None:
    with House(tmp_path, engine=engine) as house:
        house.run(monitored(house, everything))
        outcome, record = created(house)
        assert untouched(outcome)
        assert outcome.by("plugin"), "it was asked"
        assert (record["outcome"], record["mode"]) == ("would_adjust", "monitor")
        assert record["adjusted"] == ["annotations", "env", "evict", "linux.resources", "update"]
        assert (record["pod"]["name"], record["container"]["name"]) == ("web", "app")
        [validated] = told(house, VALIDATE)
        assert (validated["outcome"], validated["error"]) == ("would_reject", "not this one")
        [synchronised] = told(house, "Synchronize")
        assert (synchronised["outcome"], synchronised["adjusted"]) == ("would_adjust", ["update"])

        updated = house.during(
            lambda: house.runtime.update_container(outcome.container, nri_pb2.LinuxResources())
        )
        assert untouched(updated)
        assert untouched(house.during(lambda: house.runtime.stop_pod(outcome.pod)))
        house.until(lambda: bool(told(house, "StopContainer")), "the end is reported")
        for event, fields in (
            ("UpdateContainer", ["evict", "update"]),
            ("StopContainer", ["update"]),
        ):
            [record] = told(house, event)
            assert (record["outcome"], record["adjusted"]) == ("would_adjust", fields)

        entry = house.entry(PLUGIN)
        assert (entry["mode"], entry["failures"]) == ("monitor", {})
        # Synchronize, CreateContainer, UpdateContainer, StopContainer; and the validation.
        assert (entry["would_adjust"], entry["would_reject"]) == (4, 1)
        assert "updates_withheld" not in entry


def test_the_same_module_enforces_once_it_is_told_to(
    tmp_path: Path, engine: str, everything: Path
) -> None:
    with House(tmp_path, engine=engine) as house:
        watched = monitored(house, everything)
        house.run(watched)
        assert untouched(create(house))
        enforced = replace(watched, settings=replace(watched.settings, mode="enforce"))
        house.run(enforced)
        refused = create(house)
        assert "not this one" in refused.error
        assert "A=b" in refused.container.env
        assert [each.container_id for each in refused.updates] == ["another"]
        assert "mode" not in house.entry(PLUGIN)
        house.run(watched)
        assert untouched(create(house))


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        ("error", "would_reject"),
        ("trap", "trap"),
        ("loop", "timeout"),
        ("garbage", "error"),
        ("reply-over-limit", "abi"),
        ("host-calls", "calls"),
    ],
)
def test_whatever_it_does_no_container_is_refused(
    tmp_path: Path, engine: str, behaviour: str, outcome: str
) -> None:
    limits = Limits(deadline_ms=300 if behaviour == "loop" else 60_000)
    with House(tmp_path, engine=engine) as house:
        release = monitored(house, "hostile", f"create_container:{behaviour}\n", limits=limits)
        house.run(release)
        made, record = created(house)
        assert untouched(made)
        assert (record["outcome"], record["mode"]) == (outcome, "monitor")
        assert record["error"]
        # Also while it is made anew, or waits for that.
        assert untouched(create(house))
        assert not house.slot(PLUGIN).sessions.placeholder
        assert "refusing" not in house.entry(PLUGIN)


def test_the_runtime_has_its_answer_before_the_plugin_is_asked(tmp_path: Path) -> None:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    with House(tmp_path) as house:
        house.run(monitored(house, "bench"))
        asked_guest = house.slot(PLUGIN).plugin.guest
        ask, returned, waited = asked_guest.answer, threading.Event(), []

        def answer(call: Call, share: float) -> bytes:
            if call.event == CREATE:
                waited.append(returned.wait(TIMEOUT_S))
            return bytes(ask(call, share))

        asked_guest.answer = answer
        pod = house.during(lambda: house.runtime.run_pod("web")).pod

        def creation() -> Outcome:
            try:
                return house.runtime.create_container(pod, "app", start=False)
            finally:
                returned.set()

        assert untouched(house.during(creation))
        house.until(lambda: bool(told(house)), "it was asked")
        assert waited == [True]


def test_updates_that_it_asks_for_by_itself_are_counted_and_not_sent(
    tmp_path: Path, engine: str
) -> None:
    with House(tmp_path, engine=engine) as house:
        house.run(monitored(house, "edge"))
        first, _ = created(house)
        wish = {"edge.test/update": f"{first.container.id} 33554432"}
        made, record = created(house, annotations=wish)
        assert untouched(made)
        assert (record["outcome"], record["updates_withheld"]) == ("would_adjust", 1)
        assert record["adjusted"] == ["annotations", "update"]
        assert [each["kind"] for each in record["reports"]] == ["count"]
        assert house.entry(PLUGIN)["updates_withheld"] == 1
        assert not any("refused" in line for line in house.lines), "the guest got its answer"
        created(house)  # whatever was sent for the event before has come
        kept = house.runtime.containers[first.container.id]
        assert not kept.linux.resources.memory.HasField("limit")


def test_what_it_has_no_permission_for_is_denied_and_refuses_nothing(tmp_path: Path) -> None:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    with House(tmp_path) as house:
        house.run(monitored(house, "bench", permissions=("env",)))
        made, record = created(house)
        assert untouched(made)
        assert (record["outcome"], record["mode"]) == ("denied", "monitor")
        entry = house.entry(PLUGIN)
        assert (entry["failures"], entry["would_adjust"]) == ({"denied": 1}, 0)


def test_nobody_else_is_told_of_a_rejection_or_a_conflict_that_did_not_happen(
    tmp_path: Path,
) -> None:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    with House(tmp_path) as house:
        house.run(
            house.release("05-bench", "bench", failure_policy="Ignore"),
            monitored(house, "bench"),
            house.release("90-validator", "validator", "deny env EDGE_BENCH\n", mode="monitor"),
        )
        made, _ = created(house)
        assert made.ok
        assert made.owners["env EDGE_BENCH"] == "05-bench"
        house.until(lambda: bool(told(house, VALIDATE, "90-validator")), "it was asked")
        [validated] = told(house, VALIDATE, "90-validator")
        assert validated["outcome"] == "would_reject"
        assert "with" not in validated
        # What becomes of a reply is looked for on the worker, in order: nothing waits there.
        done = threading.Event()
        house.loader.run(lambda: house.loop.call_soon(done.set))
        house.until(done.is_set, "the worker has looked")
        assert [each["outcome"] for each in told(house, CREATE, "05-bench")] == ["adjusted"]
        assert [each["outcome"] for each in told(house)] == ["would_adjust"]


@pytest.mark.parametrize("mode", ["monitor", "enforce"])
def test_a_monitored_plugin_that_cannot_run_is_not_missed(tmp_path: Path, mode: str) -> None:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    with House(tmp_path, grace_s=0.1) as house:
        release = house.release(PLUGIN, "bench", mode=mode)
        house.apply(replace(release, path=tmp_path / "gone"))
        house.until(lambda: house.status(PLUGIN) == "backoff", "it cannot be loaded")
        if mode == "enforce":
            house.until(lambda: house.slot(PLUGIN).refusing, "it is missed")
        assert ("does not run" in create(house).error) == (mode == "enforce")
        assert house.slot(PLUGIN).sessions.placeholder.wanted == (mode == "enforce")
        assert house.supervisor.fails_closed() == []


def test_only_an_enforcing_plugin_keeps_an_agent_from_being_restarted(tmp_path: Path) -> None:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    with House(tmp_path) as house:
        house.run(monitored(house, "bench"), house.release("20-edge", "edge"))
        assert house.supervisor.fails_closed() == ["20-edge"]


def test_a_monitored_plugin_passes_and_fails_its_probation_like_any_other(
    tmp_path: Path,
) -> None:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    terms = Probation(events=2, seconds=0.0, allowed_failures=0)
    with House(tmp_path) as house:
        release = monitored(house, "hostile", "create_container:error\n")
        house.run(replace(release, probation=terms))
        created(house)
        created(house)
        house.until(lambda: bool(house.verdicts), "it is judged")
        assert [each.kept for each in house.verdicts] == [True], "it did its work"


# --- pure


def test_what_cannot_be_read_is_an_error_as_it_would_be_to_the_runtime() -> None:
    unreadable = withheld(CREATE, b"\x0a\xff\xff\xff\xff\x7f", ())
    assert (unreadable.kind, unreadable.adjusted) == ("error", ())
    assert "CreateContainerResponse" in unreadable.text
    assert withheld(CREATE, b"", (b"\xff",)).kind == "error"


def test_an_empty_answer_changes_nothing() -> None:
    assert withheld(CREATE, b"", ()) == Withheld("ok")
    assert withheld("StartContainer", b"", ()) == Withheld("ok")
    approved = nri_pb2.ValidateContainerAdjustmentResponse(reason="fine").SerializeToString()
    assert withheld(VALIDATE, approved, ()) == Withheld("ok")
    assert withheld("Synchronize", b"\x10\x01", ()) == Withheld("ok"), "`more` asks for nothing"


def test_fields_are_named_as_permissions_are() -> None:
    for name in PERMISSIONS:
        assert name == name.lower()
    asked = withheld(CREATE, ADJUSTED.SerializeToString(), ())
    assert set(asked.adjusted) <= set(PERMISSIONS)


# --- upstream's runtime side


@pytest.mark.system
def test_upstreams_runtime_side_gets_nothing_until_it_enforces(
    runtime: NriRuntime, agent: Agent, everything: Path
) -> None:
    nothing = runtime.create_container("c0").adjust  # of no plugin
    agent.put(PLUGIN, everything, settings={"mode": "monitor"})
    agent.put("20-edge", guest("edge"), settings={"mode": "monitor"})
    agent.wait_running(PLUGIN, "20-edge")
    runtime.wait_for_plugins(PLUGIN, "20-edge")
    assert runtime.run_pod("p1").error == ""
    assert runtime.create_container("c1", pod="p1").error == ""
    wish = {"edge.test/update": "c1 33554432"}
    outcome = runtime.create_container("c2", annotations=wish)
    assert outcome.error == ""
    assert outcome.called[:2] == [PLUGIN, "20-edge"]
    assert outcome.adjust == nothing
    assert outcome.reply.get("update", []) == []
    assert outcome.owner("c2", 6, "A") is None
    stopped = runtime.event("StopContainer", pod="p1", container="c1")
    assert (stopped.error, stopped.reply.get("update", [])) == ("", [])
    agent.wait_for(
        lambda _: agent.entry("20-edge").get("updates_withheld") == 1, "the update is counted"
    )
    assert (runtime.updates(), runtime.synchronize_updates()) == ([], [])
    agent.wait_for(
        lambda _: (
            (agent.entry(PLUGIN)["would_adjust"], agent.entry(PLUGIN)["would_reject"]) == (4, 2)
        ),
        "Synchronize, two creations and an end would have changed something, two were rejected",
    )

    agent.put(PLUGIN, settings={"mode": "enforce"})
    agent.wait_replaced(PLUGIN, restarts=0)
    refused = runtime.create_container("c3")
    assert "not this one" in refused.error
    assert runtime.synchronize_updates() != []
