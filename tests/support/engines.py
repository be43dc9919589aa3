"""The engines that the contract suite runs on. The only place that names them."""

from collections.abc import Callable

from edge_agent.errors import EngineError
from edge_agent.wasm.engine import Engine


def _wasmtime(wide: bool) -> Engine:
    from edge_agent.wasm.engines.wasmtime import WasmtimeEngine

    return WasmtimeEngine(wide)


def _wasmer(wide: bool) -> Engine:
    from edge_agent.wasm.engines.native import WasmerEngine

    return WasmerEngine(wide)


def _wasmi() -> Engine:
    from edge_agent.wasm.engines.native import WasmiEngine

    return WasmiEngine()


# Both ways to reserve a memory's addresses make different code (docs/adr/0006, 0029).
ENGINES: dict[str, Callable[[], Engine]] = {
    "wasmtime": lambda: _wasmtime(True),
    "wasmtime-narrow": lambda: _wasmtime(False),
    "wasmer": lambda: _wasmer(True),
    "wasmer-narrow": lambda: _wasmer(False),
    "wasmi": _wasmi,
}


# What is looked for of each, by the name that is configured: any of these.
PACKAGES = {
    "wasmtime": ("wasmtime",),
    "wasmer": ("edge_agent_engines",),
    "wasmi": ("edge_agent_engines",),
}


def make(name: str) -> Engine | str:
    """The engine, or the reason why it is not here."""
    try:
        return ENGINES[name]()
    except EngineError as error:
        return f"needs {name}: {error}"
