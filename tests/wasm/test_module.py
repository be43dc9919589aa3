import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.errors import ModuleError
from edge_agent.wasm import abi
from edge_agent.wasm.module import (
    MAX_ENTRIES,
    MAX_MODULE_BYTES,
    MAX_SECTION_BYTES,
    MAX_SECTIONS,
    MAX_VALUES,
    FuncType,
    Import,
    ModuleInfo,
    inspect,
)
from tests.support.assembler import Assembly, i32, i64, name, section, unsigned
from tests.wasm.lab import guest
from tests.wasm.plugins import ECHO, plugin

HEADER = b"\0asm\1\0\0\0"
REAL = guest("bench")
NO_TYPE = b"\x60\x00\x00"


def with_sections(*sections: tuple[int, bytes]) -> bytes:
    return HEADER + b"".join(section(*one) for one in sections)


def inspected(wasm: bytes) -> ModuleInfo | None:
    """What a module says, None for a refusal; anything else fails the test."""
    try:
        return inspect(wasm)
    except ModuleError as error:
        said = str(error)
    assert len(said) < 2000
    assert said.isprintable()
    return None


def test_a_guest_says_what_it_imports_and_exports() -> None:
    info = inspect(REAL)
    kind = FuncType(("i32", "i32"), ("i64",))
    assert info.size == len(REAL)
    assert info.imports == (Import("env", "log", "func", kind),)
    assert info.functions["plugin_create_container"] == kind
    assert info.functions["malloc"] == FuncType(("i32",), ("i32",))
    assert info.exports_memory
    assert info.memory_bytes == 65536
    assert abi.methods(info) == {"plugin_configure", "plugin_create_container"}


def test_types_and_imports_read_as_one_writes_them() -> None:
    assert str(FuncType(("i32", "f64"), ())) == "(i32, f64) -> ()"
    assert str(Import("env", "log", "func", None)) == "env.log"
    assert str(Import("a\n", "\x1b[2J", "func", None)) == r"a\n.\x1b[2J"
    assert len(str(Import("x" * 100_000, "y", "func", None))) < 200
    assert len(str(FuncType(("externref",) * MAX_VALUES, ()))) < 200


def test_every_kind_of_import_is_read() -> None:
    module = Assembly(None)
    module.imported_other("m", "table", b"\x01\x70\x01\x02\x03")
    module.imported_other("m", "memory", b"\x02\x01\x02\x03")
    module.imported_other("m", "global", b"\x03\x7e\x01")
    function = module.imported("m", "function", "ifI")
    module.function("I", i64(function), export="after")
    info = inspect(module.build())
    assert [one.kind for one in info.imports] == ["table", "memory", "global", "func"]
    assert (info.memory_bytes, info.memory_max_bytes) == (2 * 65536, 3 * 65536)
    assert info.functions == {"after": FuncType((), ("i64",))}


def test_a_memory_that_is_exported_by_another_name_is_not_the_memory() -> None:
    module = Assembly(1)
    wasm = module.build().replace(name("memory"), name("nemory"))
    assert not inspect(wasm).exports_memory
    # Nor is a function of that name.
    module = Assembly(None)
    module.function("I", i64(0), export="memory")
    assert not inspect(module.build()).exports_memory


