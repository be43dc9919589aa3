"""The part of Wasmtime's C API that the adapter needs, through ctypes.

The library comes from the PyPI package `wasmtime`, whose Python half is not imported:
its bindings of the whole API cost 3 MB, and its `Func.__call__` 40 us a call.
Signatures: wasmtime/func.h, store.h, module.h, linker.h, config.h of version 50.
"""

import ctypes
import importlib.util
import os
from collections.abc import Collection
from ctypes import (
    POINTER,
    c_bool,
    c_char_p,
    c_int64,
    c_size_t,
    c_uint8,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path
from typing import Any

from edge_agent.errors import EngineError, NotInstalledError

VERSION = "50.0.1"  # whose C API is declared here; setup.cfg pins the same

MAX_FRAMES = 20  # of a guest's calls, told with a trap
MAX_MESSAGE_CHARS = 500  # of the library's own, which quote names out of the module

# Kinds (wasm.h, val.h, extern.h) and trap codes (trap.h) by number.
KIND_I32, KIND_I64, KIND_F32, KIND_F64 = 0, 1, 2, 3
KIND_NAMES = {0: "i32", 1: "i64", 2: "f32", 3: "f64"}
EXTERN_FUNC, EXTERN_GLOBAL = 0, 1
DEADLINE_CONTINUE = 0  # store.h
TRAP_NAMES = {
    0: "call stack exhausted",
    1: "memory access out of bounds",
    2: "misaligned atomic access",
    3: "table access out of bounds",
    4: "indirect call to null",
    5: "indirect call of another type",
    6: "integer overflow",
    7: "integer division by zero",
    8: "invalid conversion to integer",
    9: "unreachable executed",
    11: "out of fuel",
}


class ByteVec(ctypes.Structure):
    _fields_ = (("size", c_size_t), ("data", c_void_p))

    def take(self, free: Any) -> bytes:
        """Its bytes; the vector is given back."""
        data = ctypes.string_at(self.data, self.size) if self.size else b""
        free(ctypes.byref(self))
        return data


class TypeVec(ctypes.Structure):
    _fields_ = (("size", c_size_t), ("data", POINTER(c_void_p)))


class FrameVec(ctypes.Structure):
    _fields_ = (("size", c_size_t), ("data", POINTER(c_void_p)))


class Func(ctypes.Structure):
    _fields_ = (("store_id", c_uint64), ("private", c_void_p))


class Memory(ctypes.Structure):
    _fields_ = (("store_id", c_uint64), ("private1", c_uint64), ("private2", ctypes.c_uint32))


class Global(ctypes.Structure):
    _fields_ = (("store_id", c_uint64), ("private", ctypes.c_uint32 * 3))


class Value(ctypes.Structure):
    """wasmtime_val_t, of which only i64 is used."""

    _fields_ = (("kind", c_uint8), ("i64", c_int64), ("pad", c_uint64 * 2))


class ExternOf(ctypes.Union):
    _fields_ = (("func", Func), ("memory", Memory), ("global_", Global), ("pad", c_uint64 * 3))


class Extern(ctypes.Structure):
    _fields_ = (("kind", c_uint8), ("of", ExternOf))


class Instance(ctypes.Structure):
    _fields_ = (("store_id", c_uint64), ("private", c_size_t))


# env, caller, arguments and results (16 bytes each), how many -> trap or NULL
HOST_CALLBACK = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_void_p, POINTER(c_uint64), c_size_t)
# context, data, ticks until the next time, what to do until then -> error or NULL
DEADLINE_CALLBACK = ctypes.CFUNCTYPE(
    c_void_p, c_void_p, c_void_p, POINTER(c_uint64), POINTER(c_uint8)
)

# Proposals that `edge_agent.wasm.module` does not read, or that would let a guest have
# memory beside the one that is limited, or compute otherwise on another engine, or not at all.
PROPOSALS_OFF = (
    "compact_imports",
    "custom_page_sizes",
    "exceptions",
    "function_references",
    "gc",
    "memory64",
    "multi_memory",
    "relaxed_simd",
    "stack_switching",
    "tail_call",
    "threads",
    "wide_arithmetic",
)

