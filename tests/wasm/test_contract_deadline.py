"""Deadlines on every engine: what is within its time is never cut, what is not is, and one
instance's time is not another's."""

import struct
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.errors import GuestFault
from edge_agent.wasm.engine import Guest, HostFunction
from edge_agent.wasm.module import FuncType
from tests.support.assembler import (
    ADD,
    DROP,
    FOREVER,
    LOAD,
    MEMORY_GROW,
    STORE,
    Assembly,
    call,
    get,
    i32,
    i64,
    repeat,
)
from tests.wasm.lab import Lab, Running, capture, guest
from tests.wasm.plugins import ECHO, NOTHING, packed, plugin

CREATE = capture("create_container")
COUNT = i32(64) + i32(64) + LOAD + i32(1) + ADD + STORE
COUNTER = packed(i32(64), i32(4))
WAIT = ("env", "wait", "i-")


def waiting(seconds: float) -> dict[tuple[str, str], HostFunction]:
    """A host function that takes `seconds`, in which the engine's clock goes on."""

    def wait(_guest: Guest, _: int) -> None:
        time.sleep(seconds)

    return {("env", "wait"): HostFunction(FuncType(("i32",), ()), wait)}


def rounds(count: int) -> bytes:
    """Code that goes around a loop `count` times."""
    more = i32(64) + LOAD + i32(count) + b"\x49"  # i32.lt_u
    return i32(64) + i32(0) + STORE + repeat(COUNT + more)


def never_cut_early(running: Running, deadline_s: float) -> bool:
    """Call Configure: whether it ended by itself. Stopped before its time it fails the test.

    A machine that is busy elsewhere may well take longer than the deadline: then it is right.
    """
    began = time.monotonic()
    try:
        running.call("configure", deadline_s=deadline_s)
    except GuestFault as fault:
        taken = time.monotonic() - began
        if taken >= deadline_s:
            return False
        raise AssertionError(f"cut after {taken} s of {deadline_s} s") from fault
    return True


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
    max_examples=12,
)
@given(gaps=st.lists(st.sampled_from([0.0, 0.001, 0.02, 0.03, 0.2, 0.26, 0.3]), max_size=5))
def test_a_call_within_its_time_is_not_cut_whatever_came_before(
    gaps: list[float], lab: Lab
) -> None:
    # The engine's clock stops between bursts of calls and starts again with the next.
    wasm = plugin({"configure": rounds(1000) + COUNTER})
    running = lab.start(wasm)
    for gap in gaps:
        time.sleep(gap)
        for _ in range(10):
            if not never_cut_early(running, 0.025):  # the precision of a deadline
                running = lab.start(wasm)


def test_a_call_takes_the_time_that_it_has(lab: Lab) -> None:
    # Most of it, in the host and then in the guest: it is not cut for that.
    code = i32(0) + call(0) + rounds(1000) + COUNTER
    wasm = plugin({"configure": code}, imports=(WAIT,))
    for _ in range(4):
        never_cut_early(lab.start(wasm, extra=waiting(0.15)), 0.2)
    assert never_cut_early(lab.start(wasm, extra=waiting(0.15)), 60.0)


def test_each_call_has_its_own_time(lab: Lab) -> None:
    code = i32(0) + call(0) + rounds(100) + COUNTER
    wasm = plugin({"configure": code}, imports=(WAIT,))
    running = lab.start(wasm, extra=waiting(0.06))
    for _ in range(8):  # longer than one deadline together
        if not never_cut_early(running, 0.2):
            running = lab.start(wasm, extra=waiting(0.06))


@pytest.mark.parametrize("deadline_s", [0.0, -1.0, -1e9, 1e-9])
def test_a_call_without_time_left_is_stopped_or_done_and_never_endless(
    deadline_s: float, lab: Lab
) -> None:
    running = lab.hostile("create_container:loop")
    with pytest.raises(GuestFault) as caught:
        running.call("create_container", b"x", deadline_s)
    assert caught.value.kind == "timeout"


def test_a_guest_is_told_how_much_time_is_left(lab: Lab) -> None:
    left: list[float] = []

    def look(guest: Guest, _: int) -> None:
        left.append(guest.seconds_left())

    extra = {("env", "wait"): HostFunction(FuncType(("i32",), ()), look)}
    wasm = plugin({"configure": i32(0) + call(0) + NOTHING}, imports=(WAIT,))
    running = lab.start(wasm, extra=extra)
    for deadline_s in (30.0, 5.0, 30.0):
        running.call("configure", deadline_s=deadline_s)
        assert 0 < left.pop() <= deadline_s


