import ctypes
import re
import threading
from pathlib import Path

import pytest

from edge_agent import process

ROOT = Path(__file__).resolve().parents[1]
AGENT = ROOT / "edge_agent"
# Programs of their own, and none of the agent's.
ELSEWHERE = ("cli", "console", "operator", "sim")


def own_stack_bytes() -> int:
    """Of the thread that asks."""
    libc = ctypes.CDLL(None)
    libc.pthread_self.restype = ctypes.c_void_p
    attributes = (ctypes.c_byte * 256)()
    size = ctypes.c_size_t()
    assert libc.pthread_getattr_np(ctypes.c_void_p(libc.pthread_self()), attributes) == 0
    libc.pthread_attr_getstacksize(attributes, ctypes.byref(size))
    libc.pthread_attr_destroy(attributes)
    return size.value


@pytest.mark.parametrize("wanted", [128 << 10, 512 << 10, 8 << 20])
def test_a_thread_has_the_stack_that_it_was_given_and_the_next_one_the_usual(wanted: int) -> None:
    found: list[int] = []
    process.start(lambda: found.append(own_stack_bytes()), name="x", stack_bytes=wanted).join()
    # glibc gives out again what a thread before has left, if that is at most four times as large.
    assert wanted * 0.9 < found[0] <= 4 * wanted + (64 << 10)
    assert threading.stack_size() == 0


def test_threads_that_are_started_at_once_do_not_mix_their_stacks_up() -> None:
    found: dict[int, set[int]] = {128 << 10: set(), 2 << 20: set()}

    def starter(size: int) -> None:
        for _ in range(50):
            process.start(
                lambda: found[size].add(own_stack_bytes()), name="x", stack_bytes=size
            ).join()

    starters = [threading.Thread(target=starter, args=(size,)) for size in found]
    for each in starters:
        each.start()
    for each in starters:
        each.join()
    assert max(found[128 << 10]) < 1 << 20 < min(found[2 << 20])


def test_every_thread_of_the_agent_says_how_large_its_stack_is() -> None:
    by_hand = [
        str(path.relative_to(AGENT))
        for path in AGENT.rglob("*.py")
        if path.relative_to(AGENT).parts[0] not in ELSEWHERE
        and re.search(r"threading\.Thread\(", path.read_text())
    ]
    assert by_hand == ["process.py"]
