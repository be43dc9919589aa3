"""Turns a loop until something holds."""

from __future__ import annotations

from collections.abc import Callable

from edge_agent.loop import Loop

PATIENCE_S = 60.0  # only a test that fails waits as long


def turn_until(loop: Loop, condition: Callable[[], bool], what: str) -> None:
    """Turn `loop` until `condition()`. AssertionError, with `what`, when patience ends."""
    late: list[bool] = []
    timer = loop.call_later(PATIENCE_S, lambda: late.append(True))
    while not condition():
        assert not late, f"waited {PATIENCE_S:g} s for {what}"
        loop.turn()
    timer.cancel()
