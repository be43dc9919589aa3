"""What guests make as large as they can, on every engine: tables, locals, types."""

import struct
import time

import pytest

from edge_agent.errors import GuestFault, ModuleError
from edge_agent.wasm.engine import Engine
from edge_agent.wasm.module import inspect
from tests.support.assembler import DROP, STORE, Assembly, call, i32, i64, repeat, unsigned
from tests.wasm.lab import Lab
from tests.wasm.plugins import ECHO, NOTHING, packed, plugin

NULL = b"\xd0\x70"  # ref.null func
GROW, SIZE, FILL = b"\xfc\x0f\x00", b"\xfc\x10\x00", b"\xfc\x11\x00"  # of table 0
NE = b"\x47"  # i32.ne
MAX_TABLE = 100_000  # docs/plugins.md
STEP = 1000
GROWN = NULL + i32(STEP) + GROW
# wasmi takes 30,000 in a function, the others 50,000.
LOCALS = 29_000


def with_configure(code: bytes, local_types: bytes = b"\0") -> Assembly:
    """A plugin with a table of one function, to be added to."""
    module = Assembly(1)
    module.function("iiI", code, export="plugin_configure", local_types=local_types)
    module.function("ii", i32(1024), export="malloc")
    module.function("i-", b"", export="free")
    module.function("I", i64(1), export="plugin_api_version")
    module.entries[4].append(b"\x70\x00\x01")
    return module


def locals_of(count: int) -> bytes:
    """So many i64."""
    return b"\x01" + unsigned(count) + b"\x7e"


def test_a_table_grows_to_its_limit_and_no_further(lab: Lab) -> None:
    full = repeat(GROWN + i32(-1) + NE)
    running = lab.start(
        with_configure(full + i32(64) + SIZE + STORE + packed(i32(64), i32(4))).build()
    )
    for _ in range(2):
        (size,) = struct.unpack("<I", running.call("configure"))
        assert MAX_TABLE - STEP < size <= MAX_TABLE


@pytest.mark.parametrize(
    "work",
    [GROWN + DROP, GROWN + DROP + i32(0) + NULL + SIZE + FILL],
    ids=["grow", "grow and fill"],
)
def test_a_table_that_grows_without_end_is_stopped(work: bytes, lab: Lab) -> None:
    running = lab.start(with_configure(b"\x03\x40" + work + b"\x0c\x00\x0b" + NOTHING).build())
    began = time.monotonic()
    with pytest.raises(GuestFault) as caught:
        running.call("configure", deadline_s=0.2)
    assert caught.value.kind == "timeout"
    # The port's 50 ms are for an idle machine: here only that it is no multiple.
    assert time.monotonic() - began < 10
    assert lab.start(plugin({"configure": ECHO})).call("configure", b"x") == b"x"


def test_a_hundred_thousand_locals_are_refused(engine: Engine) -> None:
    wasm = with_configure(NOTHING, locals_of(100_000)).build()
    with pytest.raises(ModuleError, match="locals"):
        engine.compile(wasm)


def test_a_million_types_are_refused(engine: Engine) -> None:
    module = with_configure(NOTHING)
    module.entries[1].extend([b"\x60\x00\x00"] * 1_000_000)
    wasm = module.build()
    with pytest.raises(ModuleError, match="section 1 has"):
        inspect(wasm)
    with pytest.raises(ModuleError, match="types"):
        engine.compile(wasm)


def test_a_recursion_with_many_locals_ends(lab: Lab) -> None:
    running = lab.start(with_configure(i32(0) + i32(0) + call(0), locals_of(LOCALS)).build())
    with pytest.raises(GuestFault, match="call stack exhausted"):
        running.call("configure")


def test_calls_of_a_function_with_many_locals_without_end_are_stopped(lab: Lab) -> None:
    module = with_configure(b"\x03\x40" + call(4) + b"\x0c\x00\x0b" + NOTHING)
    # The last local is written and read, so that no compiler forgets it.
    used = i64(1) + b"\x21" + unsigned(LOCALS - 1) + b"\x20" + unsigned(LOCALS - 1) + DROP
    assert module.function("-", used, local_types=locals_of(LOCALS)) == 4
    running = lab.start(module.build())
    began = time.monotonic()
    with pytest.raises(GuestFault) as caught:
        running.call("configure", deadline_s=0.2)
    assert caught.value.kind == "timeout"
    assert time.monotonic() - began < 10
