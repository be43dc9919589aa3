"""Lets wasm3 compile all of a module once, where it does no harm: in the compiler's process.

What only wasm3 refuses is found when a plugin is installed, and not in the middle of a call.
As PyPI builds it, it counts all code that it holds each time that it has made some: 20 s for
a Go module of 10 MB in one piece, 2 s in small ones.
"""

from collections.abc import Iterator
from ctypes import byref, c_void_p

from edge_agent.errors import ModuleError
from edge_agent.wasm.engines import wasm3_capi as capi
from edge_agent.wasm.instrument.binary import Cursor, unsigned
from edge_agent.wasm.module import Import, inspect

_PIECE_BYTES = 128 << 10  # of code
_MEMORY, _CODE, _DATA = 5, 10, 11
_SMALL_MEMORY = b"\x05\x04\x01\x01\x00\x01"  # nothing runs in it
_STACK_BYTES = 64 << 10  # for constants that are computed; no guest code is run
_TRAP = b"\x03\x00\x00\x0b"  # a function that only traps, in the place of one that has its turn
# In the place of host functions.
_NOTHING = capi.HOST_CALLBACK(lambda *_: None)


def try_all(library: capi.Library, wasm: bytes) -> None:
    """ModuleError: there is something that wasm3 does not compile. MemoryError."""
    imports = inspect(wasm).imports
    for piece in _pieces(wasm):
        _try(library, piece, imports)


def _pieces(wasm: bytes) -> Iterator[bytes]:
    """Modules like this one, of which each has some of the functions' code, and none its
    data or its memory."""
    cursor = Cursor(wasm, 8, len(wasm))
    before, bodies = [wasm[:8]], []
    while cursor.at < cursor.end:
        start = cursor.at
        number, size = cursor.byte(), cursor.u32()
        if number == _CODE:
            code = Cursor(wasm, cursor.at, cursor.at + size)
            bodies = [_body(code) for _ in range(code.count())]
        elif number == _MEMORY:
            before.append(_SMALL_MEMORY)
        elif number != _DATA:
            before.append(wasm[start : cursor.at + size])
        cursor.at += size
    first = 0
    while first < len(bodies):
        after, size = first, 0
        while after < len(bodies) and (size == 0 or size + len(bodies[after]) < _PIECE_BYTES):
            size += len(bodies[after])
            after += 1
        code_bytes = b"".join([_TRAP * first, *bodies[first:after], _TRAP * (len(bodies) - after)])
        content = unsigned(len(bodies)) + code_bytes
        yield b"".join([*before, bytes([_CODE]), unsigned(len(content)), content])
        first = after


def _body(code: Cursor) -> bytes:
    start = code.at
    code.take(code.u32())
    return code.data[start : code.at]


def _try(c: capi.Library, wasm: bytes, imports: tuple[Import, ...]) -> None:
    environment = c.m3_NewEnvironment()
    runtime = c.m3_NewRuntime(environment, _STACK_BYTES, None)
    module = c_void_p()
    try:
        result = c.m3_ParseModule(environment, byref(module), wasm, len(wasm))
        if not result:
            result = c.m3_LoadModule(runtime, module)
            if result:
                c.m3_FreeModule(module)
        if not result:
            for needed in imports:
                names = needed.module.encode(), needed.name.encode()
                c.m3_LinkRawFunctionEx(module, *names, None, _NOTHING, None)
            result = c.m3_CompileModule(module)
        if result:
            reason = c.reason(result, runtime)
            if "memory allocation" in reason:
                raise MemoryError(reason)
            raise ModuleError(f"the engine wasm3 cannot take this module: {reason}")
    finally:
        c.m3_FreeRuntime(runtime)
        c.m3_FreeEnvironment(environment)
