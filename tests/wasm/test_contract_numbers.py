"""Results are the same bits on every engine and processor."""

import math
import struct

import pytest

from tests.support.assembler import i32, i64
from tests.wasm.lab import Lab
from tests.wasm.plugins import packed, plugin

AT = 64
F32 = {name: bytes([code]) for name, code in (("add", 0x92), ("sub", 0x93), ("mul", 0x94))}
F32 |= {"div": b"\x95", "min": b"\x96", "max": b"\x97"}
F64 = {name: bytes([code]) for name, code in (("add", 0xA0), ("sub", 0xA1), ("mul", 0xA2))}
F64 |= {"div": b"\xa3", "min": b"\xa4", "max": b"\xa5"}
SQRT32, SQRT64, DEMOTE, PROMOTE = b"\x91", b"\x9f", b"\xb6", b"\xbb"
STORE32, STORE64 = b"\x38\x02\x00", b"\x39\x03\x00"  # f32.store, f64.store

CANONICAL_32, CANONICAL_64 = 0x7FC00000, 0x7FF8000000000000
INFINITY = math.inf
# A NaN with a payload and a sign, as hardware would pass it on.
STRANGE_32, STRANGE_64 = 0xFFC12345, 0xFFF8000012345678


def f32(bits: int) -> bytes:
    return b"\x43" + struct.pack("<I", bits)


def f64(bits: int) -> bytes:
    return b"\x44" + struct.pack("<Q", bits)


def bits32(value: float) -> int:
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


def bits64(value: float) -> int:
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])


def computed(code: bytes, store: bytes, size: int, lab: Lab) -> int:
    body = i32(AT) + code + store + packed(i32(AT), i32(size))
    return int.from_bytes(lab.start(plugin({"configure": body})).call("configure"), "little")


@pytest.mark.parametrize(
    ("left", "operation", "right"),
    [
        (bits32(0.0), "div", bits32(0.0)),
        (bits32(-0.0), "div", bits32(0.0)),
        (bits32(INFINITY), "sub", bits32(INFINITY)),
        (bits32(0.0), "mul", bits32(-INFINITY)),
        (STRANGE_32, "add", bits32(1.0)),
        (bits32(1.0), "min", STRANGE_32),
        (STRANGE_32, "max", 0x7FA00001),
    ],
)
def test_a_computed_nan_of_32_bits_is_the_canonical_one(
    left: int, operation: str, right: int, lab: Lab
) -> None:
    code = f32(left) + f32(right) + F32[operation]
    assert computed(code, STORE32, 4, lab) == CANONICAL_32
    assert computed(code + PROMOTE, STORE64, 8, lab) == CANONICAL_64


@pytest.mark.parametrize(
    ("left", "operation", "right"),
    [
        (bits64(0.0), "div", bits64(0.0)),
        (bits64(INFINITY), "sub", bits64(INFINITY)),
        (bits64(-INFINITY), "mul", bits64(0.0)),
        (STRANGE_64, "add", bits64(1.0)),
        (bits64(1.0), "max", STRANGE_64),
        (STRANGE_64, "min", 0x7FF4000000000001),
    ],
)
def test_a_computed_nan_of_64_bits_is_the_canonical_one(
    left: int, operation: str, right: int, lab: Lab
) -> None:
    code = f64(left) + f64(right) + F64[operation]
    assert computed(code, STORE64, 8, lab) == CANONICAL_64
    assert computed(code + DEMOTE, STORE32, 4, lab) == CANONICAL_32


def test_a_square_root_of_less_than_nothing_is_the_canonical_nan(lab: Lab) -> None:
    assert computed(f32(bits32(-1.0)) + SQRT32, STORE32, 4, lab) == CANONICAL_32
    assert computed(f64(bits64(-1.0)) + SQRT64, STORE64, 8, lab) == CANONICAL_64


@pytest.mark.parametrize(
    ("left", "operation", "right", "result"),
    [
        (1.0, "div", 3.0, 1 / 3),
        (0.1, "add", 0.2, 0.1 + 0.2),
        (5e-324, "div", 2.0, 0.0),
        (-0.0, "min", 0.0, -0.0),
        (-0.0, "max", 0.0, 0.0),
        (1e308, "mul", 10.0, math.inf),
    ],
)
def test_numbers_are_those_of_ieee_754(
    left: float, operation: str, right: float, result: float, lab: Lab
) -> None:
    code = f64(bits64(left)) + f64(bits64(right)) + F64[operation]
    assert computed(code, STORE64, 8, lab) == bits64(result)


@pytest.mark.parametrize(
    ("code", "result"),
    [
        (i64(7) + i64(-2) + b"\x7f", -3),  # i64.div_s, towards zero
        (i64(-7) + i64(2) + b"\x81", -1),  # i64.rem_s
        (i64(1) + i64(65) + b"\x86", 2),  # i64.shl takes the count modulo 64
        (i64(-1) + i64(1) + b"\x7c", 0),
        (i64(1 << 63) + b"\x79", 0),  # i64.clz
    ],
)
def test_integers_wrap_and_round_as_specified(code: bytes, result: int, lab: Lab) -> None:
    assert computed(code, b"\x37\x03\x00", 8, lab) == result & (1 << 64) - 1
