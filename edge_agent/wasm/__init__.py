"""Wasm: modules, engines, the guest ABI and what a guest may ask of its host."""
