"""The guest ABI (knqyf263/go-plugin as NRI uses it): names, packing, the order of a call.

A call is: malloc, write the request, run the export, read the reply, free the reply,
free the request. An adapter lends the few primitives; what may go wrong is decided here.
"""

from abc import ABC, abstractmethod
from typing import Self

from edge_agent.errors import GuestError, GuestFault, ModuleError
from edge_agent.wasm.engine import Bounds, GuestExit, HostFunction, HostFunctions
from edge_agent.wasm.module import FuncType, ModuleInfo

API_VERSION = 1
ERROR_BIT = 1 << 31  # of the low word of a result; the bytes are then a text
MAX_ERROR_TEXT_BYTES = 4096  # ours: what fits a status and a log line
# Ours, for one method or the start: Go's runtime makes 22 to begin, 1 to 13 for an event and
# 92 to read a synchronisation of 3 MB. A flood ends after some 0.2 s of a fast processor.
MAX_HOST_CALLS = 100_000

_TOO_EARLY = "nothing of a guest is reached before its start function has returned"

MALLOC, FREE, INITIALIZE, START, VERSION = (
    "malloc",
    "free",
    "_initialize",
    "_start",
    "plugin_api_version",
)
REQUIRED = {
    VERSION: FuncType((), ("i64",)),
    MALLOC: FuncType(("i32",), ("i32",)),
    FREE: FuncType(("i32",), ()),
}
OPTIONAL = {INITIALIZE: FuncType((), ()), START: FuncType((), ())}
METHOD = FuncType(("i32", "i32"), ("i64",))
METHOD_PREFIX = "plugin_"
OWN_METHODS = ("edge_on_timer", "edge_on_pressure")
"""That no runtime calls, but this agent."""


def pack(pointer: int, size: int) -> int:
    """A result of the ABI: pointer in the high word, size in the low."""
    return pointer << 32 | size


def methods(info: ModuleInfo) -> frozenset[str]:
    """The ABI methods that a module exports, such as "plugin_configure".

    ModuleError: an export of the ABI is missing or has another type.
    """
    for name, wanted in REQUIRED.items():
        found = info.functions.get(name)
        if found != wanted:
            state = "is missing" if found is None else f"has the type {found}"
            raise ModuleError(f"not an NRI plugin: the export {name} {wanted} {state}")
    for name, wanted in OPTIONAL.items():
        found = info.functions.get(name)
        if found is not None and found != wanted:
            raise ModuleError(f"the export {name} has the type {found}, not {wanted}")
    if not info.exports_memory:
        raise ModuleError("not an NRI plugin: the memory is not exported as 'memory'")
    exported = set()
    for name, found in info.functions.items():
        if (name.startswith(METHOD_PREFIX) and name != VERSION) or name in OWN_METHODS:
            if found != METHOD:
                raise ModuleError(f"the export {name} has the type {found}, not {METHOD}")
            exported.add(name)
    return frozenset(exported)


def called(info: ModuleInfo) -> frozenset[str]:
    """The exports of a module that are called. ModuleError as above."""
    return methods(info) | (info.functions.keys() & (REQUIRED.keys() | OPTIONAL.keys()))


def offered(info: ModuleInfo, functions: HostFunctions, bounds: Bounds) -> list[HostFunction]:
    """The functions that a module imports, in its order.

    ModuleError: one of them is not offered, or the memory begins above its bound.
    """
    if info.memory_bytes > bounds.memory_bytes:
        raise ModuleError(
            f"the module begins with {info.memory_bytes} bytes of memory; "
            f"its limit is {bounds.memory_bytes}"
        )
    found = []
    for needed in info.imports:
        function = functions.get((needed.module, needed.name))
        if function is None or function.type != needed.type:
            raise ModuleError(f"the import {needed} is not offered")
        found.append(function)
    return found


