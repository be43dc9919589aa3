"""The engine port: what an adapter in `engines/` offers the rest of the agent.

Compiling and running are apart: `compile` is called in a short-lived child process only
(edge_agent.wasm.compiler), the agent loads the artifact that it left. A module is
shared by its instances; an instance belongs to one call at a time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from edge_agent.wasm.module import FuncType, ModuleInfo

MEMORY_EXPORT = "memory"
FUEL_EXPORT = "edge-agent:fuel"  # the global of a metered module, edge_agent.wasm.metering
# Of metering, to be raised with every change of what comes out of it: it is part of the keys
# under which compiled modules are kept.
FUEL_RULES = 2


def metered_settings(settings: str) -> str:
    """An engine's settings, of code that counts its fuel."""
    return f"{settings},fuel={FUEL_RULES}"


class Guest(Protocol):
    """The running instance, as a host function sees it. Raises GuestFault.

    What a host function raises ends the call and the instance: a GuestFault as it is,
    GuestExit as such, any other Exception as a GuestFault that names the function.
    """

    def read(self, pointer: int, size: int) -> bytes:
        """Copy `size` bytes out of the guest's memory."""

    def write(self, pointer: int, data: bytes) -> None:
        """Copy `data` into the guest's memory."""

    def allocate(self, size: int) -> int:
        """A pointer to `size` fresh bytes, from the guest's own malloc."""

    def seconds_left(self) -> float:
        """What remains of the time for this call."""


@dataclass(frozen=True, slots=True)
class HostFunction:
    """A function that a guest may import. It takes the guest and unsigned integers."""

    type: FuncType
    call: Callable[..., int | None]


HostFunctions = Mapping[tuple[str, str], HostFunction]


class GuestExit(Exception):
    """Raised by the host function `proc_exit`; unwinds the guest. `code` 0 is no failure."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the guest called proc_exit({code})")
        self.code = code


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of one instance: bytes of linear memory and of a reply.

    `fuel`: instructions for each call of a method (edge_agent.wasm.metering), which only
    a module that is metered counts; None: no limit.
    """

    memory_bytes: int
    reply_bytes: int
    fuel: int | None = None


class Instance(Protocol):
    """One running copy of a module."""

    def call(self, export: str, request: bytes, deadline_s: float) -> bytes:
        """Run one export of the guest ABI: request bytes -> reply bytes.

        GuestError: the guest answered with an error and lives on. GuestFault: it is
        finished and every later call raises the like again; `closed` after `close`.
        `deadline_s` is kept to within 50 ms.
        """

    @property
    def memory_bytes(self) -> int:
        """Linear memory held now."""

    @property
    def fuel_used(self) -> int:
        """By the last call; all of a limit that was exceeded. 0 without a limit of fuel."""

    def close(self) -> None:
        """Give the memory back; calls fail afterwards. Harmless when repeated.

        RuntimeError: a call is running.
        """


class Module(Protocol):
    """Code that is loaded and can be instantiated any number of times."""

    def instantiate(self, bounds: Bounds, functions: HostFunctions, deadline_s: float) -> Instance:
        """A fresh instance, initialised, its ABI version checked. GuestFault: it failed.

        ModuleError: an import is not in `functions`, or the memory is over its bound.
        EngineError: this process cannot run it, such as for its own stack's size, or the
        fuel is bounded and the module is not metered.
        """

    def close(self) -> None:
        """Release the code once the last instance is closed."""


class Engine(Protocol):
    """One Wasm engine in this process."""

    name: str
    version: str

    def settings(self) -> str:
        """The settings that an artifact depends on beside module, engine and version."""

    def compile(self, wasm: bytes) -> bytes:
        """An artifact that `load` takes. Slow and hungry. ModuleError: not valid Wasm."""

    def load(self, artifact: Path, info: ModuleInfo, stack_bytes: int) -> Module:
        """Map an artifact of this engine, made of the module `info`. EngineError: it is not.

        The bytes are trusted: only what this node compiled, or the fleet for it, may come here.
        """


@runtime_checkable
class Portable(Protocol):
    """An engine whose artifacts other machines can load."""

    def features(self) -> frozenset[str] | None:
        """The processor's features that artifacts may need; None: the engine's library does not
        tell them, and is treated as one without such artifacts."""

    def compile_for(self, wasm: bytes, target: str, wide: bool) -> bytes:
        """An artifact for every processor of this kind (`uname -m`) that has its features.

        `wide`: as in the engine's settings. ModuleError, EngineError.
        """

    def settings_for(self, wide: bool) -> str:
        """`settings` of an engine that is set so."""

    def targets(self) -> dict[str, tuple[str, ...]]:
        """The kinds of processors, with the features that artifacts for them assume."""
