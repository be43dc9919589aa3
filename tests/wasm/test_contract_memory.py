"""What instances and calls take is given back, on every engine."""

import gc
from pathlib import Path

import pytest

from edge_agent.errors import GuestFault
from tests.wasm.lab import MIB, Lab, capture, guest
from tests.wasm.plugins import ECHO, plugin

CREATE = capture("create_container")
pytestmark = pytest.mark.not_emulated("this process's memory is the emulator's")


def resident_bytes() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def turns(many: int, engine_name: str) -> int:
    """How often to do it. What narrow engines have of their own is the place of their memory, of
    which each turn would leave a page at least; the rest is the code of the wide ones."""
    return many // 4 if engine_name.endswith("narrow") else many


def test_two_thousand_instances_leave_nothing_behind(lab: Lab, engine_name: str) -> None:
    wasm = guest("bench")

    def turn() -> None:
        running = lab.start(wasm)
        running.call("create_container", CREATE)
        running.instance.close()
        lab.forget(running)

    for _ in range(200):
        turn()
    before = resident_bytes()
    for _ in range(turns(2000, engine_name)):
        turn()
    # One page of memory each would be 130 MB, one forgotten object of 4 KiB 8 MB.
    assert resident_bytes() - before < 6 * MIB


def test_a_thousand_faults_leave_nothing_behind(lab: Lab, engine_name: str) -> None:
    wasm = guest("hostile")

    def turn() -> None:
        running = lab.start(wasm)
        running.configure("create_container:oob")
        for _ in range(2):
            with pytest.raises(GuestFault):
                running.call("create_container", bytes(20_000))
        running.instance.close()
        lab.forget(running)

    for _ in range(100):
        turn()
    before = resident_bytes()
    for _ in range(turns(1000, engine_name)):
        turn()
    assert resident_bytes() - before < 6 * MIB


def test_a_finished_instance_that_is_called_again_and_again_does_not_grow(lab: Lab) -> None:
    running = lab.hostile("create_container:trap")
    before = 0
    for turn in range(20_000):
        if turn == 1000:
            before = resident_bytes()
        with pytest.raises(GuestFault):
            running.call("create_container", CREATE)
    assert resident_bytes() - before < 4 * MIB


def test_twenty_thousand_calls_leave_nothing_behind(lab: Lab) -> None:
    running = lab.start(guest("bench"))
    first = running.call("create_container", CREATE)
    before = held = 0
    for turn in range(20_000):
        if turn == 1000:
            before, held = resident_bytes(), running.instance.memory_bytes
        assert running.call("create_container", CREATE) == first
        running.lines.clear()
    assert running.instance.memory_bytes == held
    assert resident_bytes() - before < 4 * MIB


def test_a_large_reply_is_not_kept(lab: Lab) -> None:
    running = lab.start(plugin({"configure": ECHO}, pages=400))
    running.call("configure", bytes(4 * MIB))
    before = resident_bytes()
    for _ in range(4):
        assert len(running.call("configure", bytes(4 * MIB))) == 4 * MIB
    # The guest's own memory: it never frees.
    assert resident_bytes() - before < 22 * MIB
