"""The engine port on wasmi: an interpreter in Rust, for every processor. docs/adr/0046-wasmi.md."""

from edge_agent.wasm.engines.native import NativeEngine


class WasmiEngine(NativeEngine):
    """Needs no compiler and no handler of signals; an artifact is the module, checked."""

    name = "wasmi"
