"""The engine port on Wasmer and wasmi, by the library of native/engines.

Wasmer runs machine code by Cranelift (docs/adr/0029-wasmer.md); wasmi is an interpreter in Rust,
for every processor (docs/adr/0046-wasmi.md). Their modules and instances, which a node without
the library does not load: edge_agent.wasm.engines.native_instance.
"""

import importlib
import os
import resource
from typing import TYPE_CHECKING, Any

from edge_agent.errors import EngineError, ModuleError, NotInstalledError
from edge_agent.wasm.engine_selection import enable_faulthandler_first

if TYPE_CHECKING:  # a compiler's process does without
    from pathlib import Path

    from edge_agent.wasm.engines.native_instance import NativeModule
    from edge_agent.wasm.module import ModuleInfo


_BINDING = "0.2"  # whose functions are called here; its last number may be any


class NativeEngine:
    """An engine of the library. EngineError: it is not installed, or lacks this engine."""

    name: str
    version: str
    wide = False  # whether memories reserve 8 GiB of addresses each

    def __init__(self) -> None:
        self.native = _library()
        version = getattr(self.native, self.name.upper(), None)
        if version is None:
            raise NotInstalledError(f"there is no {self.name} for this processor")
        self.version = version

    def settings(self) -> str:
        settings: str = self.native.settings(self.name, self.wide)
        return settings

    def compile(self, wasm: bytes) -> bytes:
        return self.compiled(wasm, self.wide)

    def compiled(self, wasm: bytes, *how: object) -> bytes:
        """The artifact that the library compiles from a module. ModuleError, EngineError."""
        try:
            artifact: bytes = self.native.compile(self.name, wasm, *how)
        except self.native.InvalidModule as error:
            raise ModuleError(str(error)) from None
        except self.native.EngineFailed as error:
            raise EngineError(str(error)) from None
        return artifact

    def load(self, artifact: "Path", info: "ModuleInfo", stack_bytes: int) -> "NativeModule":
        # Only now: most nodes that look for an engine do not have it.
        from edge_agent.wasm.engines.native_instance import NativeModule

        try:
            module = self.native.Module.load(self.name, os.fspath(artifact), stack_bytes)
        except self.native.EngineFailed as error:
            raise EngineError(
                f"{artifact} is no artifact of {self.name} {self.version}: {error}"
            ) from None
        # What is called has the types that `info` says; the rest may be anything.
        found = {name: (tuple(took), tuple(gave)) for name, took, gave in module.functions()}
        for name, kind in info.functions.items():
            if {*kind.params, *kind.results} <= {"i32", "i64"} and found.get(name) != (
                kind.params,
                kind.results,
            ):
                raise EngineError(f"{artifact} was made of another module")
        return NativeModule(self, module, info)


def _library() -> Any:
    """The library. EngineError: not installed, or another version."""
    if os.uname().machine.startswith("armv6") and not _is_for_armv6():
        raise NotInstalledError(  # its code would end the process
            "the edge-agent-engines that is installed is for ARMv7 and later, and this processor "
            "is ARMv6; docs/install.md tells how to build the wheel for it"
        )
    try:
        native: Any = importlib.import_module("edge_agent_engines")
    except ImportError as error:
        raise NotInstalledError(
            f"edge-agent-engines is not installed ({error}): install the wheel for this "
            "processor; docs/install.md says where it comes from"
        ) from None
    if native.BINDING.rpartition(".")[0] != _BINDING:
        raise EngineError(
            f"edge-agent-engines {native.BINDING} is installed; this agent needs {_BINDING}"
        )
    return native


def _is_for_armv6() -> bool:
    """Whether the wheel that is installed says so; where none is, the import will say it."""
    from importlib.metadata import PackageNotFoundError, distribution  # on such boards alone

    try:
        return "linux_armv6l" in (distribution("edge-agent-engines").read_text("WHEEL") or "")
    except PackageNotFoundError:
        return True


_PLENTY_BITS = 39  # 64 memories of the 8 GiB that each reserves where there is no limit


class WasmerEngine(NativeEngine):
    """`wide`: whether memories reserve 8 GiB of addresses each; None: where there are plenty."""

    name = "wasmer"

    def __init__(self, wide: bool | None = None) -> None:
        super().__init__()
        self.wide = self._addresses_are_plenty() if wide is None else wide
        enable_faulthandler_first()

    def _addresses_are_plenty(self) -> bool:
        if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
            return False
        # Libraries lie near the end of what a process can address.
        return bool(self.native.address_bits() >= _PLENTY_BITS)

    def features(self) -> frozenset[str] | None:
        # The library of 0.2.0 runs no other processor's code, and makes none.
        features = getattr(self.native, "features", None)
        return frozenset(features()) if features is not None else None

    def targets(self) -> dict[str, tuple[str, ...]]:
        return {name: tuple(features) for name, features in self.native.targets()}

    def settings_for(self, wide: bool) -> str:
        settings: str = self.native.settings(self.name, wide)
        return settings

    def compile_for(self, wasm: bytes, target: str, wide: bool) -> bytes:
        return self.compiled(wasm, wide, target)


class WasmiEngine(NativeEngine):
    """Needs no compiler and no handler of signals; an artifact is the module, checked."""

    name = "wasmi"