class AbiInstance(ABC):
    """An instance in terms of an adapter's primitives; see `engine.Instance`."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._finished: GuestFault | None = None  # never raised itself: it would keep frames
        self._lending = False
        self._host_calls_left = 0
        self.fuel_used = 0

    @abstractmethod
    def _begin(self, deadline_s: float) -> None:
        """Arm the deadline of the calls that follow."""

    @abstractmethod
    def _end(self) -> None:
        """Disarm it."""

    @abstractmethod
    def _set_fuel(self, fuel: int) -> None:
        """Fill the fuel up, or down, to so many instructions."""

    @abstractmethod
    def _fuel_left(self) -> int:
        """The fuel that is left; below zero where a guest was stopped for using it up."""

    @abstractmethod
    def _instantiate(self) -> None:
        """Make the instance, which runs its start function. GuestFault. ModuleError."""

    @abstractmethod
    def _has(self, export: str) -> bool:
        """Whether the function is exported."""

    @abstractmethod
    def _call(self, export: str, first: int = 0, second: int = 0) -> int:
        """Run an export; its result unsigned, undefined if it has none.

        GuestFault. GuestExit. Whatever a host function raised, as `_unwound` has it.
        """

    @abstractmethod
    def read(self, pointer: int, size: int) -> bytes:
        """Copy out of the guest's memory. GuestFault (`abi`): not within it."""

    @abstractmethod
    def write(self, pointer: int, data: bytes) -> None:
        """Copy into the guest's memory. GuestFault (`abi`): not within it."""

    @abstractmethod
    def close(self) -> None:
        """See `engine.Instance.close`; also before it was made."""

    def start(self, deadline_s: float) -> None:
        """Make the instance, initialise it and check the version of its ABI.

        ModuleError, GuestFault: see `engine.Module.instantiate`.
        """
        self._host_calls_left = MAX_HOST_CALLS
        self._begin(deadline_s)
        try:
            self._instantiate()
            # A command that returns from main (older TinyGo) exits with 0 and lives on.
            for export in (INITIALIZE, START):
                if self._has(export):
                    try:
                        self._call(export)
                    except GuestExit as leaving:
                        if leaving.code:
                            raise self._fault("trap", f"{export}: {leaving}") from None
                    break
            version = self._call(VERSION)
            if version != API_VERSION:
                raise self._fault("abi", f"{VERSION} is {version}; this agent speaks {API_VERSION}")
        except GuestExit as leaving:
            raise self._fault("trap", f"{VERSION}: {leaving}") from None
        finally:
            self._end()

    def started(self, deadline_s: float) -> Self:
        """Itself after `start`, or closed when that failed."""
        try:
            self.start(deadline_s)
        except BaseException:
            self.close()
            raise
        return self

    def call(self, export: str, request: bytes, deadline_s: float) -> bytes:
        """One method of the guest; see `engine.Instance.call`."""
        if self._finished is not None:
            raise GuestFault(self._finished.kind, str(self._finished))
        if not self._has(export):  # of no consequence: nothing ran
            raise GuestFault("abi", f"the guest has no {export}")
        fuel = self._bounds.fuel
        self._host_calls_left = MAX_HOST_CALLS
        self._begin(deadline_s)
        try:
            if fuel is not None:
                self._set_fuel(fuel)
            reply, failed = self._exchange(export, request)
        except GuestExit as leaving:
            raise self._fault("trap", f"{export}: {leaving}") from None
        except BaseException as error:
            self._give_up(error)
            raise
        finally:
            self._end()
            if fuel is not None:
                self.fuel_used = fuel - max(0, self._fuel_left())
        if failed:
            raise GuestError(reply.decode(errors="replace") or "the guest gave no reason")
        return reply

    def _exchange(self, export: str, request: bytes) -> tuple[bytes, bool]:
        """The reply, and whether it is the text of an error; raises as `_call` does.

        Step by step. An adapter that takes all steps at once has them in this order.
        """
        pointer = 0
        if request:
            pointer = self._malloc(len(request))
            self.write(pointer, request)
        result = self._call(export, pointer, len(request))
        reply, failed = self._take(export, result)
        if pointer:
            self._call(FREE, pointer)
        return reply, failed

    def admit(self) -> None:
        """Count a call of a host function, which an adapter is about to make. GuestFault."""
        self._host_calls_left -= 1
        if self._host_calls_left < 0:
            raise self._fault("calls", f"it called its host more than {MAX_HOST_CALLS} times")

    def allocate(self, size: int) -> int:
        """For host functions: see `engine.Guest.allocate`."""
        if self._lending:  # without end, on the host's stack too
            raise self._fault("abi", "malloc called a host function that needs malloc to reply")
        if not self._has(MALLOC):
            raise self._fault("abi", f"a host function needs malloc to reply: {_TOO_EARLY}")
        self._lending = True
        try:
            return self._malloc(size)
        finally:
            self._lending = False

    def _malloc(self, size: int) -> int:
        pointer = self._call(MALLOC, size)
        if pointer == 0:
            raise self._empty(size)
        return pointer

    def _take(self, export: str, result: int) -> tuple[bytes, bool]:
        if result == 0:
            return b"", False
        pointer, size = result >> 32, result & (ERROR_BIT - 1)
        failed = bool(result & ERROR_BIT)
        if failed:
            size = min(size, MAX_ERROR_TEXT_BYTES)
        elif size > self._bounds.reply_bytes:
            raise self._oversized(export, size)
        reply = self.read(pointer, size) if size else b""
        if pointer:
            self._call(FREE, pointer)
        return reply, failed

    def _fault(self, kind: str, message: str) -> GuestFault:
        """A fault to raise; the instance is finished from here on."""
        self._finished = GuestFault(kind, message)
        return GuestFault(kind, message)

    def _trapped(self, what: str, message: str) -> GuestFault:
        """The fault behind a trap in the guest's own code, other than for its time."""
        if self._bounds.fuel is not None and self._fuel_left() < 0:
            return self._fault(
                "fuel", f"{what}: stopped after {self._bounds.fuel} instructions, its limit of fuel"
            )
        return self._fault("trap", f"{what}: {message}")

    def _empty(self, size: int) -> GuestFault:
        return self._fault("memory", f"malloc({size}) gave nothing: the guest is out of memory")

    def _oversized(self, export: str, size: int) -> GuestFault:
        limit = self._bounds.reply_bytes
        return self._fault("abi", f"{export} answered {size} bytes; its limit is {limit}")

    def _outside(self, action: str, pointer: int, size: int, held: int) -> GuestFault:
        message = f"{action} of {size} bytes at {pointer}: the memory has {held} bytes"
        if not held:
            message += f" ({_TOO_EARLY})"
        return self._fault("abi", message)

    def _timed_out(self, export: str, limit_s: float) -> GuestFault:
        return self._fault("timeout", f"{export}: stopped after {limit_s:.3g} s, its limit")

    def _unwound(self, export: str, function: str, error: BaseException) -> BaseException:
        """The exception to raise for one that ended a host function and the guest with it."""
        if isinstance(error, GuestFault | GuestExit) or not isinstance(error, Exception):
            return error
        fault = self._fault("trap", f"{export}: the host function {function} failed: {error!r}")
        fault.__cause__ = error  # a defect of this agent: its traceback is wanted
        return fault

    def _give_up(self, error: BaseException) -> None:
        """The guest was left in the middle of a call: nothing may run in it again."""
        if isinstance(error, GuestFault):
            self._fault(error.kind, str(error))
        else:
            self._fault("trap", f"its last call was ended by {error!r}")
