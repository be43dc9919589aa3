"""The part of wasm3's C API that the adapter needs, through ctypes.

The library is the one of the package `edge_agent_wasm3` (scripts/build-wasm3), or else the
extension module of PyPI's `pywasm3`, whose Python half is not used: it cannot free a runtime,
reads past short argument tuples, knows only signed numbers and holds the interpreter's lock
while a guest runs. Signatures: wasm3.h of version 0.5.0.
"""

import ctypes
import importlib.util
from ctypes import POINTER, c_char_p, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

from edge_agent.errors import EngineError, NotInstalledError

VERSION = "0.5.0"  # whose C API is declared here; setup.cfg pins the same

# Of the stack. PyPI's build for RISC-V has large ones.
_SLOTS_BYTES = (4, 8)
TYPE_I64 = 2  # M3ValueType
_MARK = 0x5A3C_96E1 & (1 << 31) - 1  # looked for in memory: nothing else is likely to be it

# runtime, context (user data, function), stack (results, then arguments), memory -> NULL or
# the message of a trap
HOST_CALLBACK = ctypes.CFUNCTYPE(c_void_p, c_void_p, POINTER(c_void_p), POINTER(c_uint64), c_void_p)

# What wasm3.h says, and what every engine of the agent says.
TRAP_NAMES = {
    "indirect call type mismatch": "indirect call of another type",
    "integer divide by zero": "integer division by zero",
    "integer overflow": "integer overflow",
    "invalid conversion to integer": "invalid conversion to integer",
    "null table element": "indirect call to null",
    "out of bounds memory access": "memory access out of bounds",
    "stack overflow": "call stack exhausted",
    "undefined element": "table access out of bounds",
    "unreachable executed": "unreachable executed",
}


class TaggedValue(ctypes.Structure):
    """M3TaggedValue, of which only i64 is used."""

    _fields_ = (("type", ctypes.c_int), ("value", c_int64))


class ErrorInfo(ctypes.Structure):
    _fields_ = (
        ("result", c_char_p),
        ("runtime", c_void_p),
        ("module", c_void_p),
        ("function", c_void_p),
        ("file", c_char_p),
        ("line", c_uint32),
        ("message", c_char_p),
    )


_RESULT = c_void_p  # M3Result: NULL or a text
# Run guest code, or take long: the GIL is released.
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "m3_ParseModule": (_RESULT, [c_void_p, POINTER(c_void_p), c_void_p, c_uint32]),
    "m3_LoadModule": (_RESULT, [c_void_p, c_void_p]),
    "m3_CompileModule": (_RESULT, [c_void_p]),
    "m3_RunStart": (_RESULT, [c_void_p]),
    "m3_FindFunction": (_RESULT, [POINTER(c_void_p), c_void_p, c_char_p]),
    "m3_Call": (_RESULT, [c_void_p, c_uint32, c_void_p]),
    "m3_FreeRuntime": (None, [c_void_p]),
    "m3_FreeEnvironment": (None, [c_void_p]),
}
# A few instructions each: called with the GIL held, which spares its hand-over.
_QUICK: dict[str, tuple[Any, list[Any]]] = {
    "m3_NewEnvironment": (c_void_p, []),
    "m3_NewRuntime": (c_void_p, [c_void_p, c_uint32, c_void_p]),
    "m3_FreeModule": (None, [c_void_p]),
    "m3_LinkRawFunctionEx": (
        _RESULT,
        [c_void_p, c_char_p, c_char_p, c_char_p, HOST_CALLBACK, c_void_p],
    ),
    "m3_GetMemory": (c_void_p, [c_void_p, POINTER(c_uint32), c_uint32]),
    "m3_FindGlobal": (c_void_p, [c_void_p, c_char_p]),
    "m3_GetGlobal": (_RESULT, [c_void_p, POINTER(TaggedValue)]),
    "m3_SetGlobal": (_RESULT, [c_void_p, POINTER(TaggedValue)]),
    "m3_GetErrorInfo": (None, [c_void_p, POINTER(ErrorInfo)]),
}
# Internal: what a trap notes of each frame is given back by it, and by nothing else. Where no
# notes are taken, as in our own build, there is none.
_CLEAR_BACKTRACE = "ClearBacktrace"