@pytest.mark.parametrize(
    ("wasm", "says"),
    [
        (b"", "not a Wasm module"),
        (b"\x7fELF" + bytes(100), "not a Wasm module"),
        (b"\0asm", "not a core Wasm module"),
        (b"\0asm\x0d\0\1\0" + bytes(50), r"\(a component\?\): build for wasip1, not wasip2"),
        (bytes(MAX_MODULE_BYTES + 1), f"at most {MAX_MODULE_BYTES} are taken"),
        (HEADER + b"\x01", "byte 9 is missing"),
        (HEADER + b"\x01\x7f", "section 1 is longer than the module: a cut file?"),
        (with_sections((1, b"\x01")), "byte 11 is missing from its section"),
        (with_sections((1, b"\x01" + NO_TYPE + b"\0")), "section 1 does not end where it says"),
        (with_sections((1, b"\0"), (1, b"\0")), "section 1 stands twice or too late"),
        (with_sections((3, b"\0"), (1, b"\0")), "section 1 stands twice or too late"),
        (with_sections((14, b"")), "section 14 is not known"),
        (with_sections((1, b"\x01\x4e\x00")), "a type of form 0x4e: only function types"),
        (with_sections((1, b"\x01\x60\x01\x63\x70\x00")), "a value of type 0x63, which no"),
        (with_sections((1, b"\x01\x60" + unsigned(MAX_VALUES + 1))), "at most 1000 are taken"),
        (with_sections((1, unsigned(MAX_ENTRIES + 1))), f"at most {MAX_ENTRIES} are taken"),
        (with_sections((1, b"\xff\xff\xff\xff\xff\x0f")), "has more than 32 bits"),
        (with_sections((1, b"\xff\xff\xff\xff\x1f")), "has more than 32 bits"),
        (HEADER + b"\x01\x80\x80\x80\x80\x80\x00", "has more than 32 bits"),
        (with_sections((1, bytes(MAX_SECTION_BYTES + 1))), f"at most {MAX_SECTION_BYTES} are"),
        (with_sections(*[(0, b"\0")] * MAX_SECTIONS), f"more than {MAX_SECTIONS} sections"),
        (with_sections((2, b"\x01\x01m\x01f\x00\x05")), "an import has type 5, which the module"),
        (with_sections((2, b"\x01\x01m\x01f\x04\x00\x00")), "an import is of kind 4"),
        (with_sections((2, b"\x01\x7fm")), "a name at byte 12 is longer than its section"),
        (with_sections((2, b"\x01\x01\xff\x01f\x03\x7f\x00")), "at byte 12 is not UTF-8"),
        (with_sections((3, b"\x01\x00"), (10, b"\0")), "a function has type 0"),
        (with_sections((1, b"\x01" + NO_TYPE), (3, b"\x01\x00")), "functions without code: a cut"),
        (with_sections((5, b"\x02\x00\x01\x00\x01")), "several memories"),
        (with_sections((5, b"\x01\x03\x01\x02")), "a shared or 64-bit memory"),
        (with_sections((5, b"\x01\x04\x01")), "a shared or 64-bit memory"),
        (with_sections((5, b"\x01\x08\x01\x00")), "a shared or 64-bit memory"),
        (
            with_sections((7, b"\x01\x05\x1b[2J\n\x00\x09")),
            r"the export \\x1b\[2J\\n is function 9, which is missing",
        ),
    ],
)
def test_what_is_no_module_for_plugins_is_refused_with_the_reason(wasm: bytes, says: str) -> None:
    with pytest.raises(ModuleError, match=says):
        inspect(wasm)


def test_custom_sections_may_stand_anywhere() -> None:
    custom = (0, name("x") + b"anything")
    empty = tuple((number, b"\0") for number in (1, 2, 3, 4, 5))
    assert inspect(with_sections(*(one for pair in empty for one in (custom, pair)), custom))


@pytest.mark.parametrize("wasm", [REAL, guest("old-gen"), plugin({"configure": ECHO})])
def test_every_truncation_is_refused_or_lacks_what_a_plugin_needs(wasm: bytes) -> None:
    whole = inspect(wasm)
    for size in range(len(wasm)):
        info = inspected(wasm[:size])
        # At the border of two sections the reader cannot know; the compiler does.
        assert info is None or info.functions in ({}, whole.functions)


@pytest.mark.not_emulated("plain Python, for half a minute")
def test_every_flipped_bit_is_refused_or_read() -> None:
    for at in range(len(REAL)):
        for bit in range(8):
            inspected(REAL[:at] + bytes([REAL[at] ^ 1 << bit]) + REAL[at + 1 :])


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_after_a_header_are_refused_or_read(content: bytes) -> None:
    inspected(content)
    inspected(HEADER + content)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 14), st.binary(max_size=60)), max_size=8))
def test_any_sections_are_refused_or_read(sections: list[tuple[int, bytes]]) -> None:
    inspected(with_sections(*sections))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_module_with_changed_bytes_is_refused_or_read(data: st.DataObject) -> None:
    wasm = bytearray(REAL)
    for _ in range(data.draw(st.integers(1, 8))):
        wasm[data.draw(st.integers(8, len(wasm) - 1))] = data.draw(st.integers(0, 255))
    inspected(bytes(wasm))


@pytest.mark.parametrize(
    "wasm",
    [
        with_sections((1, unsigned(MAX_ENTRIES) + NO_TYPE * (MAX_SECTION_BYTES // 3 - 2))),
        with_sections((3, unsigned(MAX_ENTRIES) + bytes(MAX_ENTRIES)), (10, b"\0")),
        with_sections((7, unsigned(50_000) + b"\x00\x03\x00" * 50_000)),
        HEADER + random.Random(0).randbytes(1 << 20),
        HEADER + bytes(1 << 20),
        HEADER + b"\x00\x01\x00" * (MAX_MODULE_BYTES // 3 - 3),
    ],
    ids=["types", "functions", "exports", "random", "zeros", "tiny sections"],
)
def test_the_work_is_bounded_by_the_limits(wasm: bytes) -> None:
    inspected(wasm)


def test_a_module_may_lack_everything() -> None:
    info = inspect(HEADER)
    assert info == ModuleInfo(8, (), {}, False, 0, None)
    with pytest.raises(ModuleError, match=re.escape("plugin_api_version () -> (i64) is missing")):
        abi.methods(info)


def test_what_is_no_method_of_the_abi_does_not_count() -> None:
    wasm = plugin({"configure": ECHO}, extra={"helper": ("iI", i64(1)), "plugins": ("i", i32(1))})
    assert abi.methods(inspect(wasm)) == {"plugin_configure"}
