"""How far beyond its deadline a call goes on a busy machine, on each engine.

Most calls are a good plugin's; each hundredth is one that never ends by itself. Beside them run
four busy processes for each core. Nothing here is a runtime's: what is measured is the call
as the agent makes it, of which half of the runtime's time is the most.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from edge_agent.agent import SWITCH_INTERVAL_S
from edge_agent.errors import GuestFault
from scripts.benchmarks import guests
from scripts.benchmarks.figures import Aim, percentile
from tests.support import engines
from tests.support.assembler import DROP, FOREVER, call, i32, i64
from tests.wasm.lab import MIB, Bench, Lab, Running
from tests.wasm.plugins import NOTHING, plugin

DEADLINE_S = 1.0  # what the runtimes' default of 2 s leaves
CALLS, QUICK_CALLS = 10_000, 800
EACH = 100  # of how many calls one is hostile
BUSY_EACH = 4  # processes for each core
ENGINES = ("wasmtime", "wasmer", "wasmi")
GOOD = "C plugin"
_LONGEST = 1.2  # of the deadline; a time-out of the runtime's is twice that
_METHOD = "create_container"

_CLOCK = ("wasi_snapshot_preview1", "clock_time_get", "iIii")
_ASK = i32(1) + i64(0) + i32(512) + call(0) + DROP
_FILL = i32(65536) + i32(0) + i32(16 * MIB - 65536) + b"\xfc\x0b\x00"
HOSTILE = {
    "endless loop": plugin({_METHOD: FOREVER + NOTHING}),
    "flood of host calls": plugin(
        {_METHOD: b"\x03\x40" + _ASK + b"\x0c\x00\x0b" + NOTHING}, imports=(_CLOCK,)
    ),
    "memory.fill, 5,000 in a row": plugin({_METHOD: _FILL * 5_000 + NOTHING}, pages=256),
}


def measure(folder: Path, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Of each engine that is here and each kind of call: how long, and how it ended."""
    calls = QUICK_CALLS if quick else CALLS
    found = {}
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        for name in ENGINES:
            engine = engines.make(name)
            if isinstance(engine, str):
                continue
            (folder / name).mkdir()
            lab = Lab(Bench(engine, folder / name))
            for wasm in HOSTILE.values():  # compiled before anybody is busy
                lab.bench.module(wasm)
            with _busy(BUSY_EACH * (os.cpu_count() or 1)):
                found[name] = _engine(lab, calls, partial(_of, name, say))
            lab.close()
    finally:
        sys.setswitchinterval(before)
    return {
        "deadline_s": DEADLINE_S,
        "calls": calls,
        "busy": BUSY_EACH * (os.cpu_count() or 1),
        "engines": found,
    }


def aims(result: dict[str, Any]) -> list[Aim]:
    """The longest call of any kind, in deadlines."""
    return [
        Aim(
            f"deadline on a busy machine, {name}, longest call",
            max(kind["longest_s"] for kind in kinds.values()) / result["deadline_s"],
            _LONGEST,
            "deadlines",
        )
        for name, kinds in result["engines"].items()
    ]


def _of(engine: str, say: Callable[[str], None], text: str) -> None:
    say(f"{engine}: {text}")


def _engine(lab: Lab, calls: int, say: Callable[[str], None]) -> dict[str, Any]:
    request, good = guests.request(), lab.start(guests.c_plugin())
    times: dict[str, list[float]] = {name: [] for name in (GOOD, *HOSTILE)}
    ends: dict[str, dict[str, int]] = {name: {} for name in times}
    kinds = list(HOSTILE)
    for number in range(calls):
        name, running = GOOD, good
        if number % EACH == EACH - 1:
            say(f"{number} of {calls} calls")
            name = kinds[number // EACH % len(kinds)]
            running = lab.start(HOSTILE[name], memory_bytes=32 * MIB)
        taken, end = _timed(running, request)
        times[name].append(taken)
        ends[name][end] = ends[name].get(end, 0) + 1
        if running is not good:
            running.instance.close()
            lab.forget(running)
    return {
        name: {
            "calls": len(each),
            "median_s": percentile(sorted(each), 50),
            "p99_s": percentile(sorted(each), 99),
            "longest_s": max(each),
            "ends": ends[name],
        }
        for name, each in times.items()
    }


def _timed(running: Running, request: bytes) -> tuple[float, str]:
    """Seconds, and how it ended."""
    began = time.monotonic()
    try:
        running.call(_METHOD, request, DEADLINE_S)
    except GuestFault as fault:
        return time.monotonic() - began, fault.kind
    return time.monotonic() - began, "ok"


@contextmanager
def _busy(processes: int) -> Iterator[None]:
    """So many that never rest, and that end with this one."""
    code = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: sum(range(100_000))"
    started = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()
