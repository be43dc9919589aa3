"""Turns releases into instances that are ready to be registered, on threads of its own.

Reading a file and a guest's initialisation may each take seconds; the loop hands a release
over and is called back with the instance or the reason there is none. Compiling may take
minutes, in which another plugin's guest may have to be made anew: it has its own thread.

    loader:   read ─► artifact there? ─► instantiate ─► ready
                          │ no                 ▲
    compiler:             └► compile ──────────┘

Plugins are tried again and again; a module that could not be compiled rests for many times as long
as that took, or it would keep a core busy for ever (`CompileBackoff`).
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from edge_agent import process
from edge_agent.errors import EdgeAgentError, EngineError, GuestFault, ModuleError, SupersededError
from edge_agent.host.crash_marker import LOADER, NOBODY, CrashMarker, Mark
from edge_agent.host.loaded_modules import LoadedModules, Stored, UncompiledError, read_module
from edge_agent.loop import Loop
from edge_agent.nri.events import MAX_REPLY_BYTES
from edge_agent.store.release import Release
from edge_agent.wasm import abi
from edge_agent.wasm.engine import Bounds, Instance, Module
from edge_agent.wasm.guestlog import GuestLog, Sink
from edge_agent.wasm.imports import HostServices, PluginState, check_imports
from edge_agent.wasm.module import ModuleInfo
from edge_agent.wasm.modulefile import ModuleFile

REST_FACTOR = 10  # ours: a tenth of one core at most

_Key = tuple[str, bool]
"""Digest of the module, whether it was to count its fuel."""


class CompileBackoff:
    """Used by the threads of the loader; nothing in it waits."""

    def __init__(self) -> None:
        self._resting: dict[_Key, tuple[float, EdgeAgentError]] = {}

    def check(self, key: _Key) -> None:
        """Raise what was wrong the last time, if that was a short while ago."""
        until, error = self._resting.get(key, (0.0, None))
        if error is not None and time.monotonic() < until:
            raise type(error)(str(error))

    @contextmanager
    def noted(self, key: _Key) -> Iterator[None]:
        """Within it, the module is compiled."""
        began = time.monotonic()
        try:
            yield
        except SupersededError:
            raise  # says nothing of what has this digest
        except EdgeAgentError as error:
            now = time.monotonic()
            resting = {of: each for of, each in self._resting.items() if each[0] > now}
            # A new one: what was raised would keep frames.
            resting[key] = (now + REST_FACTOR * (now - began), type(error)(str(error)))
            self._resting = resting
            raise


log = logging.getLogger(__name__)

# The guest's initialisation runs on this thread's stack: the largest that may be
# configured for it, and room for the engine and Python.
_STACK_BYTES = 8 << 20
_STOP_S = 1.0  # of the agent's end, for what is being loaded; nothing is lost without it
_COMPILER_STACK_BYTES = 1 << 20  # it starts processes and maps what they leave

Compiled = Callable[[ModuleFile], Module]
"""Code that is loaded, compiled first where that was not done."""


def _nothing() -> None:
    pass


class Prepared:
    """An instance with its services, ready to be registered. Closes once, on any thread.

    `make` makes another instance with these services, within a time in seconds.
    """

    def __init__(
        self,
        release: Release,
        make: Callable[[float], Instance],
        services: HostServices,
        exports: frozenset[str],
        mark: Mark,
        done: Callable[[], None],
    ) -> None:
        """GuestFault. ModuleError. EngineError."""
        self.release = release
        self.instance = make(release.settings.limits.start_ms / 1000)
        self.services = services
        self.exports = exports
        self.mark = mark
        # Of a one-shot plugin: the spare place, and where to make its instances
        # (edge_agent.host.per_event).
        self.spare: Prepared | None = None
        self.later: Callable[[Callable[[], None]], None] | None = None
        self._make = make
        self._done: Callable[[], None] | None = done

    def remake(self, within_s: float) -> None:
        """Another instance in the place of this one, which is closed first. GuestFault."""
        self.instance.close()
        self.instance = self._make(within_s)

    def close(self) -> None:
        done, self._done = self._done, None
        if done is not None:
            self.instance.close()
            self.services.log.flush()
            done()
            self.mark.close()
        if self.spare is not None:
            self.spare.close()


class Loader:
    """Two worker threads. `log_sink(identity)` is where a plugin's lines go; `marker` notes
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
        self._crash_marker = marker
        self._modules = LoadedModules(stored, refuses_code)
        self._compiled = compiled
        self.log_sink = log_sink
        self._jobs = process.JobThread("loader", _STACK_BYTES)
        self._compiler = process.JobThread("compiler", _COMPILER_STACK_BYTES)
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
                return self._prepare_places(release, state)
            except UncompiledError:
                self._compile_backoff.check(key)
                self._loop.call_soon(compiling)
                self._compiler.put(partial(attempt, compile_))
                return None

        def compile_() -> None:
            try:
                # Another runtime's plugin may have waited before it.
                self._compile_backoff.check(key)
                source = read_module(release)
                with self._compile_backoff.noted(key):
                    self._compiled(source).close()
            except ModuleError as error:
                raise _with_file(release, error) from error
            self._jobs.put(partial(attempt, finish))
            self._jobs.put(process.trim)

        def finish() -> Prepared:
            try:
                return self._prepare_places(release, state)
            except UncompiledError:
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

    def _prepare_places(self, release: Release, state: PluginState) -> Prepared:
        """The instance; of a one-shot plugin the spare one too."""
        prepared = self._prepare_marked(release, state)
        if release.settings.one_shot:
            prepared.later = self.run
            try:
                prepared.spare = self._prepare_marked(release, state)
            except BaseException:
                prepared.close()
                raise
        return prepared

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
        guest_log = GuestLog(
            self.log_sink(release.identity), limits.log_lines_per_s, limits.log_line_bytes
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
            module, info = self._modules.take(release, check_loadable, mark)
            try:
                return Prepared(
                    release,
                    partial(module.instantiate, bounds, functions),
                    services,
                    abi.methods(info),
                    mark,
                    lambda: self._release_module(release),
                )
            except BaseException:
                self._modules.give_back(release)
                raise
            finally:
                guest_log.flush()
        except ModuleError as error:
            raise _with_file(release, error) from error
        except GuestFault as fault:
            raise GuestFault(fault.kind, f"{release.path}: {fault}") from fault

    def _release_module(self, release: Release) -> None:
        """A guest is gone: an engine may have had its memory from the heap."""
        self._modules.give_back(release)
        self._jobs.put(process.trim)


def _with_file(release: Release, error: ModuleError) -> ModuleError:
    """The error with the module's file."""
    if isinstance(error, SupersededError) and release.path.name == release.digest.hex:
        # A blob of the store is never replaced.
        return ModuleError(f"{release.path}: it is damaged: its content has another digest")
    return type(error)(f"{release.path}: {error}")
