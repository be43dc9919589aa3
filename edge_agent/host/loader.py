"""Turns releases into instances that are ready to be registered, on a thread of its own.

Reading a file, compiling and a guest's initialisation may each take seconds; the loop
hands a release over and is called back with the instance or the reason there is none.
"""

import logging
import queue
import threading
from collections.abc import Callable
from pathlib import Path

from edge_agent.errors import EdgeAgentError, GuestFault, ModuleError, StoreError
from edge_agent.host.release import Release
from edge_agent.loop import Loop
from edge_agent.nri.envelope import MAX_REPLY_BYTES
from edge_agent.store import files
from edge_agent.store.digest import sha256_hex
from edge_agent.wasm import abi
from edge_agent.wasm.engine import Bounds, Instance, Module
from edge_agent.wasm.guestlog import GuestLog, Sink
from edge_agent.wasm.imports import HostServices, PluginState, check_imports
from edge_agent.wasm.module import MAX_MODULE_BYTES, ModuleInfo, inspect

log = logging.getLogger(__name__)

# The guest's initialisation runs on this thread's stack: the largest that may be
# configured for it, and room for the engine and Python.
_STACK_BYTES = 8 << 20

Compiled = Callable[[bytes, ModuleInfo, int], Module]
"""(module bytes, what they say, stack bytes) -> code that is loaded; may compile first."""


class Prepared:
    """An instance with its services, ready to be registered. Closes once, on any thread."""

    def __init__(
        self,
        release: Release,
        instance: Instance,
        services: HostServices,
        exports: frozenset[str],
        done: Callable[[], None],
    ) -> None:
        self.release = release
        self.instance = instance
        self.services = services
        self.exports = exports
        self._done: Callable[[], None] | None = done

    def close(self) -> None:
        done, self._done = self._done, None
        if done is not None:
            self.instance.close()
            self.services.log.flush()
            done()


class Loader:
    """One worker thread. `log_sink(identity)` is where a plugin's lines go."""

    def __init__(self, loop: Loop, compiled: Compiled, log_sink: Callable[[str], Sink]) -> None:
        self._loop = loop
        self._compiled = compiled
        self._log_sink = log_sink
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._modules: dict[tuple[str, int], tuple[Module, ModuleInfo, int]] = {}
        self._lock = threading.Lock()  # of _modules; never held while anything is waited for
        self._thread = threading.Thread(target=self._run, name="loader", daemon=True)
        before = threading.stack_size(_STACK_BYTES)
        try:
            self._thread.start()
        finally:
            threading.stack_size(before)

    def load(
        self,
        release: Release,
        state: PluginState,
        ready: Callable[[Prepared | EdgeAgentError], None],
    ) -> None:
        """Prepare an instance; `ready` is called on the loop with it or with the reason."""

        def job() -> None:
            result: Prepared | EdgeAgentError
            try:
                result = self._prepare(release, state)
            except EdgeAgentError as error:
                result = error
            except Exception as error:
                log.exception("loading %s failed", release.identity)
                result = ModuleError(f"{release.path}: {error!r}")
            self._loop.call_soon(lambda: ready(result))

        self._jobs.put(job)

    def run(self, job: Callable[[], None]) -> None:
        """Any other work that may wait for the disk, on this thread."""
        self._jobs.put(job)

    def stop(self) -> None:
        """Do nothing more; the thread ends after its present job."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:
                log.exception("a job of the loader failed; the next goes on")

    def _prepare(self, release: Release, state: PluginState) -> Prepared:
        limits = release.settings.limits
        key = (release.digest, limits.stack_bytes)
        guest_log = GuestLog(
            self._log_sink(release.identity), limits.log_lines_per_s, limits.log_line_bytes
        )
        services = HostServices(guest_log, state)
        functions = services.functions()
        bounds = Bounds(limits.memory_bytes, min(limits.reply_bytes, MAX_REPLY_BYTES))

        def suits(info: ModuleInfo) -> None:
            """ModuleError: it could not run here, so it is not worth compiling."""
            check_imports(info, functions)
            abi.methods(info)
            if info.memory_bytes > bounds.memory_bytes:
                raise ModuleError(
                    f"it begins with {info.memory_bytes} bytes of memory; "
                    f"its limit is {bounds.memory_bytes}"
                )

        try:
            module, info = self._module(release, key, suits)
            try:
                instance = module.instantiate(bounds, functions, limits.start_ms / 1000)
            except BaseException:
                self._done(key)
                raise
            finally:
                guest_log.flush()
        except ModuleError as error:
            raise ModuleError(f"{release.path}: {error}") from error
        except GuestFault as fault:
            raise GuestFault(fault.kind, f"{release.path}: {fault}") from fault
        return Prepared(release, instance, services, abi.methods(info), lambda: self._done(key))

    def _module(
        self, release: Release, key: tuple[str, int], suits: Callable[[ModuleInfo], None]
    ) -> tuple[Module, ModuleInfo]:
        with self._lock:
            found = self._modules.get(key)
        if found is not None:
            suits(found[1])
            with self._lock:
                again = self._modules.get(key)
                if again is not None:  # not closed meanwhile
                    module, info, users = again
                    self._modules[key] = (module, info, users + 1)
                    return module, info
        wasm = read_module(release.path)
        if sha256_hex(wasm) != release.digest:
            raise ModuleError("it changed while it was read; it is read again")
        info = inspect(wasm)
        suits(info)
        module = self._compiled(wasm, info, key[1])
        with self._lock:  # only this thread adds: nobody was faster
            self._modules[key] = (module, info, 1)
        return module, info

    def _done(self, key: tuple[str, int]) -> None:
        with self._lock:
            module, info, users = self._modules.pop(key)
            if users > 1:
                self._modules[key] = (module, info, users - 1)
                return
        module.close()


def read_module(path: Path) -> bytes:
    """A plugin file's bytes. StoreError: unreadable or too large."""
    wasm = files.read(path, MAX_MODULE_BYTES)
    if wasm is None:
        raise StoreError(f"{path}: is gone")
    return wasm
