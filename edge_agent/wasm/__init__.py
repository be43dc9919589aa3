"""Wasm: modules, engines, the guest ABI and the host functions."""
