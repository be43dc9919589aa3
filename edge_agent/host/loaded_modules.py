"""Modules in use: each is loaded once for all guests that share it, and closed with the last.

A module comes as code that this board compiled and kept, or else as machine code of the fleet's
(docs/adr/0050), which is not used where it has ended the agent before.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from edge_agent.host.crash_marker import LOADER, Mark
from edge_agent.store.digest import Digest
from edge_agent.store.release import Release
from edge_agent.wasm.engine import Module
from edge_agent.wasm.module import ModuleInfo
from edge_agent.wasm.modulefile import ModuleFile, inspect_file

log = logging.getLogger(__name__)

Stored = Callable[[ModuleFile], Module | None]
"""Code that is loaded; None: not compiled."""

ModuleKey = tuple[Digest, int, bool]
"""Of modules that are the same code: digest, stack in bytes, whether it counts its fuel."""


class UncompiledError(Exception):
    """A module must be compiled before it can be loaded."""


class _Loaded(NamedTuple):
    """A module in use."""

    module: Module
    info: ModuleInfo
    by_code: bool  # of the fleet's
    users: int


class LoadedModules:
    """`take` belongs to one thread, `give_back` to any."""

    def __init__(self, stored: Stored, refuses_code: Callable[[Release], bool]) -> None:
        self._stored = stored
        self._refuses_code = refuses_code
        self._modules: dict[ModuleKey, _Loaded] = {}
        self._lock = threading.Lock()  # of _modules; never held while anything is waited for

    def take(
        self, release: Release, check_loadable: Callable[[ModuleInfo], None], mark: Mark
    ) -> tuple[Module, ModuleInfo]:
        """The release's module, for one more guest; `give_back` must follow.

        UncompiledError. ModuleError, also of `check_loadable`. StoreError. EngineError.
        """
        key = module_key(release)
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
        source = read_module(release)
        check_loadable(source.info)
        loaded = self._stored(replace(source, code=None))
        by_code = loaded is None and source.code is not None and self._may_use_code(release)
        if by_code:
            _runs_code(mark)
            loaded = self._stored(source)
        if loaded is None:
            raise UncompiledError
        with self._lock:  # only this thread adds: no other was faster
            self._modules[key] = _Loaded(loaded, source.info, by_code, 1)
        return loaded, source.info

    def give_back(self, release: Release) -> None:
        """A guest of the release is closed; the module is closed with the last."""
        key = module_key(release)
        with self._lock:
            found = self._modules.pop(key)
            if found.users > 1:
                self._modules[key] = found._replace(users=found.users - 1)
                return
        found.module.close()

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


def module_key(release: Release) -> ModuleKey:
    """Releases with equal keys share a module."""
    return release.digest, release.settings.limits.stack_bytes, release.metered


def read_module(release: Release) -> ModuleFile:
    """The file of a release. StoreError. ModuleError: no module; SupersededError: another one."""
    info = inspect_file(release.path, release.digest)
    stack_bytes = release.settings.limits.stack_bytes
    return ModuleFile(
        release.path, release.digest, info, stack_bytes, release.metered, release.code
    )


def _runs_code(mark: Mark) -> None:
    """On the loader's thread: what it runs now is machine code of the fleet's."""
    mark.runs_code()
    mark.memory[LOADER] = mark.index
