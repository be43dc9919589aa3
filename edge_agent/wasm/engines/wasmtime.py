"""The engine port on Wasmtime: epoch deadlines, a store limiter, unchecked calls.

Calls go through `wasmtime_func_call_unchecked`, which trusts its caller with the types:
every exported type was compared with the ABI's when the module was inspected.
"""

import ctypes
import functools
import itertools
import time
from ctypes import byref, c_char_p, c_size_t, c_uint64, c_void_p
from pathlib import Path
from typing import Any

from edge_agent.errors import EngineError, GuestFault, ModuleError
from edge_agent.wasm.abi import FREE, INITIALIZE, MALLOC, START, VERSION, AbiInstance, methods
from edge_agent.wasm.engine import MEMORY_EXPORT, Bounds, HostFunction, HostFunctions
from edge_agent.wasm.engines import wasmtime_capi as capi
from edge_agent.wasm.engines.ticker import Ticker
from edge_agent.wasm.module import FuncType, ModuleInfo

_U32 = 0xFFFFFFFF
_KINDS = {
    "i32": capi.KIND_I32,
    "i64": capi.KIND_I64,
    "f32": capi.KIND_F32,
    "f64": capi.KIND_F64,
}
_MAX_TABLE_ELEMENTS = 100_000  # as many as functions; 8 bytes each
_MAX_TABLES = 4
# Wasmtime reserves 4 GiB of addresses for each memory by default; a board's kernel may
# have 256 GiB for a process, and limits on addresses are common. With these the code
# checks bounds itself and a memory may move when it grows.
_RESERVATION_BYTES = 64 << 20
_GUARD_BYTES = 64 << 10


class WasmtimeEngine:
    """The library, with one native engine for each size of stack."""

    name = "wasmtime"
    version = capi.VERSION

    def __init__(self) -> None:
        self.library = capi.Library()
        self.ticker = Ticker(self._tick)
        self._natives: dict[int, int] = {}
        self.instances: dict[int, WasmtimeInstance] = {}  # by the number their callbacks carry
        self.numbers = itertools.count(1)
        self._callbacks: dict[tuple[str, str], Any] = {}

    def settings(self) -> str:
        return f"epoch,nan-canonical,reserve={_RESERVATION_BYTES},guard={_GUARD_BYTES}"

    def compile(self, wasm: bytes) -> bytes:
        c = self.library
        module, artifact = c_void_p(), capi.ByteVec()
        error = c.wasmtime_module_new(self.native(512 << 10), wasm, len(wasm), byref(module))
        if error:
            raise ModuleError(f"not valid Wasm: {c.error_text(error)}")
        error = c.wasmtime_module_serialize(module, byref(artifact))
        c.wasmtime_module_delete(module)
        if error:
            raise EngineError(f"wasmtime cannot serialize the module: {c.error_text(error)}")
        return artifact.take(c.wasm_byte_vec_delete)

    def load(self, artifact: Path, info: ModuleInfo, stack_bytes: int) -> "WasmtimeModule":
        module = c_void_p()
        error = self.library.wasmtime_module_deserialize_file(
            self.native(stack_bytes), str(artifact).encode(), byref(module)
        )
        if error:
            reason = self.library.error_text(error)
            raise EngineError(f"{artifact} is no artifact of {self.name} {self.version}: {reason}")
        return WasmtimeModule(self, self.native(stack_bytes), module, info)

    def native(self, stack_bytes: int) -> int:
        """The native engine for a size of stack; engines are never given back."""
        engine = self._natives.get(stack_bytes)
        if engine is None:
            c = self.library
            config = c.wasm_config_new()
            c.wasmtime_config_epoch_interruption_set(config, True)
            c.wasmtime_config_cranelift_nan_canonicalization_set(config, True)
            c.wasmtime_config_parallel_compilation_set(config, False)  # leave a core to the board
            c.wasmtime_config_max_wasm_stack_set(config, stack_bytes)
            c.wasmtime_config_memory_reservation_set(config, _RESERVATION_BYTES)
            c.wasmtime_config_memory_guard_size_set(config, _GUARD_BYTES)
            c.wasmtime_config_memory_reservation_for_growth_set(config, 0)
            c.wasmtime_config_wasm_threads_set(config, False)
            c.wasmtime_config_wasm_memory64_set(config, False)
            c.wasmtime_config_wasm_multi_memory_set(config, False)
            c.wasmtime_config_wasm_relaxed_simd_set(config, False)
            engine = int(c.wasm_engine_new_with_config(config))
            self._natives[stack_bytes] = engine
        return engine

    def callback(self, key: tuple[str, str], kind: FuncType) -> Any:
        """The C function behind one import, shared by all instances."""
        found = self._callbacks.get(key)
        if found is None:
            found = capi.HOST_CALLBACK(functools.partial(self._host_call, key, _masks(kind)))
            self._callbacks[key] = found
        return found

    def _host_call(
        self,
        key: tuple[str, str],
        masks: tuple[int, ...],
        number: int,
        _caller: int,
        raw: Any,
        _count: int,
    ) -> int | None:
        instance = self.instances[number]
        try:
            arguments = [raw[2 * at] & mask for at, mask in enumerate(masks)]
            result = instance.functions[key].call(instance, *arguments)
        except BaseException as error:
            # Nothing may unwind through the engine's frames: it travels as a trap.
            instance.raised = error
            trap: int = self.library.wasmtime_trap_new(b"host", 4)
            return trap
        if result is not None:
            raw[0] = result
        return None

    def _tick(self) -> None:
        for native in list(self._natives.values()):
            self.library.wasmtime_engine_increment_epoch(native)


