"""The benchmark: how fast and how small, beside a native daemon and upstream's own Wasm host.

Run by scripts/bench; docs/benchmark.md tells the method. No test asserts a duration.
"""