_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "wasm_config_new": (c_void_p, []),
    "wasmtime_config_epoch_interruption_set": (None, [c_void_p, c_bool]),
    "wasmtime_config_cranelift_nan_canonicalization_set": (None, [c_void_p, c_bool]),
    "wasmtime_config_parallel_compilation_set": (None, [c_void_p, c_bool]),
    "wasmtime_config_max_wasm_stack_set": (None, [c_void_p, c_size_t]),
    "wasmtime_config_async_stack_size_set": (None, [c_void_p, c_size_t]),
    "wasmtime_config_memory_reservation_set": (None, [c_void_p, c_uint64]),
    "wasmtime_config_memory_guard_size_set": (None, [c_void_p, c_uint64]),
    "wasmtime_config_memory_reservation_for_growth_set": (None, [c_void_p, c_uint64]),
    "wasm_engine_new_with_config": (c_void_p, [c_void_p]),
    "wasmtime_module_new": (c_void_p, [c_void_p, c_char_p, c_size_t, POINTER(c_void_p)]),
    "wasmtime_module_serialize": (c_void_p, [c_void_p, POINTER(ByteVec)]),
    "wasmtime_module_deserialize_file": (c_void_p, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "wasmtime_module_delete": (None, [c_void_p]),
    "wasmtime_module_exports": (None, [c_void_p, POINTER(TypeVec)]),
    "wasm_exporttype_name": (POINTER(ByteVec), [c_void_p]),
    "wasm_exporttype_type": (c_void_p, [c_void_p]),
    "wasm_exporttype_vec_delete": (None, [POINTER(TypeVec)]),
    "wasm_externtype_as_functype_const": (c_void_p, [c_void_p]),
    "wasm_functype_params": (POINTER(TypeVec), [c_void_p]),
    "wasm_functype_results": (POINTER(TypeVec), [c_void_p]),
    "wasm_valtype_kind": (c_uint8, [c_void_p]),
    "wasmtime_store_new": (c_void_p, [c_void_p, c_void_p, c_void_p]),
    "wasmtime_store_context": (c_void_p, [c_void_p]),
    "wasmtime_store_limiter": (None, [c_void_p] + [c_int64] * 5),
    "wasmtime_store_delete": (None, [c_void_p]),
    "wasmtime_store_epoch_deadline_callback": (
        None,
        [c_void_p, DEADLINE_CALLBACK, c_void_p, c_void_p],
    ),
    "wasmtime_func_new_unchecked": (
        None,
        [c_void_p, c_void_p, HOST_CALLBACK, c_void_p, c_void_p, POINTER(Func)],
    ),
    "wasmtime_instance_new": (
        c_void_p,
        [c_void_p, c_void_p, c_void_p, c_size_t, POINTER(Instance), c_void_p],
    ),
    "wasmtime_instance_export_get": (
        c_bool,
        [c_void_p, POINTER(Instance), c_char_p, c_size_t, POINTER(Extern)],
    ),
    "wasm_valtype_new": (c_void_p, [c_uint8]),
    "wasm_functype_new": (c_void_p, [POINTER(TypeVec), POINTER(TypeVec)]),
    "wasm_functype_delete": (None, [c_void_p]),
    "wasm_valtype_vec_new": (None, [POINTER(TypeVec), c_size_t, POINTER(c_void_p)]),
    "wasmtime_error_message": (None, [c_void_p, POINTER(ByteVec)]),
    "wasmtime_error_delete": (None, [c_void_p]),
    "wasmtime_error_new": (c_void_p, [c_char_p]),
    "wasmtime_trap_new": (c_void_p, [c_char_p, c_size_t]),
    "wasmtime_trap_code": (c_bool, [c_void_p, POINTER(c_uint8)]),
    "wasm_trap_message": (None, [c_void_p, POINTER(ByteVec)]),
    "wasm_trap_delete": (None, [c_void_p]),
    "wasm_trap_trace": (None, [c_void_p, POINTER(FrameVec)]),
    "wasmtime_error_wasm_trace": (None, [c_void_p, POINTER(FrameVec)]),
    "wasm_frame_func_index": (c_uint32, [c_void_p]),
    "wasm_frame_module_offset": (c_size_t, [c_void_p]),
    "wasm_frame_vec_delete": (None, [POINTER(FrameVec)]),
    "wasm_byte_vec_delete": (None, [POINTER(ByteVec)]),
    # Runs guest code: the GIL is released.
    "wasmtime_func_call_unchecked": (
        c_void_p,
        [c_void_p, c_void_p, c_void_p, c_size_t, c_void_p],
    ),
}
_SIGNATURES |= {
    f"wasmtime_config_wasm_{name}_set": (None, [c_void_p, c_bool]) for name in PROPOSALS_OFF
}
# A few instructions each: called with the GIL held, which spares its hand-over.
_QUICK: dict[str, tuple[Any, list[Any]]] = {
    "wasmtime_context_set_epoch_deadline": (None, [c_void_p, c_uint64]),
    "wasmtime_engine_increment_epoch": (None, [c_void_p]),
    "wasmtime_memory_data": (c_void_p, [c_void_p, c_void_p]),
    "wasmtime_memory_data_size": (c_size_t, [c_void_p, c_void_p]),
    "wasmtime_global_get": (None, [c_void_p, POINTER(Global), POINTER(Value)]),
    "wasmtime_global_set": (c_void_p, [c_void_p, POINTER(Global), POINTER(Value)]),
}


