"""The engine port on Wasmtime: the native engine, compiling, loading, host calls.

Settings and their cost: docs/adr/0006-wasmtime-settings.md.
"""

import ctypes
import itertools
import os
import resource
import threading
import time
from collections.abc import Callable, Iterable
from ctypes import byref, c_void_p
from pathlib import Path
from typing import Any

from edge_agent import process
from edge_agent.errors import EngineError, ModuleError
from edge_agent.wasm.engine import Bounds, HostFunctions
from edge_agent.wasm.engine_selection import enable_faulthandler_first
from edge_agent.wasm.engines import wasmtime_capi as capi
from edge_agent.wasm.engines.wasmtime_instance import WasmtimeInstance
from edge_agent.wasm.module import FuncType, ModuleInfo

TICK_S = 0.025  # at most between two ticks: a call with an earlier deadline may have begun
_SHORTEST_S = 0.001  # a thread sleeps no less than some tenths of that
_LINGER_S = 0.25  # after the last call, so that a burst of calls starts it once
_STACK_BYTES = 128 << 10  # it calls one C function; a default stack reserves 8 MB


def until_next_tick(now: float, deadlines: Iterable[float]) -> float:
    """Seconds to the next tick: at the first deadline that is ahead, at most TICK_S away."""
    return max(_SHORTEST_S, min((TICK_S, *(due - now for due in deadlines if due > now))))


