"""A byte stream cut anywhere, and what it costs to read it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from itertools import pairwise

from hypothesis import strategies as st

from edge_agent.errors import ProtocolError


def cut(data: bytes, at: list[int]) -> Iterator[memoryview]:
    """`data` in pieces, divided at the given places (any numbers)."""
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in at)})
    for start, stop in pairwise(places):
        yield memoryview(data[start:stop])


def cuts() -> st.SearchStrategy[list[int]]:
    """Where to cut: nowhere, anywhere, in tiny pieces."""
    anywhere = st.lists(st.integers(0, 1 << 16), max_size=12)
    tiny = st.just(list(range(1 << 12)))
    return st.one_of(anywhere, tiny)


def refusal(action: Callable[[], object]) -> str:
    """What the ProtocolError says that `action` raises; empty if it raises nothing."""
    try:
        action()
    except ProtocolError as error:
        return str(error) or "a ProtocolError without a message"
    return ""


def memory_taken(action: Callable[[], object]) -> int:
    """The most bytes that Python objects took at one time while `action` ran."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        action()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
