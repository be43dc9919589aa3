"""The engine port on wasm3, an interpreter for boards that have no other engine.

It has no limits of its own: the module is rewritten to keep them (edge_agent.wasm.instrument),
and what was rewritten is the artifact. docs/adr/0010-wasm3.md.
"""

import binascii
import ctypes
import functools
import itertools
import mmap
import resource
import struct
import threading
import time
from ctypes import byref, c_void_p
from pathlib import Path
from typing import Any

from edge_agent.errors import EngineError
from edge_agent.wasm.engine import FUEL_RULES, Bounds, HostFunctions
from edge_agent.wasm.engines import wasm3_capi as capi
from edge_agent.wasm.engines.ticker import Ticker
from edge_agent.wasm.engines.wasm3_instance import Wasm3Instance
from edge_agent.wasm.instrument import instrument, maximum
from edge_agent.wasm.module import FuncType, ModuleInfo, inspect

# An artifact: this; a sum over what the module says about itself; where the maximum of its
# memory is written; the module.
_MAGIC = b"edge-agent wasm3 1\n"
_HEADER = struct.Struct(f"<{len(_MAGIC)}sxII")
# A call takes 145 bytes of the thread's stack (x86-64, GCC; 200 with what its function begins
# with), a loop in a loop 50. No guest's frame is smaller than these, so that a stack that is
# full of them is not much larger there.
_FRAME_BYTES, _LOOP_BYTES = 176, 64
_NATIVE_RATIO = 1.5
_COMPILE_BYTES = 1 << 20  # to compile a function of the deepest nesting that is taken
_U32, _U64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF
_TRAP = ctypes.create_string_buffer(b"[trap] host")


class Wasm3Engine:
    """The library, and the clock that stops guests."""

    name = "wasm3"
    version = capi.VERSION
    meters = True

    def __init__(self) -> None:
        self.library = capi.Library()
        self.ticker = Ticker(self._tick)
        self.instances: dict[int, Wasm3Instance] = {}  # by the number their callbacks carry
        self.numbers = itertools.count(1)
        self._callbacks: dict[tuple[tuple[str, str], FuncType], Any] = {}

    def settings(self) -> str:
        return f"instrument={FUEL_RULES},frame={_FRAME_BYTES},loop={_LOOP_BYTES}"

    def compile(self, wasm: bytes) -> bytes:
        from edge_agent.wasm.engines.wasm3_trial import try_all  # for the compiler's process only

        made = instrument(wasm, frame_bytes=_FRAME_BYTES, loop_bytes=_LOOP_BYTES)
        try_all(self.library, made.wasm)
        return _HEADER.pack(_MAGIC, _sum(inspect(wasm)), made.maximum_at) + made.wasm

    def load(self, artifact: Path, info: ModuleInfo, stack_bytes: int) -> "Wasm3Module":
        _check_stack(stack_bytes)
        try:
            with artifact.open("rb") as file:
                code = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:
            raise EngineError(f"{artifact} cannot be mapped: {error}") from error
        if len(code) < _HEADER.size or code[: len(_MAGIC)] != _MAGIC:
            raise EngineError(f"{artifact} is no artifact of {self.name} {self.version}")
        _, said, place = _HEADER.unpack(code[: _HEADER.size])
        # Instances trust `info` with the types of what they call.
        if said != _sum(info) or place > len(code) - _HEADER.size:
            raise EngineError(f"{artifact} was made of another module")
        return Wasm3Module(self, code, place, info, stack_bytes)

    def callback(self, key: tuple[str, str], kind: FuncType) -> Any:
        """The C function behind one import, shared by all instances."""
        found = self._callbacks.get((key, kind))
        if found is None:
            masks = tuple(_U32 if param == "i32" else _U64 for param in kind.params)
            result = _U32 if kind.results == ("i32",) else _U64
            call = functools.partial(self._host_call, key, len(kind.results), masks, result)
            found = self._callbacks[key, kind] = capi.HOST_CALLBACK(call)
        return found

    def _host_call(
        self,
        key: tuple[str, str],
        results: int,
        masks: tuple[int, ...],
        result_mask: int,
        _runtime: int,
        context: Any,
        stack: Any,
        _memory: int,
    ) -> int | None:
        instance = self.instances[context[0]]
        outer, instance.host_stack = instance.host_stack, stack
        try:
            instance.admit()
            arguments = [stack[at] & mask for at, mask in enumerate(masks, results)]
            result = instance.functions[key].call(instance, *arguments)
            if result is not None:
                stack[0] = result & result_mask
            return None
        except BaseException as error:
            # Nothing may unwind through the engine's frames: it travels as a trap.
            instance.raised = (key, error)
            return ctypes.addressof(_TRAP)
        finally:
            instance.host_stack = outer

    def _tick(self) -> None:
        now = time.monotonic()
        for instance in list(self.instances.values()):
            instance.tick(now)


class Wasm3Module:
    """A mapped artifact. Each instance has its own code, made as it is needed."""

    def __init__(
        self,
        engine: Wasm3Engine,
        code: mmap.mmap,
        maximum_at: int,
        info: ModuleInfo,
        stack_bytes: int,
    ) -> None:
        self.engine = engine
        self.info = info
        self.stack_bytes = stack_bytes
        self._maximum_at = _HEADER.size + maximum_at
        self._code: mmap.mmap | None = code
        self._lock = threading.Lock()  # from writing the maximum until it was read

    def parse(self, environment: int, memory_bytes: int) -> tuple[c_void_p, object]:
        """wasm3's module with a limit of memory, and what must live as long as it does."""
        if self._code is None:
            raise EngineError("this module is closed")
        code, module = self._code, c_void_p()
        declared = self.info.memory_max_bytes
        limit = memory_bytes if declared is None else min(declared, memory_bytes)
        written = maximum(limit)
        view = (ctypes.c_char * len(code)).from_buffer(code)
        with self._lock:
            code[self._maximum_at : self._maximum_at + len(written)] = written
            result = self.engine.library.m3_ParseModule(
                environment,
                byref(module),
                ctypes.addressof(view) + _HEADER.size,
                len(code) - _HEADER.size,
            )
        if result:
            raise EngineError(f"wasm3 cannot parse it: {self.engine.library.reason(result)}")
        return module, view

    def instantiate(
        self, bounds: Bounds, functions: HostFunctions, deadline_s: float
    ) -> Wasm3Instance:
        if self._code is None:
            raise EngineError("this module is closed")
        return Wasm3Instance(self, bounds, functions).started(deadline_s)

    def close(self) -> None:
        self._code = None  # instances keep the mapping as long as they need it


def _sum(info: ModuleInfo) -> int:
    """Of all that an artifact must agree about with the module that it was made of."""
    said = repr((info.imports, sorted(info.functions.items()), info.memory_max_bytes))
    return binascii.crc32(said.encode())


def _check_stack(stack_bytes: int) -> None:
    """EngineError: a guest that used all of its stack would crash this process."""
    needed = int(stack_bytes * _NATIVE_RATIO) + _COMPILE_BYTES
    limit = resource.getrlimit(resource.RLIMIT_STACK)[0]
    if limit != resource.RLIM_INFINITY and needed > limit:
        raise EngineError(
            f"a guest's stack of {stack_bytes} bytes takes up to {needed} of this process's "
            f"{limit}: raise that (ulimit -s, LimitSTACK=) or lower the plugin's `stack`"
        )
