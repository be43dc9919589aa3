"""Turns releases into instances that are ready to be registered, on threads of its own.

Reading a file and a guest's initialisation may each take seconds; the loop hands a release
over and is called back with the instance or the reason there is none. Compiling may take
minutes, in which another plugin's guest may have to be made anew: it has its own thread.

    loader:   read ─► artifact there? ─► instantiate ─► ready
                          │ no                 ▲
    compiler:             └► compile ──────────┘
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from edge_agent import memory, threads
from edge_agent.errors import EdgeAgentError, EngineError, GuestFault, ModuleError, SupersededError
from edge_agent.host.compile_backoff import CompileBackoff
from edge_agent.host.crash_marker import LOADER, NOBODY, CrashMarker, Mark
from edge_agent.loop import Loop
from edge_agent.nri.envelope import MAX_REPLY_BYTES
from edge_agent.store.digest import Digest
from edge_agent.store.release import Release
from edge_agent.wasm import abi
from edge_agent.wasm.engine import Bounds, Instance, Module
from edge_agent.wasm.guestlog import GuestLog, Sink
from edge_agent.wasm.imports import HostServices, PluginState, check_imports
from edge_agent.wasm.module import ModuleInfo
from edge_agent.wasm.modulefile import ModuleFile, inspect_file

log = logging.getLogger(__name__)

# The guest's initialisation runs on this thread's stack: the largest that may be
# configured for it, and room for the engine and Python.
_STACK_BYTES = 8 << 20
_STOP_S = 1.0  # of the agent's end, for what is being loaded; nothing is lost without it
_COMPILER_STACK_BYTES = 1 << 20  # it starts processes and maps what they leave

Stored = Callable[[ModuleFile], Module | None]
"""Code that is loaded, None: not compiled."""
Compiled = Callable[[ModuleFile], Module]
"""The same, compiling it first where that was not done."""

_Key = tuple[Digest, int, bool]
"""Of modules that are the same code: digest, stack in bytes, whether it counts its fuel."""


class _Loaded(NamedTuple):
    """A module in use."""

    module: Module
    info: ModuleInfo
    by_code: bool  # of the fleet's
    users: int


def _nothing() -> None:
    pass


class Prepared:
    """An instance with its services, ready to be registered. Closes once, on any thread."""

    def __init__(
        self,
        release: Release,
        instance: Instance,
        services: HostServices,
        exports: frozenset[str],
        mark: Mark,
        done: Callable[[], None],
    ) -> None:
        self.release = release
        self.instance = instance
        self.services = services
        self.exports = exports
        self.mark = mark
        self._done: Callable[[], None] | None = done

    def close(self) -> None:
        done, self._done = self._done, None
        if done is not None:
            self.instance.close()
            self.services.log.flush()
            done()
            self.mark.close()


class _UncompiledError(Exception):
    """A module must be compiled before it can be loaded."""


class Loader:
    """Two worker threads. `log_sink(identity)` is where a plugin's lines go; `marker` is told
    whose guest is being made. `refuses_code` says of which releases the fleet's machine code is
    not to be used; it is asked on a worker's thread."""

    def __init__(
        self,
        loop: Loop,
        stored: Stored,
        compiled: Compiled,
        log_sink: Callable[[str], Sink],
        marker: CrashMarker,
        refuses_code: Callable[[Release], bool],
    ) -> None:
        self._loop = loop
        self._refuses_code = refuses_code
        self._crash_marker = marker
        self._stored = stored
        self._compiled = compiled
        self._log_sink = log_sink
        self._jobs = _Worker("loader", _STACK_BYTES)
        self._compiler = _Worker("compiler", _COMPILER_STACK_BYTES)
        self._modules: dict[_Key, _Loaded] = {}
        self._lock = threading.Lock()  # of _modules; never held while anything is waited for
        self._compile_backoff = CompileBackoff()

    def load(
        self,
        release: Release,
        state: PluginState,
        ready: Callable[[Prepared | EdgeAgentError], None],
        compiling: Callable[[], None] = _nothing,
    ) -> None:
        """Prepare an instance; `ready` is called on the loop with it or with the reason.

        `compiling` is called there before, if the module must be compiled first.
        """
        key = (release.digest, release.metered)

        def attempt(step: Callable[[], Prepared | None]) -> None:
            result: Prepared | EdgeAgentError | None
            try:
                result = step()
            except EdgeAgentError as error:
                result = error
            except Exception as error:
                log.exception("loading %s failed", release.identity)
                result = ModuleError(f"{release.path}: {error!r}")
            if result is not None:
                self._loop.call_soon(partial(ready, result))

        def prepare() -> Prepared | None:
            try:
                return self._prepare_marked(release, state)
            except _UncompiledError:
                self._compile_backoff.check(key)
                self._loop.call_soon(compiling)
                self._compiler.put(partial(attempt, compile_))
                return None

        def compile_() -> None:
            try:
                # Another runtime's plugin may have waited before it.
                self._compile_backoff.check(key)
                source = self._read(release)
                with self._compile_backoff.noted(key):
                    self._compiled(source).close()
            except ModuleError as error:
                raise _with_file(release, error) from error
            self._jobs.put(partial(attempt, finish))
            self._jobs.put(memory.trim)

        def finish() -> Prepared:
            try:
                return self._prepare_marked(release, state)
            except _UncompiledError:
                raise EngineError(f"{release.path}: what was compiled is gone again") from None

        self._jobs.put(partial(attempt, prepare))

    def run(self, job: Callable[[], None]) -> None:
        """Any other work that may wait for the disk, but for no compiler."""
        self._jobs.put(job)

    def run_apart(self, job: Callable[[], None]) -> None:
        """Work that may wait for a compiler, of this process or another."""
        self._compiler.put(job)

    def stop(self) -> None:
        """Do nothing more; the threads end after their present jobs, which are waited for a
        little (`busy`)."""
        workers = (self._jobs, self._compiler)
        for worker in workers:
            worker.put(None)
        until = time.monotonic() + _STOP_S
        for worker in workers:
            worker.thread.join(max(0.0, until - time.monotonic()))

    @property
    def busy(self) -> bool:
        """Whether a thread is still at work, perhaps within an engine."""
        return self._jobs.thread.is_alive() or self._compiler.thread.is_alive()

    def _prepare_marked(self, release: Release, state: PluginState) -> Prepared:
        mark = self._crash_marker.enter(release.identity, release.digest)
        mark.memory[LOADER] = mark.index
        try:
            return self._prepare(release, state, mark)
        except BaseException:
            mark.close()
            raise
        finally:
            mark.memory[LOADER] = NOBODY

    def _prepare(self, release: Release, state: PluginState, mark: Mark) -> Prepared:
        limits = release.settings.limits
        key = (release.digest, limits.stack_bytes, release.metered)
        guest_log = GuestLog(
            self._log_sink(release.identity), limits.log_lines_per_s, limits.log_line_bytes
        )
        services = HostServices(guest_log, state)
        functions = services.functions()
        bounds = Bounds(
            limits.memory_bytes, min(limits.reply_bytes, MAX_REPLY_BYTES), limits.fuel or None
        )

        def check_loadable(info: ModuleInfo) -> None:
            """ModuleError: it could not run here, so it is not worth compiling."""
            check_imports(info, functions)
            abi.methods(info)
            if info.memory_bytes > bounds.memory_bytes:
                raise ModuleError(
                    f"it begins with {info.memory_bytes} bytes of memory; "
                    f"its limit is {bounds.memory_bytes}"
                )

        try:
            module, info = self._module(release, key, check_loadable, mark)
            try:
                instance = module.instantiate(bounds, functions, limits.start_ms / 1000)
            except BaseException:
                self._done(key)
                raise
            finally:
                guest_log.flush()
        except ModuleError as error:
            raise _with_file(release, error) from error
        except GuestFault as fault:
            raise GuestFault(fault.kind, f"{release.path}: {fault}") from fault
        exports = abi.methods(info)
        return Prepared(
            release, instance, services, exports, mark, lambda: self._release_module(key)
        )

    def _module(
        self,
        release: Release,
        key: _Key,
        check_loadable: Callable[[ModuleInfo], None],
        mark: Mark,
    ) -> tuple[Module, ModuleInfo]:
        with self._lock:
            found = self._modules.get(key)
        if found is not None:
            check_loadable(found.info)
            with self._lock:
                again = self._modules.get(key)
                if again is not None:  # not closed meanwhile
                    self._modules[key] = again._replace(users=again.users + 1)
            if again is not None:
                if again.by_code:
                    _runs_code(mark)
                return again.module, again.info
        source = self._read(release)
        check_loadable(source.info)
        loaded = self._stored(replace(source, code=None))
        by_code = loaded is None and source.code is not None and self._may_use_code(release)
        if by_code:
            _runs_code(mark)
            loaded = self._stored(source)
        if loaded is None:
            raise _UncompiledError
        with self._lock:  # only this thread adds: nobody was faster
            self._modules[key] = _Loaded(loaded, source.info, by_code, 1)
        return loaded, source.info

    def _may_use_code(self, release: Release) -> bool:
        refuses = self._refuses_code(release)
        if refuses:
            log.warning(
                "%s: the agent died while the fleet's machine code of it ran: compiling here; "
                "edge-agent plugin unquarantine %s lets that code run again",
                *(release.identity, release.identity),
                extra={"plugin": release.identity},
            )
        return not refuses

    @staticmethod
    def _read(release: Release) -> ModuleFile:
        info = inspect_file(release.path, release.digest)
        stack_bytes = release.settings.limits.stack_bytes
        return ModuleFile(
            release.path, release.digest, info, stack_bytes, release.metered, release.code
        )

    def _release_module(self, key: _Key) -> None:
        """A guest is gone: an engine may have had its memory from the heap."""
        self._done(key)
        self._jobs.put(memory.trim)

    def _done(self, key: _Key) -> None:
        with self._lock:
            found = self._modules.pop(key)
            if found.users > 1:
                self._modules[key] = found._replace(users=found.users - 1)
                return
        found.module.close()


def _runs_code(mark: Mark) -> None:
    """On the loader's thread: what it runs now is machine code of the fleet's."""
    mark.runs_code()
    mark.memory[LOADER] = mark.index


def _with_file(release: Release, error: ModuleError) -> ModuleError:
    """The error with the module's file."""
    if isinstance(error, SupersededError) and release.path.name == release.digest.hex:
        # A blob of the store is never replaced.
        return ModuleError(f"{release.path}: it is damaged: its content has another digest")
    return type(error)(f"{release.path}: {error}")


class _Worker:
    """A daemon thread that does one job after the other; None ends it."""

    def __init__(self, name: str, stack_bytes: int) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.put = self._jobs.put
        self.thread = threads.start(self._run, name=name, stack_bytes=stack_bytes)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:
                log.exception("a job of the loader failed; the next goes on")
            del job  # or the last one, and all that it holds, would stay
