"""The guests of the other tests do what they are named for."""

import pytest
from google.protobuf.message import DecodeError
from wasmtime import Trap

from edge_agent.pb import nri_pb2

from .guest import FUEL, GUESTS, AbiError, Guest, GuestError, capture

CREATE = nri_pb2.CreateContainerRequest.FromString(capture("create_container"))
HOSTILE = GUESTS / "hostile.wasm"
ALL_EVENTS = (1 << 14) - 1


def hostile(*rules: str, fuel: int = FUEL) -> Guest:
    guest = Guest(HOSTILE, fuel)
    assert guest.configure("\n".join(rules)) == ALL_EVENTS
    return guest


@pytest.mark.parametrize(
    ("behaviour", "error", "says"),
    [
        ("loop", Trap, "fuel"),
        ("bomb", Trap, "fuel"),
        ("bomb-touch", Trap, "fuel"),
        ("recurse", Trap, "call stack exhausted"),
        ("recurse-frames", Trap, "out of bounds"),
        ("oob", Trap, "out of bounds"),
        ("trap", Trap, "unreachable"),
        ("bad-pointer-reply", AbiError, "outside the memory"),
        ("straddling-reply", AbiError, "outside the memory"),
        ("huge-reply", AbiError, "2147483647 bytes"),
        ("huge-reply 1073741824", AbiError, "1073741824 bytes"),
        ("huge-error", AbiError, "2147483647 bytes"),
        ("reply-over-limit", AbiError, "5242880 bytes"),
        ("error", GuestError, "refused on request"),
        ("error-empty", GuestError, ""),
        ("error-not-utf8", GuestError, "bad \ufffd"),
        ("log-garbage", DecodeError, ""),
        ("log-outside", AbiError, "outside the memory"),
        ("host-calls", Trap, "fuel"),
        ("no-such-thing", GuestError, "no such behaviour"),
    ],
)
def test_hostile_fails_as_named(behaviour: str, error: type[Exception], says: str) -> None:
    endless = "fuel" in says
    guest = hostile(f"create_container:{behaviour}", fuel=100_000 if endless else FUEL)
    with pytest.raises(error) as caught:
        guest.create(CREATE)
    assert says in str(caught.value)


def test_hostile_answers_bytes_that_are_no_message() -> None:
    assert hostile("create_container:garbage").call("create_container", b"")[:2] == b"\x0a\xff"
    guest = hostile("stop_container:not-protobuf")
    assert guest.call("stop_container", b"").startswith(b"{")
    assert hostile("*:null-reply 12").call("shutdown", b"") == bytes(12)


def test_hostile_big_reply_is_a_valid_message() -> None:
    reply = hostile("*:reply-over-limit 4194304").call("create_container", b"")
    assert len(reply) == 4 << 20
    assert nri_pb2.CreateContainerResponse.FromString(reply).ListFields() == []


def test_hostile_changes_malloc_and_free_from_the_named_call_on() -> None:
    guest = hostile("synchronize:malloc-returns-zero")
    guest.create(CREATE)
    guest.call("synchronize", b"\x18\x00")
    with pytest.raises(AbiError, match="gave nothing"):
        guest.create(CREATE)

    guest = hostile("synchronize:malloc-returns-outside")
    guest.call("synchronize", b"")
    with pytest.raises(AbiError, match="outside the memory"):
        guest.create(CREATE)

    guest = hostile("create_container:free-traps")
    with pytest.raises(Trap):
        guest.create(CREATE)


def test_hostile_floods_a_finite_number_of_lines_and_one_huge_one() -> None:
    guest = hostile("create_container:log-flood 1000", "stop_container:log-huge")
    guest.create(CREATE)
    assert guest.lines[-1] == "flood 999"
    guest.call("stop_container", b"")
    assert len(guest.lines[-1]) == 8 << 20


def test_hostile_uses_the_edge_functions_without_measure() -> None:
    guest = hostile("create_container:report-flood 100", "stop_container:state-huge")
    guest.create(CREATE)
    guest.call("stop_container", b"")
    assert len(guest.reports) == 100
    assert len(guest.state["huge"]) == 1 << 20


@pytest.mark.parametrize("where", ["pod", "container"])
def test_hostile_obeys_an_annotation_of_pod_or_container(where: str) -> None:
    request = nri_pb2.CreateContainerRequest()
    request.CopyFrom(CREATE)
    getattr(request, where).annotations["edge.test/behaviour"] = "error"
    guest = hostile("create_container:trap")
    with pytest.raises(GuestError):
        guest.create(request)


def test_hostile_follows_the_last_rule_and_the_star_spares_configure() -> None:
    guest = hostile("*:trap", "create_container:ok")
    guest.create(CREATE)
    with pytest.raises(Trap):
        guest.call("remove_container", b"")


def test_hostile_version_is_two() -> None:
    assert Guest(GUESTS / "hostile-version.wasm").api_version() == 2
    assert Guest(HOSTILE).api_version() == 1


def test_bench_adds_an_annotation_a_variable_and_a_line() -> None:
    guest = Guest(GUESTS / "bench.wasm")
    assert guest.configure() == 1 << 3
    adjust = guest.create(CREATE).adjust
    assert dict(adjust.annotations) == {"edge.bench/plugin": "c"}
    assert [(pair.key, pair.value) for pair in adjust.env] == [("EDGE_BENCH", "c")]
    assert guest.logs == [(nri_pb2.LogRequest.LEVEL_INFO, "adjusted main")]


def test_old_gen_hears_of_pods_through_state_change_only() -> None:
    guest = Guest(GUESTS / "old-gen.wasm")
    assert guest.methods == {
        *("configure", "synchronize", "create_container", "update_container", "stop_container"),
        "state_change",
    }
    assert guest.configure() == 0b111_1111_1111
    event = nri_pb2.StateChangeEvent(event=nri_pb2.RUN_POD_SANDBOX, pod=CREATE.pod)
    guest.ask("state_change", event, nri_pb2.Empty)
    assert guest.lines == ["event 1 pod pod-0 container "]


def test_edge_counts_reports_and_asks_for_updates() -> None:
    guest = Guest(GUESTS / "edge.wasm")
    guest.configure()
    for count in ("1", "2"):
        assert guest.create(CREATE).adjust.annotations["edge.test/count"] == count
    assert [(report.kind, report.payload) for report in guest.reports] == [
        ("count", b"1"),
        ("count", b"2"),
    ]
    assert guest.state == {"count": b"2"}

    request = nri_pb2.CreateContainerRequest()
    request.CopyFrom(CREATE)
    request.container.annotations["edge.test/update"] = "other 33554432"
    request.container.annotations["edge.test/forget"] = "yes"
    assert guest.create(request).adjust.annotations["edge.test/count"] == "1"
    (update,) = guest.updates
    assert update.update[0].container_id == "other"
    assert update.update[0].linux.resources.memory.limit.value == 32 << 20
