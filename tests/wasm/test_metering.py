"""Modules that count their fuel: they compute what they did, end, and stay valid or invalid."""

import random
from collections.abc import Iterator
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.errors import ModuleError
from edge_agent.wasm.engine import FUEL_EXPORT
from edge_agent.wasm.metering import meter
from edge_agent.wasm.module import inspect
from tests.support import wasmgen
from tests.support.assembler import (
    ADD,
    FOREVER,
    LOAD,
    MEMORY_GROW,
    STORE,
    Assembly,
    call,
    get,
    i32,
    i64,
    name,
    repeat,
    section,
    unsigned,
)
from tests.support.gobuild import go_runtime_module, require_go
from tests.support.metered import Metered
from tests.wasm.lab import guest

pytestmark = pytest.mark.not_emulated(
    "QEMU notes each page that was ever reserved, here 4 GiB for each module"
)
ENDLESS = 1 << 60
FUEL_FOR_A_TEST = 5000
EXTEND = b"\xad"  # i64.extend_i32_u
DROP, UNREACHABLE, RETURN = b"\x1a", b"\x00", b"\x0f"
VECTOR = b"\xfd\x0c" + bytes(range(16))  # v128.const

seeds = st.integers(0, (1 << 32) - 1)


@cache
def wasmtime() -> Metered:
    return Metered()


@pytest.fixture(scope="module", autouse=True)
def _an_engine_that_ends_before_the_interpreter() -> Iterator[None]:
    yield
    wasmtime.cache_clear()


def running(body: bytes, *, pages: int | None = 1) -> bytes:
    """A module whose `run` is this code."""
    module = Assembly(pages)
    module.function("iI", body, export="run")
    return module.build()


def used(wasm: bytes, argument: int = 0) -> int:
    """The fuel that a call takes."""
    return ENDLESS - (wasmtime().run(meter(wasm), argument, ENDLESS).fuel or 0)


# ---- the same results ----


@settings(max_examples=150)
@given(seed=seeds)
def test_code_that_ends_by_itself_computes_what_it_did(seed: int) -> None:
    wasm = wasmgen.module(seed)
    before = wasmtime().run_native(wasm, seed & 0xFFFF, FUEL_FOR_A_TEST)
    after = wasmtime().run(meter(wasm), seed & 0xFFFF, FUEL_FOR_A_TEST)
    if before.fuel is not None and (after.fuel or 0) >= 0:
        assert (after.result, after.memory) == (before.result, before.memory)


@pytest.mark.system
def test_gos_runtime_is_metered_and_valid() -> None:
    require_go()
    wasm = go_runtime_module().read_bytes()
    result = meter(wasm)
    assert wasmtime().valid(result) == ""
    before, after = inspect(wasm), inspect(result)
    assert (after.imports, after.functions) == (before.imports, before.functions)
    assert len(result) < 1.2 * len(wasm)


def test_custom_sections_are_dropped_and_all_else_is_kept() -> None:
    wasm = guest("bench")
    extra = section(0, b"\x04name" + bytes(2000)) + section(0, b"\x09producers" + b"x" * 2000)
    assert meter(wasm + extra) == meter(wasm)
    before, after = inspect(wasm), inspect(meter(wasm))
    assert (after.imports, after.functions) == (before.imports, before.functions)
    assert (after.memory_bytes, after.memory_max_bytes) == (
        before.memory_bytes,
        before.memory_max_bytes,
    )


# ---- what is counted ----

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
    "loop behind code that never runs": running(
        b"\x02\x40" + b"\x0c\x00" + FOREVER + b"\x0b" + FOREVER + i64(0)
    ),
    "recursion": recursion().build(),
    "mutual recursion": mutual().build(),
    "recursion by a table": by_table().build(),
    "a tail call": running(get(0) + b"\x12\x00"),
}


@pytest.mark.parametrize("fuel", [0, 1, 100, FUEL_FOR_A_TEST])
@pytest.mark.parametrize("wasm", ENDLESS_CODE.values(), ids=ENDLESS_CODE)
def test_code_without_an_end_ends_with_its_fuel(wasm: bytes, fuel: int) -> None:
    outcome = wasmtime().run(meter(wasm), 0, fuel)
    assert outcome.result is None
    assert outcome.fuel is not None
    assert outcome.fuel < 0


def test_each_round_of_a_loop_costs_the_instructions_in_it() -> None:
    # Rounds: what the argument says. Outside of the loop are 3 instructions and the end.
    body = b"\x03\x40" + get(0) + i32(-1) + ADD + b"\x22\x00" + b"\x0d\x00\x0b" + i64(0)
    costs = [used(running(body), rounds) for rounds in (1, 2, 10, 100)]
    assert [after - costs[0] for after in costs] == [0, 6, 54, 594]