class Ticker:
    """One daemon thread that calls `tick` again and again while anybody is within `enter`."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick = tick
        # Until when, by who; changed by single operations, atomic under the GIL.
        self._running: dict[int, float] = {}
        self._last = 0.0
        self._idle = True
        self._wanted = threading.Semaphore(0)
        # Here and not at the first call, which has other things to do.
        process.start(self._run, name="ticker", stack_bytes=_STACK_BYTES)

    def enter(self, who: int, now: float, until: float) -> None:
        """`who` begins a call at `now` (monotonic), which is to end at `until`."""
        self._running[who] = until
        self._last = now
        if self._idle:
            self._idle = False
            self._wanted.release()

    def leave(self, who: int) -> None:
        """The call is over."""
        self._running.pop(who, None)

    def within(self, who: int) -> bool:
        """Whether `who` is in a call."""
        return who in self._running

    def _run(self) -> None:
        while True:
            self._wanted.acquire()
            while self._running or time.monotonic() - self._last < _LINGER_S:
                deadlines = list(self._running.values())
                time.sleep(until_next_tick(time.monotonic(), deadlines))
                self._tick()
            self._idle = True
            if self._running:  # began between the last look and the line above
                self._idle = False
                self._wanted.release()


_U32, _U64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF
# What a memory reserves, in bytes of addresses: where there are plenty, all that a
# 32-bit pointer can reach and the largest offset that is common, so that the code needs no
# checks; else twice the default limit of a plugin, and the code checks.
_WIDE = (4 << 30, 32 << 20)
_NARROW = (64 << 20, 64 << 10)
_HOST_STACK_BYTES = 256 << 10  # beside a guest's, for Python and the host functions
_PLENTY_BITS = 39  # a hundred wide memories; the least that a 64-bit Linux commonly has


class WasmtimeEngine:
    """The library, with one native engine for each size of stack.

    `wide`: whether memories reserve 4 GiB of addresses each; None: where there are plenty.
    """

    name = "wasmtime"
    version = capi.VERSION

    def __init__(self, wide: bool | None = None) -> None:
        self.library = capi.Library()
        self.ticker = Ticker(self.tick)
        self.instances: dict[int, WasmtimeInstance] = {}  # by the number their callbacks carry
        self.numbers = itertools.count(1)
        wide = self._addresses_are_plenty() if wide is None else wide
        self.reservation_bytes, self._guard_bytes = _WIDE if wide else _NARROW
        self._natives: dict[int, int] = {}
        self._lock = threading.Lock()  # of _natives: one that is lost would not be ticked
        self._callbacks: dict[tuple[tuple[str, str], FuncType], Any] = {}
        self.on_tick = capi.DEADLINE_CALLBACK(self._ticked)

    def settings(self) -> str:
        return (
            f"epoch,nan-canonical,reserve={self.reservation_bytes},guard={self._guard_bytes},"
            f"without {' '.join(capi.PROPOSALS_OFF)}"
        )

    def compile(self, wasm: bytes) -> bytes:
        c = self.library
        module, artifact = c_void_p(), capi.ByteVec()
        # No artifact depends on the size of the stack.
        error = c.wasmtime_module_new(self._native(512 << 10), wasm, len(wasm), byref(module))
        if error:
            raise ModuleError(f"not valid Wasm: {c.error(error)}")
        error = c.wasmtime_module_serialize(module, byref(artifact))
        c.wasmtime_module_delete(module)
        if error:
            raise EngineError(f"wasmtime cannot serialize the module: {c.error(error)}")
        return artifact.take(c.wasm_byte_vec_delete)

    def load(self, artifact: Path, info: ModuleInfo, stack_bytes: int) -> "WasmtimeModule":
        c, module, native = self.library, c_void_p(), self._native(stack_bytes)
        error = c.wasmtime_module_deserialize_file(native, os.fsencode(artifact), byref(module))
        if error:
            reason = c.error(error)
            raise EngineError(f"{artifact} is no artifact of {self.name} {self.version}: {reason}")
        # Instances trust `info` with the types of what they call: integers only.
        expected = {
            name: (kind.params, kind.results)
            for name, kind in info.functions.items()
            if {*kind.params, *kind.results} <= {"i32", "i64"}
        }
        if c.exported_functions(module, expected.keys()) != expected:
            c.wasmtime_module_delete(module)
            raise EngineError(f"{artifact} was made of another module")
        return WasmtimeModule(self, native, module, info, stack_bytes)

    def callback(self, key: tuple[str, str], kind: FuncType) -> Any:
        """The C function behind one import, shared by all instances."""
        found = self._callbacks.get((key, kind))
        if found is None:
            found = self._callbacks[key, kind] = capi.HOST_CALLBACK(self._host_call(key, kind))
        return found

    def _host_call(
        self, key: tuple[str, str], kind: FuncType
    ) -> Callable[[int, int, Any, int], int | None]:
        # Values are 16 bytes apart; of an i32 only the lower half is said to be anything.
        places = [(2 * at, _U32 if one == "i32" else _U64) for at, one in enumerate(kind.params)]
        instances, new_trap = self.instances, self.library.wasmtime_trap_new

        def call(number: int, _caller: int, raw: Any, _count: int) -> int | None:
            instance = instances[number]
            try:
                if instance.is_late():
                    late: int = new_trap(b"time", 4)
                    return late
                instance.admit()
                arguments = [raw[at] & mask for at, mask in places]
                result = instance.functions[key].call(instance, *arguments)
                if result is not None:
                    raw[0] = result
                return None
            except BaseException as error:
                # Nothing may unwind through the engine's frames: it travels as a trap.
                instance.raised = (key, error)
                trap: int = new_trap(b"host", 4)
                return trap

        return call

    def _native(self, stack_bytes: int) -> int:
        """The native engine for a size of stack; engines are never given back."""
        with self._lock:
            engine = self._natives.get(stack_bytes)
            if engine is None:
                enable_faulthandler_first()
                engine = self._natives[stack_bytes] = self._new_native(stack_bytes)
            return engine

    def _new_native(self, stack_bytes: int) -> int:
        c = self.library
        config = c.wasm_config_new()
        c.wasmtime_config_epoch_interruption_set(config, True)
        c.wasmtime_config_cranelift_nan_canonicalization_set(config, True)
        c.wasmtime_config_parallel_compilation_set(config, False)  # leave a core to the board
        c.wasmtime_config_max_wasm_stack_set(config, stack_bytes)
        # Not used; but where it is smaller than the other, Wasmtime aborts the process.
        c.wasmtime_config_async_stack_size_set(config, stack_bytes + _HOST_STACK_BYTES)
        c.wasmtime_config_memory_reservation_set(config, self.reservation_bytes)
        c.wasmtime_config_memory_guard_size_set(config, self._guard_bytes)
        c.wasmtime_config_memory_reservation_for_growth_set(config, 0)
        for proposal in capi.PROPOSALS_OFF:
            getattr(c, f"wasmtime_config_wasm_{proposal}_set")(config, False)
        return int(c.wasm_engine_new_with_config(config))

    def _addresses_are_plenty(self) -> bool:
        if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
            return False
        # Libraries lie near the end of what a process can address.
        at = ctypes.cast(self.library.wasm_config_new, c_void_p).value or 0
        return at.bit_length() >= _PLENTY_BITS

    def _ticked(self, _context: int, number: int, ticks: Any, action: Any) -> int | None:
        """A guest saw that a tick has come: it ends if its time is up, else goes on."""
        if self.instances[number].is_late():
            error: int = self.library.wasmtime_error_new(b"time")
            return error
        ticks[0], action[0] = 1, capi.DEADLINE_CONTINUE
        return None

    def tick(self) -> None:
        for native in list(self._natives.values()):
            self.library.wasmtime_engine_increment_epoch(native)


class WasmtimeModule:
    """A mapped artifact."""

    def __init__(
        self,
        engine: WasmtimeEngine,
        native: int,
        module: c_void_p,
        info: ModuleInfo,
        stack_bytes: int,
    ) -> None:
        self.engine = engine
        self.native = native
        self.info = info
        self._stack_bytes = stack_bytes
        self._module: c_void_p | None = module

    @property
    def handle(self) -> c_void_p:
        if self._module is None:
            raise EngineError("this module is closed")
        return self._module

    def instantiate(
        self, bounds: Bounds, functions: HostFunctions, deadline_s: float
    ) -> WasmtimeInstance:
        _check_stack(self._stack_bytes)
        return WasmtimeInstance(self, bounds, functions).started(deadline_s)

    def close(self) -> None:
        module, self._module = self._module, None
        if module is not None:
            self.engine.library.wasmtime_module_delete(module)


def _check_stack(stack_bytes: int) -> None:
    """EngineError: a guest that used all of its stack would crash this process."""
    limit = resource.getrlimit(resource.RLIMIT_STACK)[0]
    if limit != resource.RLIM_INFINITY and stack_bytes + _HOST_STACK_BYTES > limit:
        raise EngineError(
            f"a guest's stack of {stack_bytes} bytes does not fit this process's of {limit}: "
            "raise that (ulimit -s, LimitSTACK=) or lower the plugin's `stack`"
        )
