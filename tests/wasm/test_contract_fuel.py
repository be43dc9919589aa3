"""Fuel: the same cut, after the same instruction, on every engine."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.errors import EngineError, GuestError, GuestFault, ModuleError
from edge_agent.wasm.compiler_process import compile_here
from edge_agent.wasm.engine import Bounds, Guest, HostFunction
from edge_agent.wasm.guestlog import GuestLog
from edge_agent.wasm.imports import HostServices, PluginState
from edge_agent.wasm.module import FuncType, inspect
from tests.support import engines, wasmgen
from tests.support.assembler import FOREVER, call, get, i32, i64
from tests.support.gobuild import go_annotator_module, require_go
from tests.wasm.conftest import NOT_EMULATED
from tests.wasm.lab import MIB, ROOT, Bench, Lab, capture, configure_request, guest
from tests.wasm.plugins import ECHO, plugin

ENDLESS = 10**15  # the most that can be configured
STACK_BYTES = 2 << 20  # enough for any recursion that the fuel below pays for
PLUGINS = sorted((ROOT / "plugins").glob("*/*.wasm"))
BENCH_TAKES = [1400, 17675, 17459]  # Configure, CreateContainer twice; others after a change
CALLS = (
    ("configure", configure_request()),
    ("synchronize", capture("synchronize")),
    ("run_pod_sandbox", capture("run_pod_sandbox")),
    ("create_container", capture("create_container")),
    ("create_container", capture("create_container")),
)


class Step(NamedTuple):
    """One call: what came of it, and the fuel that it took."""

    method: str
    result: object
    fuel: int


@pytest.fixture(scope="module")
def labs(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[list[Lab]]:
    """One for each engine that is here: what is compared needs two at least."""
    left_out = NOT_EMULATED if pytestconfig.getoption("emulated") else {}
    made = [engines.make(name) for name in engines.ENGINES if name not in left_out]
    here = [each for each in made if not isinstance(each, str)]
    if len({each.name for each in here}) < 2:
        pytest.skip(
            "needs two engines: " + "; ".join(each for each in made if isinstance(each, str))
        )
    folder = tmp_path_factory.mktemp("fuel")
    labs = []
    for number, engine in enumerate(here):
        (folder / str(number)).mkdir()
        labs.append(Lab(Bench(engine, folder / str(number))))
    yield labs
    for lab in labs:
        lab.close()


def steps(lab: Lab, wasm: bytes, fuel: int) -> list[Step]:
    """What a plugin does with requests as a real runtime sent them, until it fails."""
    running = lab.start(wasm, fuel=fuel)
    found = []
    for method, request in CALLS:
        if f"plugin_{method}" in inspect(wasm).functions:
            result: object
            try:
                result = running.call(method, request)
            except GuestError as error:
                result = str(error)
            except GuestFault as fault:
                result = (fault.kind, str(fault))
            found.append(Step(method, result, running.instance.fuel_used))
            if isinstance(result, tuple):
                break
    return found


def alike(labs: list[Lab], wasm: bytes, fuel: int) -> list[Step]:
    first, *others = (steps(lab, wasm, fuel) for lab in labs)
    for other in others:
        assert other == first
    return first


@pytest.mark.parametrize("path", PLUGINS, ids=[path.stem for path in PLUGINS])
def test_the_smallest_sufficient_fuel_is_the_same_on_every_engine(
    path: Path, labs: list[Lab]
) -> None:
    wasm = path.read_bytes()
    whole = alike(labs, wasm, ENDLESS)
    need = max(step.fuel for step in whole)
    assert all(0 < step.fuel < ENDLESS for step in whole)
    assert alike(labs, wasm, need) == whole
    *before, last = alike(labs, wasm, need - 1)
    first_of_them = next(at for at, step in enumerate(whole) if step.fuel == need)
    assert before == whole[:first_of_them]
    assert last.fuel == need - 1
    assert isinstance(last.result, tuple)
    assert last.result[0] == "fuel"
    assert last.result[1].endswith(f": stopped after {need - 1} instructions, its limit of fuel")


def test_a_call_takes_on_every_processor_what_it_takes_on_x86_64(lab: Lab) -> None:
    """The other engines are not everywhere to be compared with; this guest's file is."""
    assert [step.fuel for step in steps(lab, guest("bench"), ENDLESS)] == BENCH_TAKES