def test_one_instances_time_out_is_no_other_ones(lab: Lab) -> None:
    endless = plugin({"configure": FOREVER + NOTHING})
    steady = lab.start(plugin({"configure": rounds(10_000) + COUNTER}))
    failures: list[str] = []
    done = threading.Event()

    def steadily() -> None:
        while not done.is_set():
            try:
                assert struct.unpack("<I", steady.call("configure")) == (10_000,)
            except Exception as error:  # told to the thread that asserts
                failures.append(repr(error))
                return

    thread = threading.Thread(target=steadily)
    thread.start()
    try:
        for _ in range(5):
            with pytest.raises(GuestFault) as caught:
                lab.start(endless).call("configure", deadline_s=0.05)
            assert caught.value.kind == "timeout"
    finally:
        done.set()
        thread.join()
    assert failures == []


def test_a_thread_makes_instances_while_another_calls(lab: Lab) -> None:
    wasm = guest("bench")
    served = lab.start(wasm)
    made: list[Running] = []
    failures: list[BaseException] = []

    def make() -> None:
        try:
            for _ in range(60):
                running = lab.start(wasm)
                running.configure()
                made.append(running)
        except BaseException as error:
            failures.append(error)

    first = served.call("create_container", CREATE)
    thread = threading.Thread(target=make)
    thread.start()
    calls = 0
    while thread.is_alive() or calls < 200:
        assert served.call("create_container", CREATE) == first
        calls += 1
    thread.join()
    assert failures == []
    # Made there, called here.
    assert {running.call("create_container", CREATE) for running in made} == {first}


def test_two_threads_that_call_first_make_one_clock(lab: Lab) -> None:
    # Were there two, time would run twice as fast.
    code = i32(0) + call(0) + rounds(1000) + COUNTER
    wasm = plugin({"configure": code}, imports=(WAIT,))
    instances = [lab.start(wasm, extra=waiting(0.3)) for _ in range(4)]
    failures: list[BaseException] = []

    def first_call(one: Running) -> None:
        try:
            never_cut_early(one, 0.4)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=first_call, args=(one,)) for one in instances]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


FLOOD = b"\x03\x40" + i32(0) + call(0) + b"\x0c\x00\x0b" + NOTHING


def test_time_goes_on_while_a_guest_floods_its_host_with_calls(lab: Lab) -> None:
    running = lab.start(plugin({"configure": FLOOD}, imports=(WAIT,)), extra=waiting(0.0))
    with pytest.raises(GuestFault) as caught:
        running.call("configure", deadline_s=0.1)
    assert caught.value.kind in ("timeout", "calls")  # whichever came first
    assert lab.start(plugin({"configure": ECHO})).call("configure", b"x") == b"x"


# ---- what never ends ----

# Of a block of 64 KiB, which is filled and moved again and again.
FILL = i32(8192) + i32(0) + i32(1 << 16) + b"\xfc\x0b\x00"
COPY = i32(8192) + i32(9000) + i32(1 << 16) + b"\xfc\x0a\x00\x00"
STRAIGHT = (i32(64) + i32(64) + LOAD + i32(3) + ADD + STORE) * 5_000


@pytest.mark.parametrize(
    "work",
    [b"", FILL, COPY, STRAIGHT, i32(0) + MEMORY_GROW + DROP],
    ids=["nothing", "fill", "copy", "straight code", "grow"],
)
def test_an_endless_loop_is_stopped_whatever_it_does(work: bytes, lab: Lab) -> None:
    running = lab.start(plugin({"configure": b"\x03\x40" + work + b"\x0c\x00\x0b" + NOTHING}))
    began = time.monotonic()
    with pytest.raises(GuestFault) as caught:
        running.call("configure", deadline_s=0.1)
    assert caught.value.kind == "timeout"
    # The port's 50 ms are for an idle machine: here only that it is no multiple.
    assert time.monotonic() - began < 10


# Of the 16 MiB behind the first page, again and again in a straight line: no loop, no call.
_LARGE = (16 << 20) - (1 << 16)
LARGE_FILL = i32(1 << 16) + i32(0) + i32(_LARGE) + b"\xfc\x0b\x00"
LARGE_COPY = i32((1 << 16) + 1) + i32(1 << 16) + i32(_LARGE - 1) + b"\xfc\x0a\x00\x00"


