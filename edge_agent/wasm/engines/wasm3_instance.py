"""An instance on wasm3: a runtime of its own, fuel as the means to stop it.

Without a limit the fuel never runs out by itself. When a call's time is up another thread
takes it away, and the guest traps at the next function or loop.
"""

import ctypes
import threading
import time
from ctypes import byref, c_uint32, c_uint64, c_void_p
from math import inf
from typing import TYPE_CHECKING, Any, NoReturn

from edge_agent.errors import GuestFault, ModuleError
from edge_agent.wasm.abi import FREE, INITIALIZE, MALLOC, START, VERSION, AbiInstance, methods
from edge_agent.wasm.engine import FUEL_EXPORT, Bounds, HostFunctions
from edge_agent.wasm.engines import wasm3_capi as capi
from edge_agent.wasm.module import PAGE_BYTES, FuncType

if TYPE_CHECKING:
    from edge_agent.wasm.engines.wasm3 import Wasm3Module

_MAX_MESSAGE_CHARS = 500  # of the library's own, which quote names out of the module
# Of the stack, that no guest's frame begins in: the arguments of a host function are
# written without a look at where it ends.
_RED_ZONE_BYTES = 16 << 10
_FULL = (1 << 63) - 1
# A guest that lowers its fuel at the same moment may write over what the clock wrote: each
# time with less than even odds.
_WRITES = 16