_OURS, _LIBRARY = "edge_agent_wasm3", "libwasm3.so"


class Library:
    """The loaded library; every function above is an attribute, `int` for pointers.

    `stack_at`: where, in bytes, a runtime holds the pointer to its stack; `slots_at`: how many
    slots that has, of `slot_bytes` each.
    """

    def __init__(self) -> None:
        path = find()
        try:
            slow, quick = ctypes.CDLL(str(path)), ctypes.PyDLL(str(path))
            for dll, table in ((slow, _SIGNATURES), (quick, _QUICK)):
                for name, (result, arguments) in table.items():
                    function = getattr(dll, name)
                    function.restype, function.argtypes = result, arguments
                    setattr(self, name, function)
            self.clear_backtrace: Any = getattr(quick, _CLEAR_BACKTRACE, None)
        except (OSError, AttributeError) as error:
            raise EngineError(f"wasm3's library {path} cannot be used: {error}") from error
        if self.clear_backtrace is not None:
            self.clear_backtrace.restype, self.clear_backtrace.argtypes = None, [c_void_p]
        self.stack_at, self.slots_at, self.slot_bytes = self._look(path)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{name} is not declared in wasm3_capi")

    def _look(self, path: Path) -> tuple[int, int, int]:
        """Find two fields of a runtime by what stands behind them: the pointer that the host
        left with it. `void *stack; u32 stackSize, numStackSlots; IM3Function lastCalled;
        void *userdata;` are the fields of this version.
        """
        stack_bytes = 4000
        environment = self.m3_NewEnvironment()
        runtime = self.m3_NewRuntime(environment, stack_bytes, _MARK)
        word = ctypes.sizeof(c_void_p)
        usable = ctypes.CDLL(None).malloc_usable_size
        usable.restype, usable.argtypes = c_size_t, [c_void_p]
        words = (c_size_t * (usable(runtime) // word)).from_address(runtime)
        try:
            mark = words[:].index(_MARK) * word
            slots_at = mark - word - 4
            slots = c_uint32.from_address(runtime + slots_at).value
            for slot_bytes in _SLOTS_BYTES:
                if slots == stack_bytes // slot_bytes:
                    return slots_at - 4 - word, slots_at, slot_bytes
        except ValueError:
            pass
        finally:
            self.m3_FreeRuntime(runtime)
            self.m3_FreeEnvironment(environment)
        raise EngineError(f"wasm3's library {path} is not built from wasm3 {VERSION}")

    def reason(self, result: int, runtime: int | None = None) -> str:
        """What a result says, with what the runtime adds; a trap by its name on each engine."""
        text = ctypes.string_at(result).decode(errors="replace").removeprefix("[trap] ")
        if text in TRAP_NAMES:
            return TRAP_NAMES[text]
        if runtime is not None:
            info = ErrorInfo()
            self.m3_GetErrorInfo(runtime, ctypes.byref(info))
            if info.message:
                text += f" ({info.message.decode(errors='replace')})"
        return text


def find() -> Path:
    """The library's path. EngineError: not installed, or another version."""
    spec = importlib.util.find_spec(_OURS)
    if spec is not None and spec.origin:
        package = Path(spec.origin).parent
        _check_version(_OURS, package.parent)
        return package / _LIBRARY
    spec = importlib.util.find_spec("wasm3")
    if spec is not None and spec.origin:
        module = Path(spec.origin)
        _check_version("pywasm3", module.parent)
        return module
    raise NotInstalledError(
        f"wasm3 is not installed: pip install pywasm3=={VERSION}, which needs a C compiler (with "
        "GCC 14 or later, CFLAGS=-Wno-incompatible-pointer-types), or a wheel by "
        "scripts/build-wasm3, which needs none"
    )


def _check_version(distribution: str, folder: Path) -> None:
    """EngineError: what is installed in this folder is not the version declared here."""
    if (folder / f"{distribution}-{VERSION}.dist-info").is_dir():
        return
    # Asked only now: this module and what it brings take 2.5 MB.
    from importlib.metadata import PackageNotFoundError, version

    try:
        installed = version(distribution)
    except PackageNotFoundError:
        installed = "of an unknown origin"
    if installed != VERSION:
        raise EngineError(f"{distribution} {installed} is installed; this agent needs {VERSION}")