class WasmtimeModule:
    """A mapped artifact."""

    def __init__(
        self, engine: WasmtimeEngine, native: int, module: c_void_p, info: ModuleInfo
    ) -> None:
        self.engine = engine
        self.native = native
        self.info = info
        self._module: c_void_p | None = module

    @property
    def handle(self) -> c_void_p:
        if self._module is None:
            raise EngineError("this module is closed")
        return self._module

    def instantiate(
        self, bounds: Bounds, functions: HostFunctions, deadline_s: float
    ) -> "WasmtimeInstance":
        instance = WasmtimeInstance(self, bounds, functions)
        try:
            instance.prepare(deadline_s)
            instance.start(deadline_s)
        except BaseException:
            instance.close()
            raise
        return instance

    def close(self) -> None:
        if self._module is not None:
            self.engine.library.wasmtime_module_delete(self._module)
            self._module = None


class WasmtimeInstance(AbiInstance):
    """A store with one instance; the buffers of a call are made once."""

    def __init__(self, module: WasmtimeModule, bounds: Bounds, functions: HostFunctions) -> None:
        super().__init__(bounds)
        self.functions = functions
        self.raised: BaseException | None = None
        self._module = module
        self._engine = engine = module.engine
        self._c = c = engine.library
        self._number = next(engine.numbers)
        self._invoke = c.wasmtime_func_call_unchecked
        self._store: int | None = c.wasmtime_store_new(module.native, None, None)
        self._context = c.wasmtime_store_context(self._store)
        c.wasmtime_store_limiter(
            self._store, bounds.memory_bytes, _MAX_TABLE_ELEMENTS, 1, _MAX_TABLES, 1
        )
        self._exports: dict[str, int] = {}
        self._funcs: list[capi.Func] = []  # what the addresses in _exports point to
        self._memory = capi.Memory()
        self._memory_at = ctypes.addressof(self._memory)
        self._base = self._size = 0
        self._raw = (c_uint64 * 4)()  # two values of 16 bytes: arguments in, result out
        self._raw_at = ctypes.addressof(self._raw)
        self._trap = c_void_p()
        self._trap_at = ctypes.addressof(self._trap)
        self._until = 0.0

    def prepare(self, deadline_s: float) -> None:
        """Link the imports, instantiate, look the exports up."""
        c, info = self._c, self._module.info
        if info.memory_bytes > self._bounds.memory_bytes:
            raise ModuleError(
                f"the module begins with {info.memory_bytes} bytes of memory; "
                f"its limit is {self._bounds.memory_bytes}"
            )
        externs = (capi.Extern * len(info.imports))()
        for extern, wanted in zip(externs, info.imports, strict=True):
            key = (wanted.module, wanted.name)
            function = self.functions.get(key)
            if function is None or function.type != wanted.type:
                raise ModuleError(f"the import {wanted} is not offered")
            extern.kind = capi.EXTERN_FUNC
            self._link(key, function, extern)
        self._engine.instances[self._number] = self
        handle = capi.Instance()
        self._begin(deadline_s)
        try:
            error = c.wasmtime_instance_new(
                self._context,
                self._module.handle,
                externs,
                len(externs),
                byref(handle),
                self._trap_at,
            )
            if error or self._trap.value:
                self._failed("instantiation", error)
        finally:
            self._end()
        wanted_exports = {VERSION, MALLOC, FREE, INITIALIZE, START} & info.functions.keys()
        for name in wanted_exports | methods(info):
            self._exports[name] = self._export(handle, name)
        found = capi.Extern()
        c.wasmtime_instance_export_get(
            self._context, byref(handle), MEMORY_EXPORT.encode(), len(MEMORY_EXPORT), byref(found)
        )
        ctypes.memmove(self._memory_at, byref(found.of.memory), ctypes.sizeof(self._memory))

    def _link(self, key: tuple[str, str], function: HostFunction, extern: capi.Extern) -> None:
        c = self._c
        kind = c.func_type(
            [_KINDS[name] for name in function.type.params],
            [_KINDS[name] for name in function.type.results],
        )
        callback = self._engine.callback(key, function.type)
        c.wasmtime_func_new_unchecked(
            self._context, kind, callback, self._number, None, byref(extern.of.func)
        )
        c.wasm_functype_delete(kind)

    def _export(self, handle: capi.Instance, name: str) -> int:
        found, raw = capi.Extern(), name.encode()
        self._c.wasmtime_instance_export_get(
            self._context, byref(handle), c_char_p(raw), c_size_t(len(raw)), byref(found)
        )
        func = capi.Func.from_buffer_copy(found.of.func)
        self._funcs.append(func)
        return ctypes.addressof(func)

    def close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            self._finished = self._finished or GuestFault("closed", "this instance is closed")
            self._engine.instances.pop(self._number, None)
            self._c.wasmtime_store_delete(store)

    @property
    def memory_bytes(self) -> int:
        if self._store is None:
            return 0
        size: int = self._c.wasmtime_memory_data_size(self._context, self._memory_at)
        return size

    def seconds_left(self) -> float:
        return self._until - time.monotonic()

    def read(self, pointer: int, size: int) -> bytes:
        self._within("read", pointer, size)
        return ctypes.string_at(self._base + pointer, size)

    def write(self, pointer: int, data: bytes) -> None:
        self._within("write", pointer, len(data))
        ctypes.memmove(self._base + pointer, data, len(data))

    def _within(self, action: str, pointer: int, size: int) -> None:
        now = self._c.wasmtime_memory_data_size(self._context, self._memory_at)
        if now != self._size:  # it grew, and may have moved
            self._size = now
            self._base = self._c.wasmtime_memory_data(self._context, self._memory_at)
        if pointer + size > now:
            raise self._fault(
                "abi", f"{action} of {size} bytes at {pointer}: the memory has {now} bytes"
            )

    def _has(self, export: str) -> bool:
        return export in self._exports

    def _begin(self, deadline_s: float) -> None:
        now = time.monotonic()
        self._until = now + deadline_s
        self._c.wasmtime_context_set_epoch_deadline(self._context, Ticker.ticks(deadline_s))
        self._engine.ticker.enter(self._number, now)

    def _end(self) -> None:
        self._engine.ticker.leave(self._number)

    def _call(self, export: str, *arguments: int) -> int:
        raw = self._raw
        at = 0
        for argument in arguments:
            raw[at] = argument
            at += 2
        error = self._invoke(self._context, self._exports[export], self._raw_at, 2, self._trap_at)
        if error or self._trap.value:
            self._failed(export, error)
        return raw[0]

    def _failed(self, what: str, error: int | None) -> None:
        raised, self.raised = self.raised, None
        if error:
            message = self._c.error_text(error)
            raise self._fault("trap", f"{what}: {message}")
        trap, self._trap.value = self._trap.value, None
        assert trap is not None
        code, message = self._c.trap(trap)
        if raised is not None:
            raise raised
        if code == capi.TRAP_INTERRUPT:
            raise self._fault("timeout", f"{what}: it took longer than it may")
        raise self._fault("trap", f"{what}: {message}")


def _masks(kind: FuncType) -> tuple[int, ...]:
    return tuple(_U32 if param == "i32" else 0xFFFFFFFFFFFFFFFF for param in kind.params)
