"""What the instrumentation takes and what it refuses: it is a validator too."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.errors import ModuleError
from edge_agent.wasm.engine import FUEL_EXPORT
from edge_agent.wasm.instrument import InvalidError, UnsupportedError, instrument
from edge_agent.wasm.instrument.body import MAX_NESTING
from edge_agent.wasm.instrument.shape import MAX_PAGES
from edge_agent.wasm.module import FuncType, inspect
from tests.support import wasmgen
from tests.support.assembler import (
    ADD,
    MEMORY_GROW,
    Assembly,
    get,
    i32,
    i64,
    name,
    section,
    unsigned,
)
from tests.wasm.lab import MIB, guest
from tests.wasm.test_instrument import (
    ENDLESS,
    _engines_that_end_before_the_interpreter,  # noqa: F401 - a fixture
    made,
    running,
    same,
    wasmtime,
)

DROP, UNREACHABLE, RETURN = b"\x1a", b"\x00", b"\x0f"
HEADER = b"\0asm\1\0\0\0"
RUN = FuncType(("i32",), ("i64",))
F64 = b"\x44" + bytes(8)


@settings(max_examples=400)
@given(seed=st.integers(0, 999), change=st.randoms(use_true_random=False))
def test_what_is_made_of_damaged_modules_is_valid_or_nothing(
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
        wasm = made(bytes(damaged))
    except ModuleError:
        return
    assert wasmtime().valid(wasm) == ""
    info = inspect(wasm)
    if info.functions.get("run") == RUN and info.exports_memory and info.memory_bytes <= MIB:
        same(wasm, 5, 2000)


def test_a_memory_that_begins_above_the_limit_of_a_test_stays_valid() -> None:
    wasm = made(running(i64(0), pages=4000))
    assert wasmtime().valid(wasm) == ""


@settings(max_examples=60)
@given(seed=st.integers(0, 1 << 32), cut=st.floats(0, 1))
def test_a_module_that_is_cut_is_refused_or_whole(seed: int, cut: float) -> None:
    wasm = wasmgen.module(seed, 30)
    part = wasm[: int(len(wasm) * cut)]
    try:
        result = instrument(part).wasm
    except ModuleError:
        return
    assert wasmtime().valid(result) == ""


INVALID = {
    "an operand is missing": i64(0) + ADD,
    "an operand of another type": i64(1) + i64(2) + ADD + DROP + i64(0),
    "a value too many": i64(0) + i64(0),
    "no result": b"",
    "a result of another type": i32(0),
    "an unknown local": get(9) + DROP + i64(0),
    "a local of another type": i64(0) + b"\x21\x00" + i64(0),
    "an unknown global": b"\x23\x00" + DROP + i64(0),
    "an unknown function": b"\x10\x63" + i64(0),
    "an unknown type": i32(0) + b"\x11\x63\x00" + i64(0),
    "a call without a table": get(0) + i32(0) + b"\x11\x00\x00",
    "a branch to nowhere": b"\x0c\x05",
    "a branch without its value": b"\x0c\x00",
    "a table branch to labels unlike": b"\x02\x40" + i64(0) + i32(0) + b"\x0e\x01\x00\x01\x0b",
    "an if without a condition": b"\x04\x40\x0b" + i64(0),
    "an if that leaves a value one way": i32(1) + b"\x04\x7e" + i64(0) + b"\x0b",
    "an else without an if": b"\x02\x40\x05\x0b" + i64(0),
    "an end too many": i64(0) + b"\x0b",
    "a block that is not ended": b"\x02\x40" + i64(0),
    "a block that takes what is outside": i64(0) + b"\x02\x40\x1a\x0b" + i64(0),
    "a select of unlike values": i32(0) + i64(0) + i32(0) + b"\x1b" + DROP + i64(0),
    "an alignment too large": i32(0) + b"\x28\x03\x00" + DROP + i64(0),
    "a memory that is not there": i32(0) + b"\x40\x01" + DROP + i64(0),
    "a constant too long": b"\x41\x80\x80\x80\x80\x80\x00" + DROP + i64(0),
    "a constant too large": b"\x41\xff\xff\xff\xff\x4f" + DROP + i64(0),
    "an unknown instruction": b"\xff",
    "dead code without an end": UNREACHABLE + b"\x02\x40",
}


@pytest.mark.parametrize("body", INVALID.values(), ids=INVALID)
def test_invalid_code_is_refused(body: bytes) -> None:
    wasm = running(body)
    assert wasmtime().valid(wasm) != ""
    with pytest.raises(InvalidError, match=r"^not valid Wasm: .*\(in function 0\)$"):
        instrument(wasm)


UNSUPPORTED = {
    "SIMD": (b"\xfd\x0c" + bytes(16) + DROP + i64(0), "SIMD"),
    "references": (b"\xd0\x70" + DROP + i64(0), "references"),
    "passive data": (b"\xfc\x09\x00" + i64(0), "passive data"),
    "tail call": (get(0) + b"\x12\x00", "tail calls"),
    "vector block": (b"\x02\x7b\x00\x0b" + DROP + i64(0), "v128"),
    "nesting": (b"\x02\x40" * (MAX_NESTING + 1) + b"\x0b" * (MAX_NESTING + 1) + i64(0), "2000"),
}


@pytest.mark.parametrize(("body", "says"), UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_what_the_smallest_engine_lacks_is_refused_by_name(body: bytes, says: str) -> None:
    with pytest.raises(UnsupportedError, match=f"the module has .*{says}.* not on every engine"):
        instrument(running(body))


def test_code_that_never_runs_is_left_out() -> None:
    dead = b"\x02\x40" + F64 + b"\x04\x40\x05\x03\x40\x0b\x0b\x0e\x01\x00\x00\x0b"
    dead += b"\xfc\x0a\x00\x00" + get(99) + b"\x28\x05\x80\x01" + b"\x11\x63\x80\x80\x00"
    long = made(running(i64(7) + RETURN + dead * 20 + i64(8)))
    short = made(running(i64(7) + RETURN))
    assert len(long) == len(short)
    assert same(long, 0, ENDLESS).result == 7


def test_custom_sections_are_dropped_and_all_else_is_kept() -> None:
    wasm = guest("bench")
    extra = section(0, b"\x04name" + bytes(2000)) + section(0, b"\x09producers" + b"x" * 2000)
    assert instrument(wasm + extra).wasm == instrument(wasm).wasm
    before, after = inspect(wasm), inspect(instrument(wasm).wasm)
    assert (after.imports, after.functions) == (before.imports, before.functions)
    assert after.memory_bytes == before.memory_bytes


def test_a_memory_without_a_maximum_gets_one_and_a_lower_one_stays() -> None:
    assert inspect(instrument(running(i64(0))).wasm).memory_max_bytes == MAX_PAGES << 16
    module = Assembly(None)
    module.entries[5].append(b"\x01\x01\x03")
    module.function("iI", i64(0), export="run")
    assert inspect(instrument(module.build()).wasm).memory_max_bytes == 3 << 16


def test_a_module_without_a_memory_stays_a_module() -> None:
    module = Assembly(None)
    module.function("iI", i64(5), export="run")
    result = instrument(module.build()).wasm
    assert wasmtime().valid(result) == ""
    assert not inspect(result).exports_memory
    module = Assembly(None)
    module.function("iI", i32(1) + MEMORY_GROW + DROP + i64(0), export="run")
    with pytest.raises(InvalidError, match="there is no memory 0"):
        instrument(module.build())


def test_a_function_of_many_names_keeps_them_all() -> None:
    # wasm3 knows three names of a function and forgets the others.
    module = Assembly()
    number = module.function("iI", get(0) + b"\xad", export="run0")
    for at in range(1, 9):
        module.entries[7].append(name(f"run{at}") + b"\0" + unsigned(number))
    module.entries[7].append(name("run") + b"\0" + unsigned(number))
    wasm = made(module.build())
    assert [f"run{at}" in inspect(wasm).functions for at in range(9)] == [True] * 9
    assert same(wasm, 77, ENDLESS).result == 77


@pytest.mark.parametrize(
    ("entry", "offset"), [(b"\x00\x41\x00\x0b", 0), (b"\x02\x00\x41\x03\x0b", 3)]
)
def test_data_is_kept_where_it_was(entry: bytes, offset: int) -> None:
    module = Assembly()
    module.function("iI", get(0) + b"\x31\x00\x00", export="run")  # i64.load8_u
    module.entries[11] += [entry + b"\x01\x2a", b"\x01\x02xx"]  # and passive data, of no use
    assert same(made(module.build()), offset, ENDLESS).result == 42


ELEMENTS = {
    "plain": b"\x00\x41\x00\x0b\x01\x00",
    "with a table": b"\x02\x00\x41\x00\x0b\x00\x01\x00",
    "expressions": b"\x04\x41\x00\x0b\x01\xd2\x00\x0b",
    "expressions with a table": b"\x06\x00\x41\x00\x0b\x70\x01\xd2\x00\x0b",
}


@pytest.mark.parametrize("entry", ELEMENTS.values(), ids=ELEMENTS)
def test_elements_are_kept_in_their_simplest_form(entry: bytes) -> None:
    module = Assembly()
    module.function("iI", i64(42))
    module.function("iI", get(0) + i32(0) + b"\x11\x80\x80\x00\x80\x80\x00", export="run")
    module.entries[4].append(b"\x70\x00\x01")
    # Beside it passive and declared ones, which nothing uses.
    module.entries[9] += [
        entry,
        b"\x01\x00\x01\x00",
        b"\x03\x00\x01\x00",
        b"\x05\x70\x01\xd2\x00\x0b",
    ]
    assert same(made(module.build()), 0, ENDLESS).result == 42


def bent(number: int, *entries: bytes) -> bytes:
    """A module with some section of its own."""
    module = Assembly()
    module.function("iI", i64(0), export="run")
    module.entries[number] += entries
    return module.build()


@pytest.mark.parametrize(
    ("wasm", "says"),
    [
        (bent(1, b"\x60\x01\x7b\x00"), "a v128"),
        (bent(2, name("env") + name("base") + b"\x03\x7f\x00"), r"env\.base \(global\)"),
        (bent(2, name("e\0") + name("f") + b"\x00\x00"), "a name with a NUL"),
        (bent(4, b"\x6f\x00\x01"), "a table of something else"),
        (bent(4, b"\x70\x00\x01", b"\x70\x00\x01"), "several tables"),
        (bent(4, b"\x70\x00" + unsigned(100_001)), "more than 100000"),
        (bent(6, b"\x7f\x00\x23\x00\x0b"), "not constants"),
        (bent(6, b"\x7f\x00\x41\x01\x41\x01\x6a\x0b"), "not constants"),
        (bent(7, name(FUEL_EXPORT) + b"\x00\x00"), FUEL_EXPORT),
        (HEADER + section(1, b"\x01\x60\0\0") + section(13, b"\x01\0\0"), "exceptions"),
        (bent(11, b"\x00\x23\x00\x0b\x00"), "not constants"),
    ],
)
def test_sections_that_the_smallest_engine_lacks_are_refused_by_name(
    wasm: bytes, says: str
) -> None:
    with pytest.raises(UnsupportedError, match=says):
        instrument(wasm)


@pytest.mark.parametrize(
    ("wasm", "says"),
    [
        (bent(3, b"\x63"), "type 99"),
        (bent(3, b"\x00"), "another number of functions"),
        (bent(6, b"\x7e\x00\x41\x00\x0b"), "another type"),
        (bent(6, b"\x7f\x02\x41\x00\x0b"), "neither constant nor variable"),
        (bent(7, name("run") + b"\x00\x00"), "two exports called 'run'"),
        (bent(7, name("x") + b"\x00\x07"), "function 7, which is missing"),
        (bent(7, name("x") + b"\x01\x00"), "what is not there"),
        (bent(8, b"\x00"), "a start function"),
        (bent(9, b"\x00\x41\x00\x0b\x00"), "elements of no table"),
        (bent(11, b"\x00\x42\x00\x0b\x00"), "data at no place"),
        (bent(11, b"\x02\x01\x41\x00\x0b\x00"), "data of no memory"),
    ],
)
def test_sections_that_are_not_valid_are_refused(wasm: bytes, says: str) -> None:
    with pytest.raises(ModuleError, match=says):
        instrument(wasm)
