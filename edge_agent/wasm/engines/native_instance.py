"""Modules and instances on Wasmer or wasmi: the library runs them, and tells how a call ended."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edge_agent.errors import EngineError, GuestFault
from edge_agent.wasm.abi import MAX_ERROR_TEXT_BYTES, AbiInstance, called, offered
from edge_agent.wasm.engine import FUEL_EXPORT, Bounds, HostFunctions
from edge_agent.wasm.module import ModuleInfo

if TYPE_CHECKING:
    from edge_agent.wasm.engines.native import NativeEngine

_MAX_MESSAGE_CHARS = 500  # of the engine's own, which may quote names out of the module


class NativeModule:
    """A loaded artifact."""

    def __init__(self, engine: "NativeEngine", native: Any, info: ModuleInfo) -> None:
        self.engine = engine
        self.info = info
        self._native: Any = native

    @property
    def native(self) -> Any:
        if self._native is None:
            raise EngineError("this module is closed")
        return self._native

    def instantiate(
        self, bounds: Bounds, functions: HostFunctions, deadline_s: float
    ) -> "NativeInstance":
        return NativeInstance(self, bounds, functions).started(deadline_s)

    def close(self) -> None:
        self._native = None  # instances keep the code as long as they need it


def _admitted(call: Callable[..., int | None]) -> Callable[..., int | None]:
    """A host function whose calls are counted; the binding looks at the time itself."""

    def counted(guest: "NativeInstance", *arguments: int) -> int | None:
        guest.admit()
        return call(guest, *arguments)

    return counted


class NativeInstance(AbiInstance):
    """The library's instance. The engine looks at the time by itself: no second thread."""

    def __init__(self, module: NativeModule, bounds: Bounds, functions: HostFunctions) -> None:
        super().__init__(bounds)
        self._functions = functions
        self._module = module
        self._stopped = module.engine.native.Stopped
        self._native: Any = None
        self._exports: frozenset[str] = frozenset()
        self._began = self._limit_s = 0.0

    def _instantiate(self) -> None:
        info = self._module.info
        wanted = called(info)
        imports = [
            (list(each.type.params), list(each.type.results), _admitted(each.call))
            for each in offered(info, self._functions, self._bounds)
        ]
        try:
            self._native = self._module.native.instantiate(
                self,
                imports,
                sorted(wanted),
                FUEL_EXPORT,
                self._bounds.memory_bytes,
                self._bounds.reply_bytes,
                MAX_ERROR_TEXT_BYTES,
                self._limit_s,
            )
        except self._stopped as stop:
            what, cause = stop.args, stop.__cause__
        else:
            if self._bounds.fuel is not None and self._native.fuel() is None:
                raise EngineError("it has a limit of fuel, and was compiled without counting it")
            self._exports = wanted
            return
        raise self._failure(what, cause)

    def close(self) -> None:
        if self._native is not None:
            self._native.close()
            self._native = None
        self._finished = self._finished or GuestFault("closed", "this instance is closed")

    @property
    def memory_bytes(self) -> int:
        return self._native.memory_bytes() if self._native is not None else 0

    def seconds_left(self) -> float:
        return self._began + self._limit_s - time.monotonic()

    def read(self, pointer: int, size: int) -> bytes:
        if self._native is None:
            return self._nothing("read", pointer, size)
        try:
            data: bytes = self._native.read(pointer, size)
        except self._stopped as stop:
            what = stop.args
        else:
            return data
        raise self._failure(what)

    def write(self, pointer: int, data: bytes) -> None:
        if self._native is None:
            self._nothing("write", pointer, len(data))
            return
        try:
            self._native.write(pointer, data)
        except self._stopped as stop:
            what = stop.args
        else:
            return
        raise self._failure(what)

    def _nothing(self, action: str, pointer: int, size: int) -> bytes:
        """What there is of a memory that is not reached yet, or no more. GuestFault: not that."""
        if pointer + size > 0:
            raise self._outside(action, pointer, size, 0)
        return b""

    def _has(self, export: str) -> bool:
        return export in self._exports

    def _begin(self, deadline_s: float) -> None:
        self._began = time.monotonic()
        self._limit_s = deadline_s

    def _end(self) -> None:
        pass

    def _set_fuel(self, fuel: int) -> None:
        self._native.set_fuel(fuel)

    def _fuel_left(self) -> int:
        if self._native is None:  # it did not get as far
            return 0
        left: int = self._native.fuel()
        return left

    def _call(self, export: str, first: int = 0, second: int = 0) -> int:
        try:
            result: int = self._native.call(self, export, first, second, self.seconds_left())
        except self._stopped as stop:
            what, cause = stop.args, stop.__cause__
        else:
            return result
        raise self._failure(what, cause)

    def _exchange(self, export: str, request: bytes) -> tuple[bytes, bool]:
        try:
            reply: tuple[bytes, bool] = self._native.exchange(self, export, request, self._limit_s)
        except self._stopped as stop:
            what, cause = stop.args, stop.__cause__
        else:
            return reply
        raise self._failure(what, cause)

    def _failure(self, what: tuple[Any, ...], cause: BaseException | None = None) -> BaseException:
        """The exception for the library's description of what ended a call."""
        match what:
            case ("trap", export, says):
                message = " ".join(says.split())[:_MAX_MESSAGE_CHARS]
                return self._trapped(export, message)
            case ("time", export):
                return self._timed_out(export, self._limit_s)
            case ("host", export, place) if cause is not None:
                return self._unwound(export, str(self._module.info.imports[place]), cause)
            case ("outside", action, pointer, size, held):
                return self._outside(action, pointer, size, held)
            case ("empty", size):
                return self._empty(size)
            case ("reply", export, size):
                return self._oversized(export, size)
        return self._fault("trap", f"the engine ended it: {what}")
