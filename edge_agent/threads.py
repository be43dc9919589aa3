"""Threads with stacks of a chosen size.

A default stack reserves 8 MB of addresses, of which a 32-bit board has few, and what a deep
call has once touched stays.
"""

import threading
from collections.abc import Callable

# The size is the process's: between setting and starting, another start would take it.
_lock = threading.Lock()


def start(target: Callable[[], object], *, name: str, stack_bytes: int) -> threading.Thread:
    """A daemon thread, started. RuntimeError: there is none to be had."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    with _lock:
        before = threading.stack_size(stack_bytes)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
    return thread
