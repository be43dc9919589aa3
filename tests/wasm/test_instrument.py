"""Modules that keep their own limits: they compute what they did, end, and cost the same
everywhere."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.wasm.engine import Engine
from edge_agent.wasm.instrument import capped, instrument
from edge_agent.wasm.module import inspect
from tests.support import engines, wasmgen
from tests.support.assembler import (
    ADD,
    FOREVER,
    LOAD,
    MEMORY_GROW,
    MEMORY_SIZE,
    STORE,
    Assembly,
    call,
    get,
    i32,
    i64,
    repeat,
)
from tests.support.gobuild import go_runtime_module, require_go
from tests.support.metered import Metered, Outcome, Wasm3Metered
from tests.wasm.lab import GUESTS, ROOT, Bench, Lab, capture, configure_request

pytestmark = pytest.mark.not_emulated(
    "QEMU notes each page that was ever reserved, here 4 GiB for each module"
)
FRAME_BYTES, LOOP_BYTES = 176, 64  # as for wasm3
PAGES = 8
FUEL_FOR_A_TEST = 5000
ENDLESS = 1 << 60
PLUGINS = sorted(
    [*GUESTS.rglob("*.wasm"), *(ROOT / "plugins").glob("*/*.wasm")], key=lambda path: path.stem
)
EXTEND = b"\xad"  # i64.extend_i32_u
DROP = b"\x1a"

seeds = st.integers(0, (1 << 32) - 1)


@cache
def wasmtime() -> Metered:
    return Metered()


@cache
def wasm3() -> Wasm3Metered:
    return Wasm3Metered()


@pytest.fixture(scope="module", autouse=True)
def _engines_that_end_before_the_interpreter() -> Iterator[None]:
    yield
    wasmtime.cache_clear()
    wasm3.cache_clear()


def made(wasm: bytes) -> bytes:
    instrumented = instrument(wasm, frame_bytes=FRAME_BYTES, loop_bytes=LOOP_BYTES)
    return capped(instrumented, max(PAGES << 16, inspect(wasm).memory_bytes))


def same(wasm: bytes, argument: int, fuel: int) -> Outcome:
    """What an instrumented module does on both engines."""
    compiled = wasmtime().run(wasm, argument, fuel)
    assert wasm3().run(wasm, argument, fuel) == compiled
    return compiled


def running(body: bytes, *, pages: int = 1) -> bytes:
    """A module whose `run` is this code."""
    module = Assembly(pages)
    module.function("iI", body, export="run")
    return module.build()


# ---- the same results ----


@settings(max_examples=150)
@given(seed=seeds)
def test_code_that_ends_by_itself_computes_what_it_did(seed: int) -> None:
    wasm = wasmgen.module(seed)
    before = wasmtime().run_native(wasm, seed & 0xFFFF, FUEL_FOR_A_TEST)
    after = wasmtime().run(made(wasm), seed & 0xFFFF, FUEL_FOR_A_TEST)
    one_page = before.memory.startswith("65536 ")  # else it may have grown above the limit
    if before.fuel is not None and (after.fuel or 0) >= 0 and one_page:
        assert (after.result, after.memory) == (before.result, before.memory)


@settings(max_examples=300)
@given(seed=seeds, fuel=st.integers(0, FUEL_FOR_A_TEST))
def test_results_fuel_and_memory_are_the_same_on_an_interpreter(seed: int, fuel: int) -> None:
    outcome = same(made(wasmgen.module(seed)), seed & 0xFFFF, fuel)
    assert outcome.fuel is not None
    if outcome.fuel < 0:
        assert outcome.result is None


def test_a_local_that_is_set_to_itself_changes_nothing_else() -> None:
    # Found by the test above: wasm3 takes a wrong value for a constant far behind it.
    assert same(made(wasmgen.module(1491)), 1491, FUEL_FOR_A_TEST).result is not None


@pytest.fixture(scope="module")
def engine() -> Engine:
    """One that takes a module as it is; what comes out of it is not instrumented again."""
    made = engines.make("wasmtime")
    if isinstance(made, str):
        pytest.skip(made)
    return made


@pytest.fixture(scope="module")
def bench(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(engine, tmp_path_factory.mktemp("instrumented"))


def answers(wasm: bytes, lab: Lab) -> list[object]:
    """What a plugin does with requests as a real runtime sent them."""
    plugin = lab.start(wasm)
    replies: list[object] = []
    for method, name in (
        ("configure", ""),
        ("synchronize", "synchronize"),
        ("run_pod_sandbox", "run_pod_sandbox"),
        ("create_container", "create_container"),
        ("create_container", "create_container"),
    ):
        if f"plugin_{method}" in inspect(wasm).functions:
            replies.append(plugin.call(method, capture(name) if name else configure_request()))
    return [replies, plugin.lines, plugin.services.reports, plugin.instance.memory_bytes]


@pytest.mark.parametrize("path", PLUGINS, ids=[path.stem for path in PLUGINS])
def test_a_plugin_answers_as_before(path: Path, lab: Lab) -> None:
    if path.stem == "hostile-version":
        wasm = path.with_stem("hostile").read_bytes()  # it does not start
    else:
        wasm = path.read_bytes()
    before = answers(wasm, lab)
    assert len(before) == 4
    assert answers(instrument(wasm).wasm, lab) == before


def test_gos_runtime_is_instrumented_and_valid() -> None:
    require_go()
    wasm = go_runtime_module().read_bytes()
    result = instrument(wasm, frame_bytes=FRAME_BYTES, loop_bytes=LOOP_BYTES).wasm
    assert wasmtime().valid(result) == ""
    before, after = inspect(wasm), inspect(result)
    assert (after.imports, after.functions) == (before.imports, before.functions)
    # Less than a tenth more: what was left out pays for some of it.
    assert len(result) < 1.1 * len(wasm)


# ---- every loop and every recursion ends ----

COUNT = i32(8) + i32(8) + LOAD + i32(1) + ADD + STORE
COUNTED = i32(8) + LOAD + EXTEND


def recursion() -> Assembly:
    module = Assembly()
    module.function("iI", get(0) + call(0), export="run")
    return module


def mutual() -> Assembly:
    module = Assembly()
    module.function("iI", get(0) + call(1), export="run")
    module.function("iI", get(0) + call(0))
    return module


def by_table() -> Assembly:
    module = Assembly()
    module.function("iI", get(0) + i32(0) + b"\x11\x00\x00", export="run")
    module.entries[4].append(b"\x70\0\x01")
    module.entries[9].append(b"\0" + i32(0) + b"\x0b\x01\x00")
    return module


ENDLESS_CODE = {
    "loop": running(FOREVER + i64(0)),
    "loop by a condition": running(repeat(i32(1)) + i64(0)),
    "loop by a table": running(b"\x03\x40" + i32(5) + b"\x0e\x02\x00\x00\x00\x0b" + i64(0)),
    "loop that counts": running(b"\x03\x40" + COUNT + b"\x0c\x00\x0b" + COUNTED),
    "loop in a loop": running(b"\x03\x40" + b"\x03\x40\x0b" * 3 + b"\x0c\x00\x0b" + i64(0)),
    "loop out of a block": running(b"\x03\x40\x02\x40\x0c\x01\x0b\x0b" + i64(0)),
    "loop with a value": running(b"\x03\x7e" + i64(7) + DROP + b"\x0c\x00\x0b"),
    "loop that grows": running(
        b"\x03\x40" + i32(1) + MEMORY_GROW + DROP + b"\x0c\x00\x0b" + i64(0)
    ),
    "recursion": recursion().build(),
    "mutual recursion": mutual().build(),
    "recursion by a table": by_table().build(),
}


@pytest.mark.parametrize("fuel", [0, 1, 100, FUEL_FOR_A_TEST])
@pytest.mark.parametrize("wasm", ENDLESS_CODE.values(), ids=ENDLESS_CODE)
def test_code_without_an_end_ends_with_its_fuel(wasm: bytes, fuel: int) -> None:
    outcome = same(made(wasm), 0, fuel)
    assert outcome.result is None
    assert outcome.fuel is not None
    assert outcome.fuel < 0


def test_each_round_of_a_loop_costs_the_instructions_in_it() -> None:
    # Rounds: what the argument says. Outside of the loop are 3 instructions and the end.
    body = b"\x03\x40" + get(0) + i32(-1) + ADD + b"\x22\x00" + b"\x0d\x00\x0b" + i64(0)
    wasm = made(running(body))
    used = [ENDLESS - (same(wasm, rounds, ENDLESS).fuel or 0) for rounds in (1, 2, 10, 100)]
    assert [after - used[0] for after in used] == [0, 6, 54, 594]


def test_fuel_that_is_just_enough_is_enough() -> None:
    wasm = made(running(get(0) + EXTEND))
    cost = ENDLESS - (same(wasm, 7, ENDLESS).fuel or 0)
    assert same(wasm, 7, cost)[:2] == (7, 0)
    assert same(wasm, 7, cost - 1).result is None


# ---- memory ----


@pytest.mark.parametrize("pages", [1, 2, 7, PAGES])
def test_memory_grows_to_the_limit_and_no_further(pages: int) -> None:
    grow = i32(1) + MEMORY_GROW + i32(-1) + b"\x47"
    instrumented = instrument(running(repeat(grow) + MEMORY_SIZE + EXTEND))
    wasm = capped(instrumented, (pages << 16) + 65535)  # no part of a page
    outcome = same(wasm, 0, ENDLESS)
    assert outcome.result == pages
    assert outcome.memory.startswith(f"{pages << 16} bytes")


@pytest.mark.parametrize("delta", [-1, 0x7FFFFFFF, -65536, 65536, 65535])
def test_growth_by_more_than_there_can_be_is_refused_and_shrinks_nothing(delta: int) -> None:
    wasm = made(running(i32(delta) + MEMORY_GROW + EXTEND + DROP + MEMORY_SIZE + EXTEND, pages=4))
    assert same(wasm, 0, ENDLESS).result == 4
    refused = made(running(i32(delta) + MEMORY_GROW + EXTEND, pages=4))
    assert same(refused, 0, ENDLESS).result == 0xFFFFFFFF
