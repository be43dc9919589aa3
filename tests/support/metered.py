"""Runs metered modules on Wasmtime's own package, without the agent's adapter."""

import hashlib
from typing import Any, NamedTuple

import pytest

from edge_agent.wasm.engine import FUEL_EXPORT


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
            config.cranelift_nan_canonicalization = True
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
        """A metered module, with so much fuel of its own."""
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


def digest(memory: bytes) -> str:
    return f"{len(memory)} bytes, {hashlib.sha256(memory).hexdigest()}"
