"""Which engine runs the guests: the one that is configured, or the best that is installed.

The compiler's process imports this too, and adapters do: it stays small.
"""

import faulthandler
import importlib
from typing import TYPE_CHECKING, NamedTuple, cast

from edge_agent.errors import EngineError, NotInstalledError

if TYPE_CHECKING:
    from edge_agent.wasm.engine import Engine  # a compiler's process does without

AUTO = "auto"


class Adapter(NamedTuple):
    """Where an engine's adapter is. Making it raises EngineError, with advice, if the
    engine itself is not installed; nothing is imported before."""

    name: str
    module: str
    type: str


# In the order of preference of "auto". An engine without a line here has no adapter yet.
ADAPTERS = (
    Adapter("wasmer", "edge_agent.wasm.engines.native", "WasmerEngine"),
    Adapter("wasmtime", "edge_agent.wasm.engines.wasmtime", "WasmtimeEngine"),
    Adapter("wasmi", "edge_agent.wasm.engines.native", "WasmiEngine"),
)


# What an engine of earlier versions is answered with.
REPLACED = {"wasm3": "wasmi"}


def select_engine(
    name: str, adapters: tuple[Adapter, ...] = ADAPTERS, *, advice: bool = False
) -> "tuple[Engine, str]":
    """The engine called `name`, or the first of "auto" that works, and why it is this one.

    With `advice` the reason also tells what would have been preferred, and how to install it.
    EngineError: it is not installed, or none is; the message says what to install.
    """
    if name in REPLACED:
        engine, why = select_engine(REPLACED[name], adapters)
        return engine, f"{why}: {name} is no more, {replacement_advice(name)}"
    if name != AUTO:
        for adapter in adapters:
            if adapter.name == name:
                engine = _make(adapter)
                return engine, f"{engine.name} {engine.version}, as configured"
        raise EngineError(
            f"this version of the agent has no adapter for the engine {name!r}; "
            f'set engine to "{AUTO}" or one of {", ".join(engine_names(adapters))}'
        )
    passed_over: list[str] = []
    not_installed: list[str] = []
    for adapter in adapters:
        try:
            engine = _make(adapter)
        except EngineError as error:
            absent = isinstance(error, NotInstalledError)
            (not_installed if absent else passed_over).append(f"{adapter.name}: {error}")
            continue
        why = f"{engine.name} {engine.version}, the first that is installed"
        return engine, "; ".join([why, *passed_over, *(not_installed if advice else [])])
    raise EngineError(f"no Wasm engine works here: {'; '.join([*passed_over, *not_installed])}")


def replacement_advice(name: str) -> str:
    """What to write in the configuration for an engine of earlier versions; "" for any other."""
    return f'set engine to "{AUTO}" or "{REPLACED[name]}"' if name in REPLACED else ""


def engine_names(adapters: tuple[Adapter, ...] = ADAPTERS) -> list[str]:
    """The names of the engines that this version can use."""
    return [adapter.name for adapter in adapters]


def _make(adapter: Adapter) -> "Engine":
    try:
        made = getattr(importlib.import_module(adapter.module), adapter.type)()
    except ImportError as error:
        raise EngineError(f"the engine {adapter.name} cannot be loaded: {error}") from error
    return cast("Engine", made)


def enable_faulthandler_first() -> None:
    """Let Python's fault handler take the signals first, and never again.

    Traps are signals to Wasmtime and Wasmer. Enabled after them, the fault handler takes
    traps for crashes and ends the process; enabled already, it passes them on and ignores
    that it is enabled later.
    """
    if not faulthandler.is_enabled():
        faulthandler.enable(file=2)
