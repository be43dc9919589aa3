"""Guests that break on every engine: the call ends with the right fault, the instance is
finished, and nothing else is touched."""

import struct
from dataclasses import dataclass
from functools import partial

import pytest

from edge_agent.errors import EngineError, GuestError, GuestFault, ModuleError
from edge_agent.wasm.engine import Bounds
from tests.support.assembler import (
    ADD,
    DROP,
    EQZ,
    FOREVER,
    LOAD,
    MEMORY_GROW,
    MEMORY_SIZE,
    STORE,
    UNREACHABLE,
    Assembly,
    call,
    get,
    i32,
    i64,
    repeat,
)
from tests.wasm.lab import MIB, Lab, Running
from tests.wasm.plugins import ECHO, NOTHING, WASI, packed, plugin

EXIT = (WASI, "proc_exit", "i-")
STATE_GET = ("edge", "state_get", "iiI")
# Of a call that never ends by itself. Short: every such test takes as long.
SHORT_S = 0.05

REMAINDER, TRUNCATE = b"\x6f", b"\xaa"  # i32.rem_s, i32.trunc_f64_s
INFINITE = b"\x44" + struct.pack("<d", float("inf"))


@dataclass(frozen=True)
class Case:
    """What to call in which guest, and the fault that it is."""

    kind: str
    says: str
    wasm: bytes = b""
    rule: str = ""  # of the hostile guest, where there is no `wasm`
    request: bytes = b"request"
    first: bool = False  # the rule changes malloc or free for the calls after it
    deadline_s: float = 60.0

    def start(self, lab: Lab) -> Running:
        if self.wasm:
            return lab.start(self.wasm)
        running = lab.hostile(f"create_container:{self.rule}")
        if self.first:
            running.call("create_container", b"")
        return running

    @property
    def method(self) -> str:
        return "configure" if self.wasm else "create_container"


bent = partial(plugin, {"configure": ECHO})


OUTSIDE = r"(read|write) of \d+ bytes at \d+: the memory has \d+ bytes"
STOPPED = rf"stopped after {SHORT_S} s, its limit"