class Wasm3Instance(AbiInstance):
    """A runtime with one module; the buffers of a call are made once."""

    def __init__(self, module: "Wasm3Module", bounds: Bounds, functions: HostFunctions) -> None:
        super().__init__(bounds)
        self.functions = functions
        self.raised: tuple[tuple[str, str], BaseException] | None = None
        self.host_stack: Any = None  # where the stack ends, while a host function is called
        self._module: Wasm3Module | None = module
        self._engine = engine = module.engine
        self._c = c = engine.library
        self._number = next(engine.numbers)
        self._invoke = c.m3_Call
        self._began = self._limit_s = 0.0
        self._lock = threading.Lock()  # of the three below; held for a few instructions
        self._due = inf
        self._stopped = False
        self._fuel: int | None = None  # where it is
        self._value = capi.TaggedValue(capi.TYPE_I64, 0)
        self._environment = c.m3_NewEnvironment()
        stack_bytes = module.stack_bytes
        runtime: int = c.m3_NewRuntime(self._environment, stack_bytes + _RED_ZONE_BYTES, None)
        self._runtime: int | None = runtime
        self._stack: int = c_void_p.from_address(runtime + c.stack_at).value or 0
        self._slots = stack_bytes // c.slot_bytes
        # From which wasm3 computes the end of the stack whenever the memory grows.
        self._slots_field = c_uint32.from_address(runtime + c.slots_at)
        self._slots_field.value = self._slots
        self._result = c_uint64.from_address(self._stack)
        self._raw = (c_uint64 * 2)()
        self._arguments = (c_void_p * 2)(
            ctypes.addressof(self._raw), ctypes.addressof(self._raw) + 8
        )
        self._exports: dict[str, tuple[int, int, int]] = {}  # function, arguments, result's mask
        self._size = c_uint32()
        self._held: object = None  # what the code is read from

    def _instantiate(self) -> None:
        """Load the module, link the imports, run the start function, look the exports up."""
        c, module = self._c, self._module
        assert module is not None
        info = module.info
        if info.memory_bytes > self._bounds.memory_bytes:
            raise ModuleError(
                f"the module begins with {info.memory_bytes} bytes of memory; "
                f"its limit is {self._bounds.memory_bytes}"
            )
        declared = info.memory_max_bytes
        limit = self._bounds.memory_bytes if declared is None else declared
        if min(limit, self._bounds.memory_bytes) < PAGE_BYTES:
            raise ModuleError("a memory that is less than a page cannot be limited on wasm3")
        wanted = {VERSION, MALLOC, FREE, INITIALIZE, START} & info.functions.keys() | methods(info)
        for needed in info.imports:
            function = self.functions.get((needed.module, needed.name))
            if function is None or function.type != needed.type:
                raise ModuleError(f"the import {needed} is not offered")
        parsed, self._held = module.parse(self._environment, self._bounds.memory_bytes)
        result = c.m3_LoadModule(self._runtime, parsed)
        if result:
            c.m3_FreeModule(parsed)
            self._failed("instantiation", result)
        for needed in info.imports:
            key = (needed.module, needed.name)
            callback = self._engine.callback(key, self.functions[key].type)
            names = needed.module.encode(), needed.name.encode()
            result = c.m3_LinkRawFunctionEx(parsed, *names, None, callback, self._number)
            if result:
                self._failed("instantiation", result)
        with self._lock:
            self._fuel = c.m3_FindGlobal(parsed, FUEL_EXPORT.encode())
            self._write_fuel(-1 if self._stopped else _FULL)
        self._engine.instances[self._number] = self
        result = c.m3_RunStart(parsed)
        if result:
            self._failed("instantiation", result)
        for name in wanted:
            found = c_void_p()
            result = c.m3_FindFunction(byref(found), self._runtime, name.encode())
            if result:
                self._failed(name, result)
            kind = info.functions[name]
            self._exports[name] = (found.value or 0, len(kind.params), _mask(kind))

    def close(self) -> None:
        runtime = self._runtime
        if runtime is None:
            return
        if self._engine.ticker.within(self._number):
            raise RuntimeError("an instance was closed during a call of it")
        with self._lock:
            self._runtime = self._fuel = None
        self._finished = self._finished or GuestFault("closed", "this instance is closed")
        self._engine.instances.pop(self._number, None)
        if self._c.clear_backtrace is not None:
            self._c.clear_backtrace(runtime)
        self._c.m3_FreeRuntime(runtime)
        self._c.m3_FreeEnvironment(self._environment)
        self._module = self._held = None

    @property
    def memory_bytes(self) -> int:
        if self._runtime is None or self._fuel is None:
            return 0
        self._c.m3_GetMemory(self._runtime, byref(self._size), 0)
        return self._size.value

    def seconds_left(self) -> float:
        return self._began + self._limit_s - time.monotonic()

    def read(self, pointer: int, size: int) -> bytes:
        return ctypes.string_at(self._place("read", pointer, size), size)

    def write(self, pointer: int, data: bytes) -> None:
        ctypes.memmove(self._place("write", pointer, len(data)), data, len(data))

    def _place(self, action: str, pointer: int, size: int) -> int:
        """Where it is now: any call may have moved the memory. GuestFault: not within."""
        start: int = self._c.m3_GetMemory(self._runtime, byref(self._size), 0) if self._fuel else 0
        held = self._size.value if self._fuel else 0
        if pointer + size > held:
            raise self._outside(action, pointer, size, held)
        return start + pointer

    def _has(self, export: str) -> bool:
        return export in self._exports

    def _begin(self, deadline_s: float) -> None:
        self._began = now = time.monotonic()
        self._limit_s = deadline_s
        with self._lock:
            self._due = now + deadline_s
            if self._stopped:  # too late: the call before had just ended
                self._stopped = False
                self._write_fuel(_FULL)
        self._engine.ticker.enter(self._number, now, now + deadline_s)

    def _end(self) -> None:
        self._due = inf
        self._engine.ticker.leave(self._number)

    def tick(self, now: float) -> None:
        """Take the fuel away if the time is up. From the thread of the clock."""
        if now < self._due:
            return
        with self._lock:
            if now >= self._due:
                self._stopped = True
                for _ in range(_WRITES):
                    self._write_fuel(-1)

    def _set_fuel(self, fuel: int) -> None:
        with self._lock:  # the clock comes again if this was right after it
            self._write_fuel(fuel)

    def _fuel_left(self) -> int:
        with self._lock:
            if self._fuel is None:  # it did not get as far
                return 0
            self._c.m3_GetGlobal(self._fuel, byref(self._value))
            left: int = self._value.value
            return left

    def _write_fuel(self, value: int) -> None:
        if self._fuel is not None:
            self._value.value = value
            self._c.m3_SetGlobal(self._fuel, byref(self._value))

    def _call(self, export: str, first: int = 0, second: int = 0) -> int:
        function, count, mask = self._exports[export]
        self._raw[0], self._raw[1] = first, second
        if self.host_stack is not None:
            return self._call_within(export, function, count) & mask
        result = self._invoke(function, count, self._arguments)
        if result:
            self._failed(export, result)
        return self._result.value & mask

    def _call_within(self, export: str, function: int, count: int) -> int:
        """A call out of a host function: the stack goes on where that was called."""
        top = ctypes.addressof(self.host_stack.contents)
        before = self._slots_field.value
        # wasm3 takes the place of this call for the beginning of the stack.
        self._slots_field.value = max(0, self._slots - (top - self._stack) // self._c.slot_bytes)
        try:
            result = self._invoke(function, count, self._arguments)
        finally:
            self._slots_field.value = before
        if result:
            self._failed(export, result)
        value: int = self.host_stack[0]
        return value

    def _failed(self, what: str, result: int) -> NoReturn:
        """Raise what ended a call."""
        raised, self.raised = self.raised, None
        reason = self._c.reason(result, self._runtime)[:_MAX_MESSAGE_CHARS]
        if raised is not None:
            (module, name), exception = raised
            raise self._unwound(what, f"{module}.{name}", exception)
        if self._stopped:
            raise self._timed_out(what, self._limit_s)
        raise self._trapped(what, reason)


def _mask(kind: FuncType) -> int:
    return {(): 0, ("i32",): 0xFFFFFFFF}.get(kind.results, 0xFFFFFFFFFFFFFFFF)
