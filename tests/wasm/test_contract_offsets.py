"""Loads and stores of every kind with offsets of every length, on every engine: `p, offset` is the
same place as `p + offset, 0`, and what lies outside the memory ends the call.

An engine that interprets has an instruction of its own for short offsets and another for long ones
(wasmi 2.0.0 broke at the long one of two: `v128.store8_lane` and `v128.store16_lane`).
"""

from dataclasses import dataclass

import pytest

from edge_agent.errors import GuestFault
from tests.support.assembler import ADD, Assembly, get, i32, i64, unsigned
from tests.wasm.lab import Lab
from tests.wasm.plugins import packed

PAGE = 65536
PAGES = 4
OFFSETS = (0, 1, PAGE - 1, PAGE, 3 * PAGE - 32)
OUTSIDE = (PAGES * PAGE, 2**31, 2**32 - 1)
REPLY = 1024
POINTER = 7
# Of the memory at `POINTER`, behind and before.
AROUND = 40

V128_CONST = b"\xfd\x0c" + bytes(range(0x81, 0x91))
V128_STORE = b"\xfd\x0b\x00" + unsigned(0)
SPLAT = b"\x41\x07\xfd\x0f"  # i32.const 7, i8x16.splat: in no instruction, unlike a constant
VALUES = {
    "i32": (i32(-0x12345678), b"\x36"),
    "i64": (i64(-0x123456789ABCDEF0), b"\x37"),
    "f32": (b"\x43\x01\x02\x03\x40", b"\x38"),
    "f64": (b"\x44\x01\x02\x03\x04\x05\x06\x07\x40", b"\x39"),
}


@dataclass(frozen=True)
class Access:
    """An instruction: its code up to the alignment, what follows the offset, and its operand."""

    name: str
    code: bytes
    lane: bytes = b""
    takes: tuple[bytes, ...] = (b"",)  # code that leaves the value; several ways to have one
    stores: bool = False
    gives: bytes = V128_STORE[:2]  # what stores its result

    def at(self, pointer: bytes, offset: int, value: bytes) -> bytes:
        """Code of the access, and of keeping what a load gave."""
        done = pointer + value + self.code + b"\x00" + unsigned(offset) + self.lane
        if self.stores:
            return done
        return i32(REPLY) + done + self.gives + b"\x00\x00"


def accesses() -> list[Access]:
    """All of the core specification, section 5.4.6 and 5.4.8."""
    loaded = ("i32", "i64", "f32", "f64", *("i32",) * 4, *("i64",) * 6)
    found = [
        Access(f"load {at:#x}", bytes([at]), gives=VALUES[kind][1])
        for at, kind in enumerate(loaded, 0x28)
    ]
    stored = ("i32", "i64", "f32", "f64", "i32", "i32", "i64", "i64", "i64")
    for at, kind in enumerate(stored, 0x36):
        found.append(Access(f"store {at:#x}", bytes([at]), takes=(VALUES[kind][0],), stores=True))
    vectors = (V128_CONST, SPLAT)
    for at in (*range(0x0B), 0x5C, 0x5D):
        found.append(Access(f"v128 load {at:#x}", b"\xfd" + unsigned(at)))
    found.append(Access("v128.store", b"\xfd\x0b", takes=vectors, stores=True))
    for at in range(0x54, 0x5C):
        of_lane = b"\xfd" + unsigned(at)
        last = bytes([(16 >> at % 4) - 1])
        name = f"v128 lane {at:#x}"
        found.append(Access(name, of_lane, last, takes=vectors, stores=at >= 0x58))
    return found


# A pointer that is a constant, one out of a parameter (which is 0) and one that was computed.
POINTERS = (i32(POINTER), get(0), get(0) + i32(POINTER) + ADD)


def assembly() -> Assembly:
    module = Assembly(PAGES)
    module.function("ii", i32(2048), export="malloc")
    module.function("i-", b"", export="free")
    module.function("I", i64(1), export="plugin_api_version")
    return module


@pytest.mark.parametrize("access", accesses(), ids=lambda access: access.name)
def test_an_offset_is_added_to_the_pointer(access: Access, lab: Lab) -> None:
    module = assembly()
    pairs: list[list[str]] = []
    for offset in OFFSETS:
        place = POINTER + offset
        module.data(place, bytes(range(0x70, 0x70 + 16)))
        for pointer in POINTERS:
            for value in access.takes:
                beyond = offset if pointer != get(0) else place
                answer = packed(i32(place - min(place, 8)), i32(AROUND))
                if not access.stores:
                    answer = packed(i32(REPLY), i32(16))
                names: list[str] = []
                for code in (access.at(pointer, beyond, value), access.at(i32(place), 0, value)):
                    names.append(f"case{len(pairs)}{'ab'[len(names)]}")
                    module.function("iiI", code + answer, export=f"plugin_{names[-1]}")
                pairs.append(names)
    wasm = module.build()
    for first, second in pairs:
        reply = lab.start(wasm).call(first)
        assert reply == lab.start(wasm).call(second)
        assert any(reply)


@pytest.mark.parametrize("access", accesses(), ids=lambda access: access.name)
def test_outside_of_the_memory_is_a_fault(access: Access, lab: Lab) -> None:
    module = assembly()
    names: list[str] = []
    for offset in OUTSIDE:
        for pointer in POINTERS:
            for value in access.takes:
                names.append(f"case{len(names)}")
                code = access.at(pointer, offset, value) + i64(0)
                module.function("iiI", code, export=f"plugin_{names[-1]}")
    wasm = module.build()
    for name in names:
        with pytest.raises(GuestFault, match="memory access out of bounds"):
            lab.start(wasm).call(name)