def test_fuel_that_is_just_enough_is_enough() -> None:
    wasm = running(get(0) + EXTEND)
    cost = used(wasm, 7)
    assert cost == 3
    assert wasmtime().run(meter(wasm), 7, cost)[:2] == (7, 0)
    assert wasmtime().run(meter(wasm), 7, cost - 1).result is None


@pytest.mark.parametrize(
    ("body", "cost"),
    [
        (i64(7) + RETURN + (get(0) + DROP) * 20 + i64(8), 2),
        (b"\x02\x40" + b"\x0c\x00" + (get(0) + DROP) * 20 + b"\x0b" + i64(7), 4),
        (b"\x02\x40" + b"\x0c\x00" + FOREVER + b"\x0b" + i64(7), 4),
        (i32(1) + b"\x04\x7e" + i64(7) + RETURN + DROP * 0 + b"\x05" + i64(8) + b"\x0b", 7),
    ],
)
def test_code_that_never_runs_costs_nothing(body: bytes, cost: int) -> None:
    wasm = running(body)
    assert wasmtime().valid(wasm) == ""
    assert used(wasm) == cost


# Of each form of instruction one at least; in straight code, so each costs 1.
STRAIGHT = {
    "nothing": (b"\x01", 1),
    "a number of many bytes": (b"\x20\x80\x80\x00" + DROP, 2),
    "a global": (b"\x23\x00" + DROP, 2),
    "floats": (b"\x43" + b"\x0b" * 4 + DROP + b"\x44" + b"\x0b" * 8 + DROP, 4),
    "a load with an offset": (i32(0) + b"\x28\x02\x80\x01" + DROP, 3),
    "a typed select": (i32(1) + i32(2) + i32(0) + b"\x1c\x01\x7f" + DROP, 5),
    "a reference": (b"\xd0\x70" + b"\xd1" + DROP + b"\xd2\x00" + DROP, 5),
    "a table": (i32(0) + b"\x25\x00" + DROP + i32(0) + b"\xd0\x70" + b"\x26\x00", 6),
    "table operations": (
        b"\xfc\x10\x00" + DROP + b"\xd0\x70" + i32(0) + b"\xfc\x0f\x00" + DROP,
        6,
    ),
    "table copies": (i32(0) * 3 + b"\xfc\x0e\x00\x00", 4),
    "bulk memory": (i32(0) * 3 + b"\xfc\x0a\x00\x00" + i32(0) * 3 + b"\xfc\x0b\x00", 8),
    "saturating": (b"\x43" + bytes(4) + b"\xfc\x00" + DROP, 3),
    "vectors": (VECTOR + VECTOR + b"\xfd\x0d" + bytes(16) + b"\xfd\x15\x01" + DROP, 5),
    "vector memory": (
        i32(0) + b"\xfd\x00\x04\x80\x01" + DROP + i32(0) + VECTOR + b"\xfd\x54\x00\x00\x01" + DROP,
        7,
    ),
    "vector arithmetic": (VECTOR + VECTOR + b"\xfd\xae\x01" + DROP, 4),
    "a block": (b"\x02\x40\x0b", 2),
    "a block with a type": (b"\x02\x01\x0b", 2),
}


@pytest.mark.parametrize(("code", "cost"), STRAIGHT.values(), ids=STRAIGHT)
def test_each_form_of_instruction_costs_one(code: bytes, cost: int) -> None:
    module = Assembly(1)
    module.function("iI", code + i64(0), export="run")
    module.function("-", b"")
    module.entries[6].append(b"\x7f\x01\x41\x00\x0b")
    module.entries[4].append(b"\x70\0\x01")
    module.entries[9].append(b"\x03\x00\x01\x00")  # declared, for ref.func
    wasm = module.build()
    assert wasmtime().valid(wasm) == ""
    assert used(wasm) == cost + 2  # the constant and the end


# ---- what comes in need not be valid ----


@settings(max_examples=400)
@given(seed=st.integers(0, 999), change=st.randoms(use_true_random=False))
def test_what_is_made_of_damaged_modules_is_as_valid_as_they_are(
    seed: int, change: random.Random
) -> None:
    damaged = bytearray(wasmgen.module(seed, 40))
    for _ in range(change.randrange(1, 4)):
        at = change.randrange(8, len(damaged))
        way = change.randrange(3)
        if way == 0:
            damaged[at] = change.randrange(256)
        elif way == 1:
            del damaged[at]
        else:
            damaged.insert(at, change.randrange(256))
    try:
        wasm = meter(bytes(damaged))
    except ModuleError:
        return
    assert (wasmtime().valid(wasm) == "") == (wasmtime().valid(bytes(damaged)) == "")