@pytest.mark.system
def test_a_go_plugin_is_cut_at_the_same_fuel_on_every_engine(labs: list[Lab]) -> None:
    require_go()
    wasm = go_annotator_module().read_bytes()
    # Its scheduler and its collector look at the clock: the calls differ, the cut does not.
    each = list({lab.bench.engine.name: lab for lab in labs}.values())
    assert alike(each, wasm, 2000)[-1].result[0] == "fuel"  # type: ignore[index]


def cut(lab: Lab, wasm: bytes, fuel: int, argument: int) -> tuple[object, int, bytes]:
    """The end of one call, the fuel that it took, and all that it left in memory."""
    running = lab.start(wasm, fuel=fuel, stack_bytes=STACK_BYTES, memory_bytes=8 << 16)
    instance = running.instance
    result: object
    try:
        result = running.call("create_container", bytes(argument))
    except GuestFault as fault:
        result = fault.kind
    memory = instance.read(0, instance.memory_bytes)  # type: ignore[attr-defined]
    instance.close()
    lab.forget(running)
    return result, instance.fuel_used, memory


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, (1 << 32) - 1), fuel=st.integers(0, 5000), argument=st.integers(1, 99))
def test_any_code_is_cut_after_the_same_instruction(
    labs: list[Lab], seed: int, fuel: int, argument: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    wasm = wasmgen.module(seed, plugin=True)
    found = []
    for lab in labs:
        scratch = Lab(Bench(lab.bench.engine, tmp_path_factory.mktemp("any")))
        found.append(cut(scratch, wasm, fuel, argument))
        scratch.bench.module(wasm, STACK_BYTES, True)[0].close()
    assert all(each == found[0] for each in found)
    result, used, _ = found[0]
    assert used <= fuel
    assert result in {"fuel", "trap", "abi", "memory"} or isinstance(result, bytes)


ENDLESS_CODE = {
    "loop": plugin({"create_container": FOREVER + ECHO}),
    "recursion": plugin({"create_container": get(0) + get(1) + call(3)}),
    "loop in malloc": plugin({"create_container": ECHO}, malloc=FOREVER),
    "loop in free": plugin({"create_container": ECHO}, free=FOREVER),
    "growth": plugin(
        {"create_container": b"\x03\x40" + i32(1) + b"\x40\x00\x1a\x0c\x00\x0b" + ECHO}
    ),
    "host calls": plugin(
        {
            "create_container": b"\x03\x40"
            + i32(0)
            + i32(0)
            + call(0)
            + b"\x1a\x0c\x00\x0b"
            + i64(0)
        },
        imports=(("env", "log", "iiI"),),
    ),
}


@pytest.mark.parametrize("wasm", ENDLESS_CODE.values(), ids=ENDLESS_CODE)
@pytest.mark.parametrize("fuel", [1, 100, 20_000])
def test_code_without_an_end_ends_with_its_fuel(lab: Lab, wasm: bytes, fuel: int) -> None:
    # Little memory: some engines copy all of it each time it grows.
    running = lab.start(wasm, fuel=fuel, stack_bytes=STACK_BYTES, memory_bytes=4 * MIB)
    with pytest.raises(GuestFault, match=f"stopped after {fuel} instructions") as caught:
        running.call("create_container", b"request")
    assert caught.value.kind == "fuel"
    assert running.instance.fuel_used == fuel
    with pytest.raises(GuestFault, match="its limit of fuel") as caught:
        running.call("create_container", b"request")
    assert caught.value.kind == "fuel"


def test_each_call_begins_with_all_of_its_fuel(lab: Lab) -> None:
    wasm = plugin({"create_container": ECHO})
    running = lab.start(wasm, fuel=ENDLESS)
    running.call("create_container", b"request")
    used = running.instance.fuel_used
    running = lab.start(wasm, fuel=used)
    for _ in range(1000):
        assert running.call("create_container", b"request") == b"request"
        assert running.instance.fuel_used == used


def test_an_error_of_the_guests_own_leaves_it_and_its_fuel_alone(lab: Lab) -> None:
    running = lab.start(guest("hostile"), fuel=ENDLESS)
    running.configure("create_container:error")
    for _ in range(2):
        with pytest.raises(GuestError):
            running.call("create_container", capture("create_container"))
        assert 0 < running.instance.fuel_used < ENDLESS


def test_a_trap_with_fuel_left_is_a_trap(lab: Lab) -> None:
    running = lab.start(plugin({"create_container": b"\x00"}), fuel=1000)
    with pytest.raises(GuestFault) as caught:
        running.call("create_container")
    assert caught.value.kind == "trap"
    assert 0 < running.instance.fuel_used < 1000


def test_the_time_stops_what_has_fuel_left(lab: Lab) -> None:
    running = lab.start(plugin({"create_container": FOREVER + ECHO}), fuel=ENDLESS)
    with pytest.raises(GuestFault) as caught:
        running.call("create_container", deadline_s=0.1)
    assert caught.value.kind == "timeout"


def test_a_malloc_for_a_host_function_is_cut_as_all_else(lab: Lab) -> None:
    wasm = plugin({"create_container": call(0)}, imports=(("env", "answer", "I"),), malloc=FOREVER)

    def answer(guest: Guest) -> int:
        return guest.allocate(16)

    extra = {("env", "answer"): HostFunction(FuncType((), ("i64",)), answer)}
    running = lab.start(wasm, fuel=1000, extra=extra)
    with pytest.raises(GuestFault, match="malloc: stopped after 1000 instructions") as caught:
        running.call("create_container")
    assert (caught.value.kind, running.instance.fuel_used) == ("fuel", 1000)


def test_the_start_is_limited_by_its_time_only(lab: Lab) -> None:
    # 100,000 rounds of a loop before the first call.
    count = (
        b"\x03\x40"
        + b"\x23\x00"
        + i32(1)
        + b"\x6a\x24\x00\x23\x00"
        + i32(104_096)
        + b"\x47\x0d\x00\x0b"
    )
    running = lab.start(plugin({"create_container": i64(0)}, start=count), fuel=100)
    assert running.call("create_container") == b""


def test_without_a_limit_nothing_is_counted(lab: Lab) -> None:
    running = lab.start(plugin({"create_container": ECHO}))
    running.call("create_container", b"request")
    assert running.instance.fuel_used == 0


def test_a_module_that_does_not_count_is_not_run_with_a_limit(lab: Lab, tmp_path: Path) -> None:
    engine = lab.bench.engine
    wasm = plugin({"create_container": ECHO})
    (tmp_path / "artifact").write_bytes(compile_here(engine, wasm))
    module = engine.load(tmp_path / "artifact", inspect(wasm), STACK_BYTES)
    services = HostServices(GuestLog(lambda *_: None, 10, 100), PluginState())
    bounds = Bounds(1 << 20, 1 << 20, 100)
    with pytest.raises(EngineError, match="was compiled without counting it"):
        module.instantiate(bounds, services.functions(), 5.0)
    module.close()


def test_simd_and_references_are_counted_as_all_else(lab: Lab) -> None:
    simd = b"\xfd\x0c" + bytes(16) + b"\x1a"
    references = b"\xd0\x70" + b"\x1a"
    plain = lab.start(plugin({"create_container": ECHO}), fuel=ENDLESS)
    more = lab.start(plugin({"create_container": simd + references + ECHO}), fuel=ENDLESS)
    for running in (plain, more):
        assert running.call("create_container", b"request") == b"request"
    assert more.instance.fuel_used == plain.instance.fuel_used + 4


def test_what_cannot_be_counted_is_refused_by_name(lab: Lab) -> None:
    atomic = b"\xfe\x03\x00"  # atomic.fence
    with pytest.raises(ModuleError, match="the instruction 0xfe: not counted"):
        lab.start(plugin({"create_container": atomic + ECHO}), fuel=100)