CASES = {
    # Never ends.
    "loop": Case("timeout", f"create_container: {STOPPED}", rule="loop", deadline_s=SHORT_S),
    "loop in malloc": Case(
        "timeout", f"malloc: {STOPPED}", bent(malloc=FOREVER), deadline_s=SHORT_S
    ),
    "loop in free": Case("timeout", f"free: {STOPPED}", bent(free=FOREVER), deadline_s=SHORT_S),
    "host calls": Case("timeout", STOPPED, rule="host-calls", deadline_s=SHORT_S),
    "log flood": Case("timeout", STOPPED, rule="log-flood", deadline_s=SHORT_S),
    "report flood": Case("timeout", STOPPED, rule="report-flood", deadline_s=SHORT_S),
    "memory bomb": Case("timeout", STOPPED, rule="bomb", deadline_s=SHORT_S),
    "touched bomb": Case("timeout", STOPPED, rule="bomb-touch", deadline_s=SHORT_S),
    # Traps.
    "unreachable": Case("trap", "unreachable", rule="trap"),
    "out of bounds": Case("trap", "out of bounds", rule="oob"),
    "recursion": Case("trap", "stack", rule="recurse"),
    "recursion with frames": Case("trap", "out of bounds", rule="recurse-frames"),
    "division by zero": Case(
        "trap", "divi.* by zero", plugin({"configure": packed(i32(1) + i32(0) + REMAINDER, i32(0))})
    ),
    "conversion": Case(
        "trap", "integer", plugin({"configure": packed(INFINITE + TRUNCATE, i32(0))})
    ),
    "trap in malloc": Case("trap", "malloc: .*unreachable", bent(malloc=UNREACHABLE)),
    "trap in free": Case("trap", "free: .*unreachable", rule="free-traps"),
    "exit": Case(
        "trap",
        r"plugin_configure: the guest called proc_exit\(3\)",
        plugin({"configure": i32(3) + call(0) + NOTHING}, imports=(EXIT,)),
    ),
    "exit with 0": Case(
        "trap",
        r"proc_exit\(0\)",
        plugin({"configure": i32(0) + call(0) + NOTHING}, imports=(EXIT,)),
    ),
    "exit in malloc": Case(
        "trap",
        r"proc_exit\(9\)",
        plugin({"configure": ECHO}, malloc=i32(9) + call(0), imports=(EXIT,)),
    ),
    # Out of memory.
    "malloc gives nothing": Case(
        "memory", r"malloc\(7\) gave nothing", rule="malloc-returns-zero", first=True
    ),
    # Breaks the ABI.
    "malloc gives what is outside": Case(
        "abi",
        "write of 7 bytes at 4294967280: the memory has",
        rule="malloc-returns-outside",
        first=True,
    ),
    "reply outside": Case("abi", "read of 16 bytes at 4294901760", rule="bad-pointer-reply"),
    "reply over the end": Case("abi", OUTSIDE, rule="straddling-reply"),
    "reply past 4 GiB": Case(
        "abi",
        "read of 32 bytes at 4294967280",
        plugin({"configure": packed(i32(0xFFFFFFF0), i32(32))}),
    ),
    "error outside": Case(
        "abi",
        "read of 9 bytes at 4294967295",
        plugin({"configure": packed(i32(-1), i32(1 << 31 | 9))}),
    ),
    "reply over the limit": Case(
        "abi",
        "create_container answered 5242880 bytes; its limit is 4194304",
        rule="reply-over-limit",
    ),
    "reply of 2 GiB": Case("abi", "answered 2147483647 bytes", rule="huge-reply"),
    "log outside": Case("abi", OUTSIDE, rule="log-outside"),
    "malloc that never gets there": Case(
        "abi",
        "malloc called a host function that needs malloc",
        plugin(
            {"configure": ECHO},
            imports=(STATE_GET,),
            malloc=i32(1024) + i32(300) + call(0) + DROP,  # too long a key: refused with a text
        ),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_fault_finishes_one_instance_and_no_other(case: Case, lab: Lab) -> None:
    neighbour = case.start(lab)  # of the same module
    other = lab.start(plugin({"configure": ECHO}))
    faulty = case.start(lab)

    with pytest.raises(GuestFault, match=case.says) as caught:
        faulty.call(case.method, case.request, case.deadline_s)
    assert caught.value.kind == case.kind

    # It is finished: the same fault, without running anything; and not the same exception,
    # which would grow with each call.
    again = []
    for _ in range(2):
        with pytest.raises(GuestFault) as repeated:
            faulty.call("configure")
        assert (repeated.value.kind, str(repeated.value)) == (case.kind, str(caught.value))
        again.append(repeated.value)
    assert again[0] is not again[1]

    # Nobody else noticed.
    assert other.call("configure", b"still here") == b"still here"
    with pytest.raises(GuestFault, match=case.says):
        neighbour.call(case.method, case.request, case.deadline_s)
    with pytest.raises(GuestFault, match=case.says):
        case.start(lab).call(case.method, case.request, case.deadline_s)
    assert other.call("configure", b"and here") == b"and here"

    # Its end.
    assert faulty.instance.memory_bytes > 0
    for _ in range(2):
        faulty.instance.close()
        assert faulty.instance.memory_bytes == 0
    with pytest.raises(GuestFault) as closed:
        faulty.call("configure")
    assert str(closed.value) == str(caught.value)


def test_an_instance_that_is_closed_says_so(lab: Lab) -> None:
    running = lab.start(plugin({"configure": ECHO}))
    running.instance.close()
    running.instance.close()
    with pytest.raises(GuestFault, match="this instance is closed") as caught:
        running.call("configure", b"x")
    assert caught.value.kind == "closed"
    assert running.instance.memory_bytes == 0


def test_instances_outlive_their_module_and_a_closed_module_makes_no_more(lab: Lab) -> None:
    wasm = plugin({"configure": ECHO}, data={2048: b"a module of its own"})
    running = lab.start(wasm)
    module, _ = lab.bench.forget(wasm)
    module.close()
    module.close()
    assert running.call("configure", b"x") == b"x"
    with pytest.raises(EngineError, match="this module is closed"):
        module.instantiate(Bounds(MIB, MIB), {}, 1.0)


# ---- memory ----

GROW = i32(1) + MEMORY_GROW + i32(-1) + b"\x47"  # i32.ne: until it is refused
PAGES = i32(64) + MEMORY_SIZE + STORE + packed(i32(64), i32(4))


@pytest.mark.parametrize("pages", [4, 5, 64])
def test_memory_grows_to_its_limit_and_no_further(pages: int, lab: Lab) -> None:
    running = lab.start(plugin({"configure": repeat(GROW) + PAGES}), memory_bytes=pages * 65536)
    assert struct.unpack("<I", running.call("configure")) == (pages,)
    assert running.instance.memory_bytes == pages * 65536
    # A refusal is an answer, no fault: the guest decides what becomes of it.
    assert struct.unpack("<I", running.call("configure")) == (pages,)


def test_a_module_that_begins_above_the_limit_is_refused(lab: Lab) -> None:
    with pytest.raises(ModuleError, match=r"begins with 262144 bytes .* limit is 262143"):
        lab.start(plugin({"configure": ECHO}, pages=4), memory_bytes=262143)


def test_a_guest_without_memory_left_says_so_itself_or_is_told_so(lab: Lab) -> None:
    running = lab.hostile("*:leak 1048576")
    for _ in range(40):  # takes a MiB each time, as long as there is one
        running.call("create_container")
    with pytest.raises(GuestFault, match=r"malloc\(2097152\) gave nothing") as caught:
        running.call("create_container", bytes(2 << 20))
    assert caught.value.kind == "memory"
    assert running.instance.memory_bytes <= 32 * MIB


def test_what_a_guest_wrote_before_its_memory_grew_is_read_after(lab: Lab) -> None:
    # Grows by 8 MiB between writing its reply and answering: memory may have moved.
    grown = i32(2048) + i32(0x64636261) + STORE + i32(128) + MEMORY_GROW + DROP
    running = lab.start(plugin({"configure": grown + packed(i32(2048), i32(4))}))
    for _ in range(3):
        assert running.call("configure", b"request") == b"abcd"
    assert running.instance.memory_bytes > 24 * MIB


# ---- stack ----


def recursive(depth: int) -> bytes:
    """Configure calls itself `depth` times before it answers its request."""
    more = get(0) + get(1) + i32(1) + ADD + call(0)
    module = Assembly(4)
    stop = get(1) + i32(depth) + b"\x4f"  # i32.ge_u
    module.function(
        "iiI", stop + b"\x04\x7e" + i64(0) + b"\x05" + more + b"\x0b", export="plugin_configure"
    )
    module.function("ii", i32(1024), export="malloc")
    module.function("i-", b"", export="free")
    module.function("I", i64(1), export="plugin_api_version")
    return module.build()


def test_a_larger_stack_takes_deeper_recursion(lab: Lab) -> None:
    wasm = recursive(20_000)
    assert lab.start(wasm, stack_bytes=4 * MIB).call("configure") == b""
    with pytest.raises(GuestFault, match="stack") as caught:
        lab.start(wasm, stack_bytes=128 << 10).call("configure")
    assert caught.value.kind == "trap"


# ---- beginning ----


@pytest.mark.parametrize(
    ("wasm", "says"),
    [
        (bent(start=FOREVER), "instantiation"),
        (bent(extra={"_initialize": ("-", FOREVER)}), "_initialize"),
        (bent(extra={"_start": ("-", FOREVER)}), "_start"),
        (bent(version=FOREVER + i64(1)), "plugin_api_version"),
    ],
    ids=["start function", "_initialize", "_start", "plugin_api_version"],
)
def test_a_guest_that_never_finishes_to_start_is_stopped(wasm: bytes, says: str, lab: Lab) -> None:
    with pytest.raises(GuestFault, match=f"{says}: {STOPPED}") as caught:
        lab.start(wasm, deadline_s=SHORT_S)
    assert caught.value.kind == "timeout"


# ---- not faults ----


@pytest.mark.parametrize("rule", ["error", "error-empty", "error-not-utf8", "huge-error"])
def test_an_error_reply_of_the_hostile_guest_is_only_an_error(rule: str, lab: Lab) -> None:
    running = lab.hostile(f"create_container:{rule}")
    for _ in range(3):
        with pytest.raises(GuestError) as caught:
            running.call("create_container", b"x")
        assert 0 < len(str(caught.value)) <= 4096


@pytest.mark.parametrize(
    "rule", ["ok", "null-reply 12", "static-reply", "garbage", "not-protobuf", "state-huge"]
)
def test_strange_replies_are_the_hosts_to_judge(rule: str, lab: Lab) -> None:
    running = lab.hostile(f"create_container:{rule}")
    first = running.call("create_container", b"x")
    assert running.call("create_container", b"x") == first


def test_a_pointer_that_malloc_never_gave_is_freed_and_nothing_happens(lab: Lab) -> None:
    wasm = plugin({"configure": packed(i32(7), i32(1))}, free=get(0) + EQZ + b"\x04\x40\x00\x0b")
    assert lab.start(wasm).call("configure", b"x") == b"\0"


def test_the_trap_of_one_thread_is_no_trap_of_another_instance(lab: Lab) -> None:
    counted = i32(64) + i32(64) + LOAD + i32(1) + ADD + STORE + packed(i32(64), i32(4))
    steady = lab.start(plugin({"configure": counted}))
    for turn in range(1, 20):
        with pytest.raises(GuestFault):
            lab.hostile("create_container:oob").call("create_container", b"x")
        assert struct.unpack("<I", steady.call("configure")) == (turn,)


TRAPS = {
    "integer overflow": i32(-(1 << 31)) + i32(-1) + b"\x6d" + DROP,  # divided
    "integer division by zero": i32(1) + i32(0) + b"\x6f" + DROP,  # the remainder
    "invalid conversion to integer": b"\x44" + b"\xff" * 8 + b"\xaa" + DROP,
    "memory access out of bounds": i32(-1) + LOAD + DROP,
    "unreachable executed": b"\x00",
    # Of a table of three, whose second is null and whose others are of another type.
    "indirect call of another type": i32(0) + b"\x11\x00\x00",
    "indirect call to null": i32(1) + b"\x11\x00\x00",
    "table access out of bounds": i32(3) + b"\x11\x00\x00",
}


@pytest.mark.parametrize("says", TRAPS)
def test_every_trap_has_the_same_name(says: str, lab: Lab) -> None:
    module = Assembly(4)
    module.function("-", b"")  # so that this is type 0
    malloc = module.function("ii", i32(1024), export="malloc")
    module.function("i-", b"", export="free")
    module.function("I", i64(1), export="plugin_api_version")
    module.function("iiI", TRAPS[says] + i64(0), export="plugin_configure")
    module.entries[4].append(b"\x70\x00\x03")
    for place in (0, 2):
        module.entries[9].append(b"\x00" + i32(place) + b"\x0b\x01" + bytes([malloc]))
    with pytest.raises(GuestFault, match=f"plugin_configure: {says}$"):
        lab.start(module.build()).call("configure")


@pytest.mark.parametrize("says", ["memory access out of bounds", "table access out of bounds"])
@pytest.mark.parametrize("length", [0, 1])
def test_what_does_not_fit_where_the_instance_is_made_has_the_same_name(
    says: str, length: int, lab: Lab
) -> None:
    module = Assembly(4)
    malloc = module.function("ii", i32(1024), export="malloc")
    module.function("i-", b"", export="free")
    module.function("I", i64(1), export="plugin_api_version")
    module.function("iiI", i64(0), export="plugin_configure")
    if says.startswith("table"):
        module.entries[4].append(b"\x70\x00\x03")
        functions = bytes([length]) + bytes([malloc]) * length
        module.entries[9].append(b"\x00" + i32(-1) + b"\x0b" + functions)
    else:
        module.data(-1, b"x" * length)
    with pytest.raises(GuestFault, match=f"instantiation: {says}$"):
        lab.start(module.build())


def test_a_memory_that_moves_is_found_again(lab: Lab) -> None:
    grown = i32(2048) + i32(0x64636261) + STORE + i32(400) + MEMORY_GROW + DROP
    running = lab.start(
        plugin({"configure": grown + packed(i32(2048), i32(4))}), memory_bytes=256 * MIB
    )
    for _ in range(8):
        assert running.call("configure", b"request") == b"abcd"
    assert running.instance.memory_bytes > 190 * MIB
