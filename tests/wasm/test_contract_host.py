"""What a guest asks of its host, on every engine: log, reports, updates, state, and a host
function that fails."""

import struct
import time
from collections.abc import Callable

import pytest

from edge_agent.errors import GuestError, GuestFault
from edge_agent.pb import edge_pb2, nri_pb2
from edge_agent.wasm.abi import MAX_HOST_CALLS
from edge_agent.wasm.engine import Guest, GuestExit, HostFunction
from edge_agent.wasm.imports import (
    MAX_CONTENT_TYPE_BYTES,
    MAX_KEY_BYTES,
    MAX_KIND_BYTES,
    MAX_REPORT_BYTES,
    MAX_REPORTS_BYTES_PER_CALL,
    MAX_REPORTS_PER_CALL,
    MAX_UPDATE_BYTES,
    MAX_UPDATES_PER_CALL,
    PluginState,
    Report,
)
from edge_agent.wasm.module import FuncType
from tests.support.assembler import ADD, DROP, LOAD, STORE, call, get, i32, i64, repeat
from tests.wasm.lab import Lab, Running, capture, guest
from tests.wasm.plugins import ECHO, ERROR_BIT, NOTHING, asking, plugin

SERVICES = ("report", "update_containers", "state_get", "state_put")
CREATE = nri_pb2.CreateContainerRequest.FromString(capture("create_container"))


def relay(field: str, where: str = "edge") -> bytes:
    """A plugin that hands its request to a host function and answers what that answered."""
    body = get(0) + get(1) + call(0)
    return plugin({"configure": body}, imports=((where, field, "iiI"),), pages=64)


def created(running: Running, **annotations: str) -> nri_pb2.CreateContainerResponse:
    request = nri_pb2.CreateContainerRequest()
    request.CopyFrom(CREATE)
    for key, value in annotations.items():
        request.container.annotations[f"edge.test/{key}"] = value
    reply = running.call("create_container", request.SerializeToString())
    return nri_pb2.CreateContainerResponse.FromString(reply)


# ---- edge ----


def test_a_c_guest_uses_every_function_of_edge(lab: Lab) -> None:
    state = PluginState()
    running = lab.start(guest("edge"), state=state)
    running.configure()
    for count in ("1", "2"):
        reply = created(running, update="other 1000")
        assert reply.adjust.annotations["edge.test/count"] == count
    assert state.get("count") == b"2"
    assert running.services.reports == [
        Report("count", b"1", "text/plain"),
        Report("count", b"2", "text/plain"),
    ]
    update = nri_pb2.UpdateContainersRequest.FromString(running.services.updates[0])
    assert update.update[0].container_id == "other"
    assert update.update[0].linux.resources.memory.limit.value == 1000
    # State outlives the instance; an empty value deletes.
    successor = lab.start(guest("edge"), state=state)
    assert created(successor).adjust.annotations["edge.test/count"] == "3"
    assert created(successor, forget="yes").adjust.annotations["edge.test/count"] == "1"


def test_a_muted_guest_is_heard_but_changes_nothing(lab: Lab) -> None:
    running = lab.start(guest("edge"))
    running.services.muted = True
    for _ in range(2):
        assert created(running, update="other 1").adjust.annotations["edge.test/count"] == "1"
    assert (running.services.reports, running.services.updates) == ([], [])
    assert running.services.state.get("count") is None
    running.services.muted = False
    assert created(running).adjust.annotations["edge.test/count"] == "1"
    assert running.services.state.get("count") == b"1"


def test_state_is_read_back_and_absence_is_told(lab: Lab) -> None:
    state = PluginState()
    state.put("key", b"value \0\xff")
    running = lab.start(relay("state_get"), state=state)
    ask = edge_pb2.StateGetRequest(key="key").SerializeToString()
    found = edge_pb2.StateGetResponse.FromString(running.call("configure", ask))
    assert (found.found, found.value) == (True, b"value \0\xff")
    ask = edge_pb2.StateGetRequest(key="other").SerializeToString()
    assert running.call("configure", ask) == b""


