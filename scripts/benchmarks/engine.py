"""One call of a guest without socket and session: what the engine adds to its own work.

The guest's own work is measured by a driver in Wasm (driver.wat) that serves the same
compiled code in the same way (malloc, copy the request, run, free), many times within
one crossing of the boundary; its env.log returns at once and its WASI is the engine's.
What is left of a call through the agent's adapter is the price of crossing: malloc,
export and two frees, reading, writing, deadlines, and the host functions in Python. On
Wasmtime, which has a driver's multiple memories.

Both are taken over small batches, of which the fastest tenth counts: a guest collects its
garbage in few of them (Go: every 200 calls or so, a millisecond), and other work of the
machine is in few of them too.
"""

import ctypes
import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_agent.wasm import abi
from edge_agent.wasm.engine import Bounds
from edge_agent.wasm.engine_selection import select_engine
from edge_agent.wasm.guestlog import GuestLog
from edge_agent.wasm.imports import HostServices, PluginState
from edge_agent.wasm.module import inspect
from scripts.benchmarks import guests
from scripts.benchmarks.figures import Aim, percentile

EMPTY, C = "empty plugin", "C plugin"
EXPORT = "plugin_create_container"
BATCH = 20
FASTEST = 10  # percent of the batches
WARMUP = 500
_DRIVER = Path(__file__).with_name("driver.wat")
_NO_LOG = '(module (func (export "log") (param i32 i32) (result i64) (i64.const 0)))'
_AIM_US = 15.0


def measure(folder: Path, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """For each guest: the call's median and p99, its own work, what comes on top."""
    batches = 100 if quick else 1000
    request = guests.request()
    found = {}
    for name, module in (
        (EMPTY, guests.empty_plugin()),
        (C, guests.c_plugin()),
        ("Go Wasm plugin", guests.go_plugin()),
    ):
        say(f"calling: {name}")
        with agents_instance(folder, module) as call, _driven(module, request) as drive:
            for _ in range(WARMUP):
                call(request)
            drive(WARMUP)
            times: list[int] = []
            means: list[float] = []
            own: list[float] = []
            for _ in range(batches):  # interleaved, as everything here
                batch = [_timed(call, request) for _ in range(BATCH)]
                times += batch
                means.append(sum(batch) / BATCH)
                own.append(drive(BATCH) / BATCH)
        pairs = sorted((mean - alone) / 1e3 for mean, alone in zip(means, own, strict=True))
        own_us = max(0.0, percentile(sorted(own), FASTEST) / 1e3)
        found[name] = {
            "call_us": statistics.median(times) / 1e3,
            "call_p99_us": percentile(sorted(times), 99) / 1e3,
            "own_us": own_us,
            "on_top_us": percentile(sorted(means), FASTEST) / 1e3 - own_us,
            "on_top_low_us": percentile(pairs, 25),
            "on_top_high_us": percentile(pairs, 75),
            "calls": len(times),
        }
    return {"contestants": found}


def aims(result: dict[str, Any]) -> list[Aim]:
    """The crossing, of guests whose own work does not vary by more than that."""
    found = result["contestants"]
    return [
        Aim(f"engine call, {name}, on top", found[name]["on_top_us"], _AIM_US, "us")
        for name in (EMPTY, C)
    ]


def _timed(call: Callable[[bytes], bytes], request: bytes) -> int:
    began = time.perf_counter_ns()
    call(request)
    return time.perf_counter_ns() - began


@contextmanager
def agents_instance(folder: Path, wasm: bytes) -> Any:
    """The guest as the agent runs it; every line of its log comes up to where it is queued."""
    engine, _ = select_engine("wasmtime")  # as in the driver: the same code on both sides
    info = inspect(wasm)
    artifact = folder / "engine.artifact"
    artifact.write_bytes(engine.compile(wasm))
    log = GuestLog(lambda _level, _line: None, 1_000_000, 4096)
    module = engine.load(artifact, info, 512 << 10)
    try:
        instance = module.instantiate(
            Bounds(32 << 20, 4 << 20), HostServices(log, PluginState()).functions(), 5.0
        )
        try:
            if "plugin_configure" in abi.methods(info):
                instance.call("plugin_configure", b"", 1.0)
            yield lambda request: instance.call(EXPORT, request, 1.0)
        finally:
            instance.close()
    finally:
        module.close()


@contextmanager
def _driven(wasm: bytes, request: bytes) -> Any:
    """`drive(times)` -> ns: the same code under the driver, with the engine's settings."""
    import wasmtime

    config = wasmtime.Config()
    config.epoch_interruption = True
    config.cranelift_nan_canonicalization = True
    config.memory_reservation = 64 << 20
    config.memory_guard_size = 64 << 10
    config.memory_reservation_for_growth = 0
    config.wasm_multi_memory = True  # for the driver; a guest's code stays the same
    engine = wasmtime.Engine(config)
    store = wasmtime.Store(engine)
    store.set_epoch_deadline(1 << 40)
    store.set_wasi(wasmtime.WasiConfig())
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    quiet = linker.instantiate(store, wasmtime.Module(engine, bytes(wasmtime.wat2wasm(_NO_LOG))))
    linker.define_instance(store, "env", quiet)
    guest = linker.instantiate(store, wasmtime.Module(engine, wasm))
    exports = guest.exports(store)
    for name in ("_initialize", "plugin_configure"):
        function = exports.get(name)
        if isinstance(function, wasmtime.Func):
            function(store, *((0, 0) if name == "plugin_configure" else ()))
    linker.define_instance(store, "guest", guest)
    driver = linker.instantiate(
        store, wasmtime.Module(engine, bytes(wasmtime.wat2wasm(_DRIVER.read_text())))
    ).exports(store)
    memory, run, nothing = driver["memory"], driver["run"], driver["nothing"]
    assert isinstance(memory, wasmtime.Memory)
    assert isinstance(run, wasmtime.Func)
    assert isinstance(nothing, wasmtime.Func)
    ctypes.memmove(memory.data_ptr(store), request, len(request))

    def timed(function: Callable[..., Any], times: int) -> int:
        began = time.perf_counter_ns()
        function(store, len(request), times)
        return time.perf_counter_ns() - began

    crossing = statistics.median(timed(nothing, 0) for _ in range(WARMUP))
    try:
        yield lambda times: timed(run, times) - crossing
    finally:
        store.close()
        engine.close()
