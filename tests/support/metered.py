"""Runs instrumented modules on engines without the agent's adapters, and looks at their fuel."""

import ctypes
import hashlib
from ctypes import byref, c_uint32, c_uint64, c_void_p
from typing import Any, NamedTuple

import pytest

from edge_agent.errors import EngineError
from edge_agent.wasm.engine import FUEL_EXPORT

STACK_BYTES = 4 << 20


class Outcome(NamedTuple):
    """What `run` answered (None: it trapped), the fuel that is left, the memory after it."""

    result: int | None
    fuel: int | None
    memory: str


NONE = Outcome(None, None, "its data or its start function are no good")


class Metered:
    """Wasmtime through its own package: `native` has none of its limits but fuel."""

    def __init__(self) -> None:
        wasmtime: Any = pytest.importorskip("wasmtime", reason="needs wasmtime")
        self._wasmtime = wasmtime
        self._engines = []
        for measured in (False, True):
            config = wasmtime.Config()
            config.consume_fuel = measured
            # The instrumented module is to do this itself.
            config.cranelift_nan_canonicalization = measured
            config.max_wasm_stack = 1 << 20
            self._engines.append(wasmtime.Engine(config))

    def valid(self, wasm: bytes) -> str:
        """Nothing, or what is wrong with it."""
        try:
            self._wasmtime.Module.validate(self._engines[0], wasm)
        except self._wasmtime.WasmtimeError as error:
            return str(error)
        return ""

    def run(self, wasm: bytes, argument: int, fuel: int) -> Outcome:
        """An instrumented module, with so much fuel of its own."""
        return self._run(wasm, argument, fuel, native=False)

    def run_native(self, wasm: bytes, argument: int, fuel: int) -> Outcome:
        """Any module. `fuel` of the outcome is None if Wasmtime's own ran out."""
        return self._run(wasm, argument, fuel, native=True)

    def _run(self, wasm: bytes, argument: int, fuel: int, native: bool) -> Outcome:
        engine = self._engines[native]
        store = self._wasmtime.Store(engine)
        if native:
            store.set_fuel(fuel)
        module = self._wasmtime.Module(engine, wasm)
        try:
            instance = self._wasmtime.Instance(store, module, [])
        except self._wasmtime.Trap:
            return NONE
        exports = instance.exports(store)
        if not native:
            exports[FUEL_EXPORT].set_value(store, fuel)
        result, left = None, 0
        try:
            result = exports["run"](store, argument) & (1 << 64) - 1
        except (self._wasmtime.Trap, self._wasmtime.WasmtimeError) as error:
            if "fuel" in str(error):
                left = -1
        if not native:
            left = exports[FUEL_EXPORT].value(store)
        memory = bytes(exports["memory"].read(store))
        return Outcome(result, None if native and left < 0 else left, digest(memory))


class Wasm3Metered:
    """wasm3 through the declarations of the agent's adapter."""

    def __init__(self) -> None:
        try:
            from edge_agent.wasm.engines import wasm3_capi as capi

            self._library = capi.Library()
        except EngineError as error:
            pytest.skip(f"needs wasm3: {error}")
        self._capi = capi

    def run(self, wasm: bytes, argument: int, fuel: int) -> Outcome:
        c = self._library
        environment = c.m3_NewEnvironment()
        runtime = c.m3_NewRuntime(environment, STACK_BYTES, None)
        try:
            module, function = c_void_p(), c_void_p()
            self._good(c.m3_ParseModule(environment, byref(module), wasm, len(wasm)))
            if c.m3_LoadModule(runtime, module):
                c.m3_FreeModule(module)
                return NONE
            if c.m3_RunStart(module):
                return NONE
            self._good(c.m3_FindFunction(byref(function), runtime, b"run"))
            level = c.m3_FindGlobal(module, FUEL_EXPORT.encode())
            value = self._capi.TaggedValue(self._capi.TYPE_I64, fuel)
            self._good(c.m3_SetGlobal(level, byref(value)))
            raw = c_uint64(argument & 0xFFFFFFFF)
            trapped = c.m3_Call(function, 1, (c_void_p * 1)(ctypes.addressof(raw)))
            stack = c_void_p.from_address(runtime + c.stack_at).value or 0
            result = None if trapped else c_uint64.from_address(stack).value
            size = c_uint32()
            memory = ctypes.string_at(c.m3_GetMemory(runtime, byref(size), 0), size.value)
            # Its first field is where imports are named, the value stands behind two pointers.
            left = ctypes.c_int64.from_address(level + 2 * ctypes.sizeof(c_void_p)).value
            return Outcome(result, left, digest(memory))
        finally:
            if c.clear_backtrace is not None:
                c.clear_backtrace(runtime)
            c.m3_FreeRuntime(runtime)
            c.m3_FreeEnvironment(environment)

    def _good(self, result: int | None) -> None:
        assert not result, self._library.reason(result or 0)


def digest(memory: bytes) -> str:
    return f"{len(memory)} bytes, {hashlib.sha256(memory).hexdigest()}"
