"""Turns a loop until something holds."""

from __future__ import annotations

from collections.abc import Callable

from edge_agent.loop import Loop
from tests.support.wait import TIMEOUT_S


def turn_until(loop: Loop, condition: Callable[[], bool], what: str) -> None:
    """Turn `loop` until `condition()`. AssertionError, with `what`, when patience ends."""
    late: list[bool] = []
    timer = loop.call_later(TIMEOUT_S, lambda: late.append(True))
    while not condition():
        assert not late, f"waited {TIMEOUT_S:g} s for {what}"
        loop.turn()
    timer.cancel()