OVER = {
    "report: payload": (
        "report",
        edge_pb2.Report(payload=bytes(MAX_REPORT_BYTES + 1)),
        f"edge.report takes a payload of at most {MAX_REPORT_BYTES} bytes, not 16385",
    ),
    "report: kind": ("report", edge_pb2.Report(kind="x" * (MAX_KIND_BYTES + 1)), "a kind of at"),
    "report: content type": (
        "report",
        edge_pb2.Report(content_type="ä" * (MAX_CONTENT_TYPE_BYTES // 2 + 1)),
        "a content type of at most 128 bytes, not 130",
    ),
    "report: all of it": (
        "report",
        edge_pb2.Report(payload=bytes(1 << 20)),
        r"edge.report takes at most \d+ bytes, not 1048580",
    ),
    "update": (
        "update_containers",
        nri_pb2.UpdateContainersRequest(
            evict=[nri_pb2.ContainerEviction(reason="x" * MAX_UPDATE_BYTES)]
        ),
        r"edge.update_containers takes at most 1048576 bytes",
    ),
    "state key to get": (
        "state_get",
        edge_pb2.StateGetRequest(key="x" * (MAX_KEY_BYTES + 20)),
        "edge.state_get takes at most",
    ),
    "state key": (
        "state_put",
        edge_pb2.StatePutRequest(key="x" * (MAX_KEY_BYTES + 1), value=b"1"),
        "edge.state_put takes a key of at most 256 bytes",
    ),
    "state": (
        "state_put",
        edge_pb2.StatePutRequest(key="k", value=bytes(PluginState.MAX_BYTES)),
        "edge.state_put keeps at most 65536 bytes under 1024 keys",
    ),
    "state: all of it": (
        "state_put",
        edge_pb2.StatePutRequest(key="k", value=bytes(1 << 20)),
        r"edge.state_put takes at most \d+ bytes, not 10485",
    ),
}


@pytest.mark.parametrize(("field", "request_", "says"), OVER.values(), ids=OVER)
def test_what_is_over_a_limit_is_refused_and_told(
    field: str, request_: edge_pb2.Report, says: str, lab: Lab
) -> None:
    running = lab.start(relay(field))
    for _ in range(2):
        with pytest.raises(GuestError, match=says) as caught:
            running.call("configure", request_.SerializeToString())
        assert running.lines.pop() == (3, str(caught.value))
    assert (running.services.reports, running.services.updates) == ([], [])
    assert running.services.state.get("k") is None


@pytest.mark.parametrize(
    ("field", "request_", "most"),
    [
        ("report", edge_pb2.Report(kind="k"), MAX_REPORTS_PER_CALL),
        ("update_containers", nri_pb2.UpdateContainersRequest(), MAX_UPDATES_PER_CALL),
    ],
)
def test_the_number_of_requests_for_one_event_is_limited(
    field: str, request_: edge_pb2.Report, most: int, lab: Lab
) -> None:
    running = lab.start(relay(field))
    for _ in range(most):
        assert running.call("configure", request_.SerializeToString()) == b""
    with pytest.raises(GuestError, match=rf"edge\.{field} takes at most {most} "):
        running.call("configure", request_.SerializeToString())
    # Whoever called takes them; then there is room again.
    running.services.reports.clear()
    running.services.updates.clear()
    assert running.call("configure", request_.SerializeToString()) == b""


def test_the_reports_of_one_event_fit_one_message(lab: Lab) -> None:
    running = lab.start(relay("report"))
    report = edge_pb2.Report(kind="k", payload=bytes(MAX_REPORT_BYTES)).SerializeToString()
    for _ in range(MAX_REPORTS_BYTES_PER_CALL // MAX_REPORT_BYTES):
        assert running.call("configure", report) == b""
    with pytest.raises(GuestError, match="at most 49152 bytes of payload for one event"):
        running.call("configure", report)
    assert running.call("configure", edge_pb2.Report(kind="k").SerializeToString()) == b""


def test_a_flood_of_reports_stays_within_its_limit(lab: Lab) -> None:
    running = lab.hostile("create_container:report-flood 1000", lines_per_s=5)
    began = time.monotonic()
    assert running.call("create_container", b"x") == b""
    seconds = time.monotonic() - began
    assert len(running.services.reports) == MAX_REPORTS_PER_CALL
    # Each second 5 and one that tells of the others; a slow machine takes several.
    assert len(running.lines) <= 6 * (seconds + 1)


@pytest.mark.parametrize(
    "garbage", [b"\x0a\xff\xff\xff\xff\x7f", b"\xff" * 20, b"\x0a\x02\xff\xfe"]
)
@pytest.mark.parametrize("field", SERVICES)
def test_bytes_that_are_no_message_finish_the_guest(field: str, garbage: bytes, lab: Lab) -> None:
    running = lab.start(relay(field))
    with pytest.raises(GuestFault, match=rf"edge\.{field} was called with no such mess") as caught:
        running.call("configure", garbage)
    assert caught.value.kind == "abi"
    with pytest.raises(GuestFault, match="no such message"):
        running.call("configure", b"")


@pytest.mark.parametrize("field", SERVICES)
@pytest.mark.parametrize(
    ("pointer", "size"), [(0xFFFFFFF0, 0x7FFFFFFF), (262140, 8), (0xFFFFFFFF, 0)]
)
def test_a_request_outside_the_memory_is_no_request(
    field: str, pointer: int, size: int, lab: Lab
) -> None:
    running = lab.start(asking("edge", field, "iiI", i32(pointer), i32(size)))
    if size == 0x7FFFFFFF:  # over the limit: refused before it is read
        assert struct.unpack("<Q", running.call("configure"))[0] & ERROR_BIT
    else:
        with pytest.raises(GuestFault, match=f"read of {size} bytes at {pointer}: the memory"):
            running.call("configure")


# ---- env.log ----


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        (nri_pb2.LogRequest(msg="debug", level="LEVEL_DEBUG"), (1, "debug")),
        (nri_pb2.LogRequest(msg="error", level="LEVEL_ERROR"), (4, "error")),
        (nri_pb2.LogRequest(msg="none"), (2, "none")),
        (nri_pb2.LogRequest(), (2, "")),
    ],
)
def test_a_guest_logs_with_its_level(
    request_: nri_pb2.LogRequest, line: tuple[int, str], lab: Lab
) -> None:
    running = lab.start(relay("log", "env"))
    assert running.call("configure", request_.SerializeToString()) == b""
    assert running.lines == [line]


def test_a_line_of_megabytes_is_cut_and_says_by_how_much(lab: Lab) -> None:
    running = lab.hostile("create_container:log-huge 8388608")
    assert running.call("create_container", b"x") == b""
    assert running.texts == ["x" * 4096 + " [cut, 8384512 bytes more]"]


def test_a_log_request_that_is_no_message_is_a_line_too(lab: Lab) -> None:
    running = lab.hostile("create_container:log-garbage")
    assert running.call("create_container", b"x") == b""
    assert len(running.lines) == 1
    assert "no such leng" in running.texts[0]


def test_a_flood_of_lines_is_counted_and_the_guest_goes_on(lab: Lab) -> None:
    running = lab.hostile("create_container:log-flood 5000", lines_per_s=10)
    assert running.call("create_container", b"x") == b""
    log = running.services.log
    log.flush()
    shown = [text for text in running.texts if text.startswith("flood ")]
    assert len(shown) + log.dropped == 5000
    assert shown[:10] == [f"flood {number}" for number in range(10)]
    assert log.dropped > 1000
    assert "log lines dropped: more than 10 a second" in running.texts[-1]


# ---- a host function that fails ----


def failing(behaviour: Callable[[Guest], object]) -> dict[tuple[str, str], HostFunction]:
    def host(guest: Guest, *_: int) -> int | None:
        return behaviour(guest)  # type: ignore[return-value]

    return {("env", "log"): HostFunction(FuncType(("i32", "i32"), ("i64",)), host)}


def raising(error: BaseException) -> Callable[[Guest], object]:
    def behaviour(_guest: Guest) -> object:
        raise error

    return behaviour


@pytest.mark.parametrize(
    ("behaviour", "kind", "says"),
    [
        (raising(KeyError("x")), "trap", r"the host function env\.log failed: KeyError\('x'\)"),
        (raising(RecursionError()), "trap", "failed: RecursionError"),
        (lambda _: "text", "trap", "failed: TypeError"),
        (raising(GuestError("not here")), "trap", "failed: GuestError"),
        (raising(GuestFault("abi", "as it is")), "abi", "^as it is$"),
        (raising(GuestExit(7)), "trap", r"proc_exit\(7\)"),
        (lambda guest: guest.read(1 << 31, 1), "abi", "read of 1 bytes at 2147483648"),
        (lambda guest: guest.write(4194304, b"x"), "abi", "write of 1 bytes at 4194304"),
        (lambda guest: guest.allocate(5), "", ""),
    ],
)
def test_a_host_function_that_fails_ends_the_guest_and_not_the_agent(
    behaviour: Callable[[Guest], object], kind: str, says: str, lab: Lab
) -> None:
    extra = failing(behaviour)
    running = lab.start(relay("log", "env"), extra=extra)
    if not kind:
        running.call("configure", b"x")
        return
    with pytest.raises(GuestFault, match=says) as caught:
        running.call("configure", b"request")
    assert caught.value.kind == kind
    with pytest.raises(GuestFault, match=says):
        running.call("configure", b"request")
    running.instance.close()
    assert lab.start(relay("log", "env")).call("configure", b"") == b""


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_process_passes_through_and_finishes_the_guest(
    error: type[BaseException], lab: Lab
) -> None:
    running = lab.start(relay("log", "env"), extra=failing(raising(error())))
    with pytest.raises(error):
        running.call("configure", b"request")
    with pytest.raises(GuestFault, match=f"its last call was ended by {error.__name__}"):
        running.call("configure", b"request")


def test_an_instance_cannot_be_closed_under_its_own_call(lab: Lab) -> None:
    started: list[Running] = []
    running = lab.start(relay("log", "env"), extra=failing(lambda _: started[0].instance.close()))
    started.append(running)
    with pytest.raises(GuestFault, match="an instance was closed during a call of it"):
        running.call("configure", b"request")
    running.instance.close()
    assert running.instance.memory_bytes == 0


def test_a_host_function_reads_and_writes_what_the_guest_sees(lab: Lab) -> None:
    def upper(guest: Guest, pointer: int, size: int) -> int:
        text = guest.read(pointer, size).upper()
        there = guest.allocate(2 * size)
        guest.write(there, text * 2)
        assert guest.seconds_left() > 0
        return there << 32 | 2 * size

    extra = {("env", "log"): HostFunction(FuncType(("i32", "i32"), ("i64",)), upper)}
    running = lab.start(relay("log", "env"), extra=extra)
    for word in (b"one", b"four", b"x" * 50_000):
        assert running.call("configure", word) == word.upper() * 2


def test_numbers_arrive_unsigned_and_whole(lab: Lab) -> None:
    seen: list[tuple[int, ...]] = []

    def host(_guest: Guest, *numbers: int) -> int:
        seen.append(numbers)
        return 0xFEDCBA9876543210

    kind = "iIiI"
    extra = {
        ("env", "numbers"): HostFunction(FuncType(("i32", "i64", "i32"), ("i64",)), host),
    }
    wasm = asking("env", "numbers", kind, i32(-1), i64(-2), i32(0x80000000))
    reply = lab.start(wasm, extra=extra).call("configure")
    assert seen == [(0xFFFFFFFF, 0xFFFFFFFFFFFFFFFE, 0x80000000)]
    assert struct.unpack("<Q", reply) == (0xFEDCBA9876543210,)


def test_a_host_function_without_a_result_returns(lab: Lab) -> None:
    extra = {("env", "poke"): HostFunction(FuncType(("i32",), ()), lambda *_: None)}
    body = i32(1) + call(0) + ECHO
    wasm = plugin({"configure": body}, imports=(("env", "poke", "i-"),))
    assert lab.start(wasm, extra=extra).call("configure", b"x") == b"x"


# ---- how often ----


def yielding(turns: int) -> bytes:
    """Code that calls the only import so many times."""
    more = i32(64) + LOAD + i32(turns) + b"\x49"  # i32.lt_u
    count = i32(64) + i32(64) + LOAD + i32(1) + ADD + STORE
    return i32(64) + i32(0) + STORE + repeat(call(0) + DROP + count + more)


YIELD = (("wasi_snapshot_preview1", "sched_yield", "i"),)


def test_a_call_may_ask_its_host_so_many_times(lab: Lab) -> None:
    running = lab.start(plugin({"configure": yielding(MAX_HOST_CALLS) + NOTHING}, imports=YIELD))
    for _ in range(2):  # each call anew
        assert running.call("configure") == b""


def test_a_call_that_asks_its_host_once_more_is_ended(lab: Lab) -> None:
    running = lab.start(
        plugin({"configure": yielding(MAX_HOST_CALLS + 1) + NOTHING}, imports=YIELD)
    )
    for _ in range(2):
        with pytest.raises(GuestFault, match="called its host more than 100000 times") as caught:
            running.call("configure")
        assert caught.value.kind == "calls"


def test_a_start_that_asks_its_host_without_end_is_ended(lab: Lab) -> None:
    wasm = plugin(imports=YIELD, start=yielding(1 << 30))
    with pytest.raises(GuestFault) as caught:
        lab.start(wasm)
    assert caught.value.kind == "calls"


def test_calls_out_of_a_malloc_that_the_host_asked_for_count_too(lab: Lab) -> None:
    # Two for each round: the host's function, and what its malloc calls.
    wasm = plugin(
        {"configure": repeat(i32(0) + i32(0) + call(1) + DROP + i32(1)) + NOTHING},
        imports=(*YIELD, ("env", "answer", "iiI")),
        malloc=call(0) + DROP,
    )
    rounds = 0

    def answer(guest: Guest, _first: int, _second: int) -> int:
        nonlocal rounds
        rounds += 1
        guest.allocate(1)
        return 0

    extra = {("env", "answer"): HostFunction(FuncType(("i32", "i32"), ("i64",)), answer)}
    with pytest.raises(GuestFault) as caught:
        lab.start(wasm, extra=extra).call("configure")
    assert caught.value.kind == "calls"
    assert rounds == MAX_HOST_CALLS // 2


# ---- before there is an instance ----


@pytest.mark.parametrize(
    "ask",
    [
        lambda guest: guest.read(0, 4),
        lambda guest: guest.write(0, b"text"),
        lambda guest: guest.allocate(4),
    ],
    ids=["read", "write", "allocate"],
)
def test_a_start_function_that_calls_a_host_function_for_its_memory_fails(
    ask: Callable[[Guest], object], lab: Lab
) -> None:
    def asked(guest: Guest) -> int:
        ask(guest)
        return 0

    early = plugin({"configure": ECHO}, imports=(("test", "ask", "i"),), start=call(0) + DROP)
    functions = {("test", "ask"): HostFunction(FuncType((), ("i32",)), asked)}
    with pytest.raises(GuestFault, match="before its start function has returned") as caught:
        lab.start(early, extra=functions)
    assert caught.value.kind == "abi"
    # With nothing to say, it starts.
    nothing = {("test", "ask"): HostFunction(FuncType((), ("i32",)), lambda _guest: 0)}
    assert lab.start(early, extra=nothing).call("configure", b"x") == b"x"


def test_a_start_function_that_logs_fails(lab: Lab) -> None:
    logging = i32(16) + i32(4) + call(0) + DROP
    early = plugin({"configure": ECHO}, imports=(("env", "log", "iiI"),), start=logging)
    with pytest.raises(GuestFault, match="before its start function has returned"):
        lab.start(early)
