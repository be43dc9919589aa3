"""The one place where tests wait by looking again."""

import time
from collections.abc import Callable

# Generous: a busy machine of two cores compiles a Go module for half a minute. A test that passes
# never waits that long.
TIMEOUT_S = 240.0


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = TIMEOUT_S) -> None:
    """Return once `condition()` is true; AssertionError naming `what` if it never is."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s in vain: {what}"
        time.sleep(0.01)
