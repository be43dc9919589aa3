"""Adapters of the engine port (edge_agent.wasm.engine), one file for each engine."""
