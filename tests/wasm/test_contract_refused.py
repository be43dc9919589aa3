"""What no engine takes, whatever its own library can: the same modules are refused by each."""

import pytest

from edge_agent.errors import GuestFault, ModuleError
from edge_agent.wasm.engine import Engine
from edge_agent.wasm.module import inspect
from tests.support.assembler import DROP, Assembly, i32, i64
from tests.wasm.lab import Lab
from tests.wasm.plugins import plugin


@pytest.mark.parametrize(
    "feature",
    [
        b"\x60\x00\x01\x64\x70",  # a typed reference, of a later proposal
        b"\x5f\x00",  # a struct, of the collector's
    ],
)
def test_proposals_that_the_reader_does_not_know_are_refused(
    feature: bytes, engine: Engine
) -> None:
    wasm = b"\0asm\1\0\0\0\x01" + bytes([len(feature) + 1]) + b"\x01" + feature
    with pytest.raises(ModuleError):
        inspect(wasm)
    with pytest.raises(ModuleError):
        engine.compile(wasm)


@pytest.mark.parametrize(
    "limits", [b"\x04\x01", b"\x03\x01\x02", b"\x08\x01\x00"], ids=["64-bit", "shared", "pages"]
)
def test_memories_that_plugins_do_not_have_are_refused(limits: bytes, engine: Engine) -> None:
    wasm = b"\0asm\1\0\0\0\x05" + bytes([len(limits) + 1]) + b"\x01" + limits
    with pytest.raises(ModuleError):
        inspect(wasm)
    with pytest.raises(ModuleError):
        engine.compile(wasm)


@pytest.mark.parametrize(
    "code",
    [
        b"\x12\x02",  # return_call of plugin_api_version
        i64(1) + i64(2) + i64(3) + i64(4) + b"\xfc\x13" + DROP,  # i64.add128
        i64(1) + i64(2) + b"\xfc\x16" + DROP,  # i64.mul_wide_u
        b"\xfe\x03\x00" + i64(0),  # atomic.fence
        b"\x08\x00",  # throw
    ],
    ids=["tail call", "add128", "mul_wide", "threads", "exceptions"],
)
def test_instructions_that_not_all_engines_have_are_refused(code: bytes, engine: Engine) -> None:
    with pytest.raises(ModuleError):
        engine.compile(plugin({"configure": code}))


@pytest.mark.parametrize("begin", [0x02, 0x03, 0x04], ids=["block", "loop", "if"])
def test_code_after_the_end_of_a_function_is_refused(begin: int, engine: Engine) -> None:
    # wasmi's translator panics there, before its validator has seen the end.
    code = i64(0) + b"\x0b" + bytes([begin, 0x40])
    with pytest.raises(ModuleError):
        engine.compile(plugin({"configure": code}))


def test_a_table_larger_than_the_limit_is_refused(lab: Lab) -> None:
    module = Assembly(1)
    module.function("I", i64(1), export="plugin_api_version")
    module.function("ii", i32(64), export="malloc")
    module.function("i-", b"", export="free")
    module.entries[4].append(b"\x70\x00\xc0\x9a\x0c")  # 200,000 functions
    # When it is compiled, or at the latest when an instance is made.
    with pytest.raises((ModuleError, GuestFault), match="table"):
        lab.start(module.build())