@pytest.mark.parametrize("custom", [b"\0\3\2\xff\xfe", b"\0\2\5a", b"\0\0"])
def test_a_custom_section_that_is_not_valid_is_not_left_out_in_silence(custom: bytes) -> None:
    assert wasmtime().valid(b"\0asm\1\0\0\0" + custom)
    with pytest.raises(ModuleError, match="not valid Wasm"):
        meter(b"\0asm\1\0\0\0" + custom)


@settings(max_examples=60)
@given(seed=st.integers(0, 1 << 32), cut=st.floats(0, 1))
def test_a_module_that_is_cut_is_refused_or_whole(seed: int, cut: float) -> None:
    part = wasmgen.module(seed, 30)
    part = part[: int(len(part) * cut)]
    try:
        result = meter(part)
    except ModuleError:
        return
    assert (wasmtime().valid(result) == "") == (wasmtime().valid(part) == "")


@pytest.mark.parametrize("code", [b"\x23\x00" + DROP, i64(1) + b"\x24\x00"])
def test_the_counter_cannot_be_reached_by_the_module(code: bytes) -> None:
    # Its number is one above those of the module, where an invalid module may already point.
    with pytest.raises(ModuleError, match="there is no global 0"):
        meter(running(code + i64(0)))


def bent(number: int, *entries: bytes) -> bytes:
    """A module with some section of its own."""
    module = Assembly()
    module.function("iI", i64(0), export="run")
    module.entries[number] += entries
    return module.build()


@pytest.mark.parametrize(
    ("wasm", "says"),
    [
        (running(b"\xfe\x03\x00" + i64(0)), r"0xfe: not counted \(in function 0\)"),
        (running(b"\xfc\x7f" + i64(0)), "0xfc 127"),
        (running(b"\xfd\x80\x02" + i64(0)), "0xfd 256"),
        (running(i32(0) + b"\x28\x42\x00\x00" + DROP + i64(0)), "alignment"),
        (running(b"\x05" + i64(0)), "else without its if"),
        (running(i64(0) + b"\x0b"), "goes on after its end"),
        (running(b"\x02\x40" + i64(0)), "cut short"),
        (b"\0asm\1\0\0\0" + section(10, b"\x00\x00"), "section of code goes on"),
        (bent(2, name("env") + name("base") + b"\x03\x7f\x00"), "no function"),
        (bent(7, name(FUEL_EXPORT) + b"\x00\x00"), FUEL_EXPORT),
        (b"\0asm\1\0\0\0" + section(7, b"\x01"), "a cut file"),
    ],
)
def test_what_cannot_be_counted_is_refused_by_name(wasm: bytes, says: str) -> None:
    with pytest.raises(ModuleError, match=says):
        meter(wasm)


@pytest.mark.parametrize(
    "wasm",
    [running(b"\x20\x80\x80\x80\x80\x80\x00" + i64(0)), running(b"\x41\xff\xff\xff\xff\x4f")],
)
def test_a_number_that_is_too_long_stays_invalid(wasm: bytes) -> None:
    assert wasmtime().valid(meter(wasm)) != ""


def test_a_module_without_globals_exports_or_memory_is_metered() -> None:
    module = Assembly(None)
    module.function("iI", i64(5))
    assert wasmtime().valid(meter(module.build())) == ""
    assert inspect(meter(b"\0asm\1\0\0\0")).functions == {}


def test_a_large_table_of_branches_and_many_locals_are_read() -> None:
    labels = unsigned(5000) + b"\x00" * 5001
    body = b"\x02\x40" + i32(3) + b"\x0e" + labels + b"\x0b" + i64(9)
    module = Assembly(1)
    module.function("iI", body, export="run", local_types=b"\x02\x88\x27\x7f\x01\x7e")
    assert wasmtime().run(meter(module.build()), 0, ENDLESS).result == 9


def test_a_module_that_exports_a_global_which_only_metering_would_add_is_refused() -> None:
    module = Assembly(1)
    module.entries[7].append(name("mine") + b"\x03\x00")
    wasm = module.build()
    assert wasmtime().valid(wasm)
    with pytest.raises(ModuleError, match="there is no global 0"):
        meter(wasm)
