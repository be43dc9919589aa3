"""An instance on Wasmtime: epochs to look at the clock, a store limiter, unchecked calls.

Calls go through `wasmtime_func_call_unchecked`, which trusts its caller with the types:
every export was compared with the module's own words, and those with the ABI.
"""

import ctypes
import time
from ctypes import byref, c_size_t, c_uint64, c_void_p
from typing import TYPE_CHECKING, NoReturn

from edge_agent.errors import EngineError, GuestFault
from edge_agent.wasm.abi import AbiInstance, called, offered
from edge_agent.wasm.engine import (
    FUEL_EXPORT,
    MEMORY_EXPORT,
    Bounds,
    HostFunction,
    HostFunctions,
)
from edge_agent.wasm.engines import wasmtime_capi as capi

if TYPE_CHECKING:
    from edge_agent.wasm.engines.wasmtime import WasmtimeModule

_KINDS = {
    "i32": capi.KIND_I32,
    "i64": capi.KIND_I64,
    "f32": capi.KIND_F32,
    "f64": capi.KIND_F64,
}
_MAX_TABLE_ELEMENTS = 100_000  # as many as functions; 8 bytes each
_MAX_TABLES = 4


class WasmtimeInstance(AbiInstance):
    """A store with one instance; the buffers of a call are made once."""

    def __init__(self, module: "WasmtimeModule", bounds: Bounds, functions: HostFunctions) -> None:
        super().__init__(bounds)
        self.functions = functions
        self.raised: tuple[tuple[str, str], BaseException] | None = None
        self._module = module
        self._engine = engine = module.engine
        self._c = c = engine.library
        self._number = next(engine.numbers)
        self._invoke = c.wasmtime_func_call_unchecked
        self._set_deadline = c.wasmtime_context_set_epoch_deadline
        self._until = self._limit_s = 0.0
        self._late = False
        store = c.wasmtime_store_new(module.native, None, None)
        c.wasmtime_store_limiter(store, bounds.memory_bytes, _MAX_TABLE_ELEMENTS, 1, _MAX_TABLES, 1)
        c.wasmtime_store_epoch_deadline_callback(store, engine.on_tick, self._number, None)
        self._store: int | None = store
        self._context = c_void_p(c.wasmtime_store_context(store))
        self._raw = (c_uint64 * 4)()  # two values of 16 bytes: arguments in, result out
        self._trap = c_void_p()
        # What a call passes to C, by export: made once, so that nothing is converted.
        self._exports: dict[str, tuple[object, ...]] = {}
        self._memory = capi.Memory()
        self._fuel = capi.Global()
        self._fuel_value = capi.Value(capi.KIND_I64)
        self._bytes = memoryview(b"")  # the guest's memory, as large as when last looked at
        self._size = 0
        # Growth within the reservation leaves a memory where it is, and none shrinks.
        self._moves = bounds.memory_bytes > engine.reservation_bytes

    def _instantiate(self) -> None:
        """Link the imports, instantiate, look the exports up."""
        c, info = self._c, self._module.info
        wanted = called(info)
        functions = offered(info, self.functions, self._bounds)
        externs = (capi.Extern * len(functions))()
        for extern, needed, function in zip(externs, info.imports, functions, strict=True):
            extern.kind = capi.EXTERN_FUNC
            self._link((needed.module, needed.name), function, extern)
        self._engine.instances[self._number] = self
        handle = capi.Instance()
        error = c.wasmtime_instance_new(
            self._context,
            self._module.handle,
            externs,
            len(externs),
            byref(handle),
            byref(self._trap),
        )
        if error or self._trap:
            self._failed("instantiation", error)
        for name in wanted:
            func = self._export(handle, name).of.func
            self._exports[name] = (
                self._context,
                byref(func),  # a reference: it keeps what it points to
                byref(self._raw),
                c_size_t(len(self._raw) // 2),
                byref(self._trap),
            )
        self._memory = self._export(handle, MEMORY_EXPORT).of.memory
        if self._bounds.fuel is not None:
            fuel = self._export(handle, FUEL_EXPORT)
            if fuel.kind != capi.EXTERN_GLOBAL:
                raise EngineError("it has a limit of fuel, and was compiled without counting it")
            self._fuel = fuel.of.global_

    def _set_fuel(self, fuel: int) -> None:
        self._fuel_value.i64 = fuel
        self._c.wasmtime_global_set(self._context, byref(self._fuel), byref(self._fuel_value))

    def _fuel_left(self) -> int:
        if self._fuel.store_id == 0:  # it did not get as far
            return 0
        self._c.wasmtime_global_get(self._context, byref(self._fuel), byref(self._fuel_value))
        left: int = self._fuel_value.i64
        return left

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

    def _export(self, handle: capi.Instance, name: str) -> capi.Extern:
        """A function of no name, if there is none."""
        found, raw = capi.Extern(), name.encode()
        self._c.wasmtime_instance_export_get(
            self._context, byref(handle), raw, len(raw), byref(found)
        )
        return found

    def close(self) -> None:
        store, self._store = self._store, None
        if store is None:
            return
        if self._engine.ticker.within(self._number):
            self._store = store
            raise RuntimeError("an instance was closed during a call of it")
        self._finished = self._finished or GuestFault("closed", "this instance is closed")
        self._bytes, self._size, self._moves = memoryview(b""), 0, False
        self._engine.instances.pop(self._number, None)
        self._c.wasmtime_store_delete(store)

    @property
    def memory_bytes(self) -> int:
        if self._store is None or not self._memory.store_id:  # the library would abort
            return 0
        size: int = self._c.wasmtime_memory_data_size(self._context, byref(self._memory))
        return size

    def seconds_left(self) -> float:
        return self._until - time.monotonic()

    def is_late(self) -> bool:
        """Whether the deadline has passed; the engine's callbacks ask, and end the guest then."""
        self._late = time.monotonic() >= self._until
        return self._late

    def read(self, pointer: int, size: int) -> bytes:
        end = pointer + size
        if end > self._size or self._moves:
            self._look("read", pointer, size)
        return self._bytes[pointer:end].tobytes()

    def write(self, pointer: int, data: bytes) -> None:
        end = pointer + len(data)
        if end > self._size or self._moves:
            self._look("write", pointer, len(data))
        self._bytes[pointer:end] = data

    def _look(self, action: str, pointer: int, size: int) -> None:
        """Look at the memory again: it may have grown, or moved. GuestFault: not within."""
        now = self.memory_bytes
        if now:
            at = self._c.wasmtime_memory_data(self._context, byref(self._memory))
            self._bytes = memoryview((ctypes.c_ubyte * now).from_address(at)).cast("B")
            self._size = now
        if pointer + size > now:
            raise self._outside(action, pointer, size, now)

    def _has(self, export: str) -> bool:
        return export in self._exports

    def _begin(self, deadline_s: float) -> None:
        now = time.monotonic()
        self._limit_s, self._until, self._late = deadline_s, now + deadline_s, False
        self._set_deadline(self._context, 1)  # the next tick, whatever the time
        self._engine.ticker.enter(self._number, now, self._until)

    def _end(self) -> None:
        self._engine.ticker.leave(self._number)

    def _call(self, export: str, first: int = 0, second: int = 0) -> int:
        raw = self._raw
        raw[0], raw[2] = first, second
        error = self._invoke(*self._exports[export])
        if error or self._trap:
            self._failed(export, error)
        return raw[0]

    def _failed(self, what: str, error: int | None) -> NoReturn:
        """Raise what ended a call: `error`, or the trap. Either may stand for `raised`."""
        raised, self.raised = self.raised, None
        trap, self._trap.value = self._trap.value, None
        frames = self._c.frames(error, trap)
        message = self._c.error(error) if error else self._c.trap(trap)
        if raised is not None:
            (module, name), exception = raised
            raise self._unwound(what, f"{module}.{name}", exception)
        late = self._late
        fault = self._timed_out(what, self._limit_s) if late else self._trapped(what, message)
        fault.frames = frames
        raise fault