@pytest.mark.parametrize("work", [LARGE_FILL, LARGE_COPY], ids=["fill", "copy"])
def test_a_straight_line_of_large_operations_is_stopped(work: bytes, lab: Lab) -> None:
    # All of it would take seconds anywhere: a millisecond and more each.
    wasm = plugin({"configure": work * 5_000 + NOTHING}, pages=256)
    with pytest.raises(GuestFault) as caught:
        lab.start(wasm).call("configure", deadline_s=0.1)
    assert caught.value.kind == "timeout"


def test_a_straight_line_of_host_calls_is_stopped(lab: Lab) -> None:
    calls = 0

    def wait(_guest: Guest, _: int) -> None:
        nonlocal calls
        calls += 1
        time.sleep(0.002)

    extra = {("env", "wait"): HostFunction(FuncType(("i32",), ()), wait)}
    wasm = plugin({"configure": (i32(0) + call(0)) * 5_000 + NOTHING}, imports=(WAIT,))
    with pytest.raises(GuestFault) as caught:
        lab.start(wasm, extra=extra).call("configure", deadline_s=0.1)
    assert caught.value.kind == "timeout"
    assert calls <= 51  # each takes 2 ms at least, and none begins when the time is up


def test_recursion_without_a_loop_is_stopped(lab: Lab) -> None:
    # Twice each: 2 ** 40 calls, but never deeper than 40.
    module = Assembly(4)
    twice = get(0) + i32(1) + ADD + get(1) + call(0) + DROP
    body = get(0) + i32(40) + b"\x49\x04\x40" + twice + twice + b"\x0b" + i64(0)
    module.function("iiI", body, export="plugin_configure")
    module.function("ii", i32(1024), export="malloc")
    module.function("i-", b"", export="free")
    module.function("I", i64(1), export="plugin_api_version")
    with pytest.raises(GuestFault) as caught:
        lab.start(module.build()).call("configure", deadline_s=0.2)
    assert caught.value.kind == "timeout"


def test_a_slow_host_function_is_called_only_while_there_is_time(lab: Lab) -> None:
    calls = 0

    def wait(_guest: Guest, _: int) -> None:
        nonlocal calls
        calls += 1
        time.sleep(0.002)

    extra = {("env", "wait"): HostFunction(FuncType(("i32",), ()), wait)}
    often = (i32(0) + call(0)) * 20
    wasm = plugin({"configure": b"\x03\x40" + often + b"\x0c\x00\x0b" + NOTHING}, imports=(WAIT,))
    with pytest.raises(GuestFault) as caught:
        lab.start(wasm, extra=extra).call("configure", deadline_s=0.1)
    assert caught.value.kind == "timeout"
    assert calls < 500  # 50 on a clock without a grain


def test_other_threads_run_while_a_guest_does(lab: Lab) -> None:
    running = lab.start(plugin({"configure": FOREVER + NOTHING}))
    turns = 0
    done = threading.Event()

    def count() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    before = turns
    with pytest.raises(GuestFault):
        running.call("configure", deadline_s=0.5)
    assert turns - before > 5
    done.set()
    thread.join()


def test_the_malloc_of_a_reply_lets_other_threads_run_and_ends_in_time(lab: Lab) -> None:
    wasm = plugin(
        {"configure": i32(0) + i32(0) + call(0)},
        imports=(("env", "answer", "iiI"),),
        malloc=get(0) + i32(77) + b"\x46\x04\x40" + FOREVER + b"\x0b",  # for 77 bytes: for ever
    )

    def answer(guest: Guest, _first: int, _second: int) -> int:
        guest.allocate(77)
        raise AssertionError("it came back")

    extra = {("env", "answer"): HostFunction(FuncType(("i32", "i32"), ("i64",)), answer)}
    running = lab.start(wasm, extra=extra)
    with pytest.raises(GuestFault, match=r"malloc: stopped after 0\.2 s") as caught:
        running.call("configure", deadline_s=0.2)
    assert caught.value.kind == "timeout"


def test_counting_loops_end_where_they_should(lab: Lab) -> None:
    # Across many refills: what the meter adds changes no result.
    running = lab.start(plugin({"configure": rounds(3_000_000) + COUNTER}))
    assert int.from_bytes(running.call("configure"), "little") == 3_000_000