class Library:
    """The loaded library; every function above is an attribute, `int` for pointers."""

    def __init__(self) -> None:
        path = find()
        try:
            slow, quick = ctypes.CDLL(str(path)), ctypes.PyDLL(str(path))
            for dll, table in ((slow, _SIGNATURES), (quick, _QUICK)):
                for name, (result, arguments) in table.items():
                    function = getattr(dll, name)
                    function.restype, function.argtypes = result, arguments
                    setattr(self, name, function)
        except (OSError, AttributeError) as error:
            raise EngineError(f"wasmtime's library {path} cannot be used: {error}") from error

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{name} is not declared in wasmtime_capi")

    def error(self, error: int) -> str:
        """The message on one line; it is given back."""
        text = ByteVec()
        self.wasmtime_error_message(error, ctypes.byref(text))
        self.wasmtime_error_delete(error)
        message = text.take(self.wasm_byte_vec_delete).decode(errors="replace")
        return " ".join(message.split())[:MAX_MESSAGE_CHARS]

    def trap(self, trap: int | None) -> str:
        """The message on one line; it is given back."""
        code, text = c_uint8(), ByteVec()
        known = self.wasmtime_trap_code(trap, ctypes.byref(code))
        self.wasm_trap_message(trap, ctypes.byref(text))
        self.wasm_trap_delete(trap)
        message = text.take(self.wasm_byte_vec_delete).decode(errors="replace")
        if known:
            return TRAP_NAMES.get(code.value, f"trap {code.value}")
        return " ".join(message.strip("\0").split())[:MAX_MESSAGE_CHARS]

    def frames(self, error: int | None, trap: int | None) -> tuple[tuple[int, int], ...]:
        """The guest's calls: function and offset in the module, the innermost first."""
        vector = FrameVec()
        if error:
            self.wasmtime_error_wasm_trace(error, ctypes.byref(vector))
        else:
            self.wasm_trap_trace(trap, ctypes.byref(vector))
        found = tuple(
            (self.wasm_frame_func_index(each), self.wasm_frame_module_offset(each))
            for each in vector.data[: min(vector.size, MAX_FRAMES)]
        )
        self.wasm_frame_vec_delete(ctypes.byref(vector))
        return found

    def exported_functions(
        self, module: c_void_p, names: Collection[str]
    ) -> dict[str, tuple[tuple[str, ...], ...]]:
        """(parameters, results) of those exports of `names` that are functions."""
        found, exports = {}, TypeVec()
        self.wasmtime_module_exports(module, ctypes.byref(exports))
        for export in exports.data[: exports.size]:
            text = self.wasm_exporttype_name(export).contents
            name = ctypes.string_at(text.data, text.size).decode()
            kind = self.wasm_externtype_as_functype_const(self.wasm_exporttype_type(export))
            if kind and name in names:
                found[name] = tuple(
                    tuple(
                        # Aborts the process for a v128: only for functions that have none.
                        KIND_NAMES.get(self.wasm_valtype_kind(one), "reference")
                        for one in types.contents.data[: types.contents.size]
                    )
                    for types in (self.wasm_functype_params(kind), self.wasm_functype_results(kind))
                )
        self.wasm_exporttype_vec_delete(ctypes.byref(exports))
        return found

    def func_type(self, params: list[int], results: list[int]) -> int:
        """A function type of value kinds; the caller deletes it."""
        vectors = []
        for kinds in (params, results):
            types = (c_void_p * len(kinds))(*[self.wasm_valtype_new(kind) for kind in kinds])
            vector = TypeVec()
            self.wasm_valtype_vec_new(ctypes.byref(vector), len(kinds), types)
            vectors.append(vector)
        made: int = self.wasm_functype_new(ctypes.byref(vectors[0]), ctypes.byref(vectors[1]))
        return made


def find() -> Path:
    """The library's path. EngineError: not installed here, or another version."""
    spec = importlib.util.find_spec("wasmtime")
    if spec is None or not spec.submodule_search_locations:
        raise NotInstalledError(
            f"wasmtime is not installed: pip install wasmtime=={VERSION} (x86-64 and aarch64 only)"
        )
    package = Path(spec.submodule_search_locations[0])
    if not package.with_name(f"wasmtime-{VERSION}.dist-info").is_dir():
        # Asked only now: this module and what it brings take 2.5 MB.
        from importlib.metadata import version

        if version("wasmtime") != VERSION:
            raise EngineError(
                f"wasmtime {version('wasmtime')} is installed; this agent needs {VERSION}"
            )
    machine = os.uname().machine
    library = package / f"linux-{machine}" / "_libwasmtime.so"
    if not library.is_file() or ctypes.sizeof(c_void_p) != 8:
        raise EngineError(f"wasmtime has no library for {machine}, only x86-64, aarch64")
    return library
