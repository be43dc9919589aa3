"""Modules that are cheap to write down and costly to compile, and the engine to do it."""

import pytest

from edge_agent.errors import EngineError
from edge_agent.wasm.engine import Engine
from edge_agent.wasm.engine_selection import select_engine


def wasmtime() -> Engine:
    """The engine, or a skipped test where it has no wheel."""
    try:
        return select_engine("wasmtime")[0]
    except EngineError as error:
        pytest.skip(f"needs wasmtime: {error}")


def costly_module(functions: int, rounds: int) -> bytes:
    """`functions` equal functions of `rounds` times four additions of local variables.

    One function of 20,000 rounds takes a compiler 100 MB, one of 200,000 takes 680 MB.
    """
    additions = bytes(
        byte
        for local in range(4)
        for byte in (0x20, local, 0x41, 7 + local, 0x6A, 0x21, (local + 1) % 4)
    )
    body = b"\x01\x04\x7f" + additions * rounds + b"\x20\x00\x0b"
    code = (_number(len(body)) + body) * functions
    return (
        b"\0asm\1\0\0\0"
        + _section(1, b"\x01\x60\x00\x01\x7f")
        + _section(3, _number(functions) + bytes(functions))
        + _section(10, _number(functions) + code)
    )


def _section(number: int, content: bytes) -> bytes:
    return bytes([number]) + _number(len(content)) + content


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])
