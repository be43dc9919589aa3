"""Versions of one plugin that can be told apart: each adds an annotation of its own."""

from __future__ import annotations

from tests.support.agent import GUESTS
from tests.support.goanswers import Made

_KEY = b"edge.bench/plugin"


def version(number: int) -> bytes:
    """The benchmark's guest, its annotation renamed; as long as before, so still a module."""
    module = (GUESTS / "bench.wasm").read_bytes()
    assert module.count(_KEY) == 1
    return module.replace(_KEY, b"edge.bench/plg%03d" % number)


def versions_of(made: Made) -> list[int]:
    """Which versions adjusted this container."""
    prefix = "edge.bench/plg"
    return [int(key.removeprefix(prefix)) for key in made.annotations if key.startswith(prefix)]
