"""The engine port on Wasmer, through the binding in native/wasmer.

The binding runs a guest's whole call at once, without the interpreter's lock; what went
wrong is put into words here. docs/adr/0029-wasmer.md.
"""

import importlib
import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.errors import EngineError, ModuleError, NotInstalledError
from edge_agent.wasm.engines.signals import come_before_the_engine
from edge_agent.wasm.module import ModuleInfo

if TYPE_CHECKING:
    from edge_agent.wasm.engines.wasmer_instance import WasmerModule

_PLENTY_BITS = 39  # 64 memories of the 8 GiB that each reserves where there is no limit
_BINDING = "0.1"  # whose functions are called here; its last number may be any


class WasmerEngine:
    """The binding. `wide`: whether memories reserve 8 GiB of addresses each; None: where
    there are plenty.
    """

    name = "wasmer"
    meters = False  # its own rations are no fuel: docs/adr/0021

    def __init__(self, wide: bool | None = None) -> None:
        self.native = _binding()
        self.version: str = self.native.VERSION
        self.wide = self._addresses_are_plenty() if wide is None else wide
        come_before_the_engine()

    def settings(self) -> str:
        settings: str = self.native.settings(self.wide)
        return settings

    def compile(self, wasm: bytes) -> bytes:
        try:
            artifact: bytes = self.native.compile(wasm, self.wide)
        except self.native.InvalidModule as error:
            raise ModuleError(str(error)) from None
        except self.native.EngineFailed as error:
            raise EngineError(str(error)) from None
        return artifact

    def load(self, artifact: Path, info: ModuleInfo, stack_bytes: int) -> "WasmerModule":
        # Only now: most nodes that look for this engine do not have it.
        from edge_agent.wasm.engines.wasmer_instance import WasmerModule

        try:
            module = self.native.Module.load(os.fspath(artifact), stack_bytes)
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
        return WasmerModule(self, module, info)

    def _addresses_are_plenty(self) -> bool:
        if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
            return False
        # Libraries lie near the end of what a process can address.
        return bool(self.native.address_bits() >= _PLENTY_BITS)


def _binding() -> Any:
    """The binding. EngineError: not installed, or another version."""
    try:
        native: Any = importlib.import_module("edge_agent_wasmer")
    except ImportError as error:
        raise NotInstalledError(
            f"wasmer is not installed ({error}): install the wheel edge-agent-wasmer for this "
            "processor (x86-64, aarch64, riscv64); docs/install.md says where it comes from"
        ) from None
    if native.BINDING.rpartition(".")[0] != _BINDING:
        raise EngineError(
            f"edge-agent-wasmer {native.BINDING} is installed; this agent needs {_BINDING}"
        )
    return native
