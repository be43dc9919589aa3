"""What a replacement costs those who create containers: 500 a second, before and during it.

The agent is a process of its own; the runtime is simulated, asking and timing in this one.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edge_agent.sim.runtime import SimRuntime
from scripts.benchmarks.figures import Aim, latency
from tests.host.versions import version
from tests.support.agent import Agent
from tests.support.wait import TIMEOUT_S

IDENTITY = "10-bench"
EVENTS_PER_S = 500
POD_CONTAINERS = 50  # then it goes: a runtime that only grows is not one
LOOK_S = 0.25  # between two questions to the agent, which takes a moment to answer them
STEADY, SWAPPED = "undisturbed", "while replaced"


@dataclass
class Phase:
    """What became of its events."""

    durations_ns: list[int] = field(default_factory=list)
    seconds: float = 0.0
    unanswered: int = 0
    twice: int = 0
    failed: int = 0
    replaced: int = 0


def measure(folder: Path, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """A steady time, then as many replacements as there are, under the same load."""
    steady_s, swaps = (5.0, 4) if quick else (20.0, 25)
    phases = {STEADY: Phase(), SWAPPED: Phase()}
    with (
        SimRuntime(folder / "nri.sock") as runtime,
        Agent(folder / "agent", sockets=[folder / "nri.sock"], level="warning") as agent,
    ):
        agent.put(IDENTITY, version(0))
        agent.wait_running(IDENTITY)
        say("undisturbed")
        ends = time.monotonic() + steady_s
        _create(runtime, phases[STEADY], lambda: time.monotonic() > ends)
        with _replacing(agent, swaps, say) as done:
            _create(runtime, phases[SWAPPED], done.is_set)
        phases[SWAPPED].replaced = int(agent.entry(IDENTITY)["restarts"])
    return {
        "asked_per_s": EVENTS_PER_S,
        "contestants": {
            name: {
                **asdict(latency([phase.durations_ns])),
                "created_per_s": len(phase.durations_ns) / phase.seconds,
                "unanswered": phase.unanswered,
                "twice": phase.twice,
                "failed": phase.failed,
                "replaced": phase.replaced,
            }
            for name, phase in phases.items()
        },
    }


def aims(result: dict[str, Any]) -> list[Aim]:
    """None in numbers: the counts must be 0, and the tests see to that."""
    del result
    return []


def _create(runtime: SimRuntime, phase: Phase, over: Callable[[], bool]) -> None:
    """Create containers at the rate, as far as the runtime gets its answers."""
    began = due = time.monotonic()
    pod, number = runtime.run_pod("load").pod, 0
    while not over():
        due += 1 / EVENTS_PER_S
        time.sleep(max(0.0, due - time.monotonic()))
        if number == POD_CONTAINERS:
            runtime.stop_pod(pod)
            pod, number = runtime.run_pod("load").pod, 0
        number += 1
        asked = time.perf_counter_ns()
        outcome = runtime.create_container(pod, f"c{number}", start=False)
        phase.durations_ns.append(time.perf_counter_ns() - asked)
        # An answer of nothing is that of a session which watches or leaves.
        answers = sum(bool(answer.reply) for answer in outcome.answers)
        phase.failed += not outcome.ok
        phase.unanswered += outcome.ok and answers == 0
        phase.twice += answers > 1
    runtime.stop_pod(pod)
    phase.seconds = time.monotonic() - began


@contextmanager
def _replacing(agent: Agent, swaps: int, say: Callable[[str], None]) -> Iterator[threading.Event]:
    """Put one version after the other into the plugin folder; the event tells the end."""
    done = threading.Event()
    errors: list[Exception] = []

    def replace() -> None:
        try:
            for number in range(1, swaps + 1):
                say(f"replacement {number} of {swaps}")
                agent.put(IDENTITY, version(number % 10))
                _until_replaced(agent, number)
        except Exception as error:
            errors.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        yield done
    finally:
        thread.join()
    if errors:
        raise errors[0]


def _until_replaced(agent: Agent, times: int) -> None:
    ends = time.monotonic() + TIMEOUT_S
    while agent.entry(IDENTITY)["restarts"] < times:
        if time.monotonic() > ends:
            raise RuntimeError(f"not replaced {times} times: {agent.entry(IDENTITY)}")
        time.sleep(LOOK_S)
