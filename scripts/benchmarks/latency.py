"""How long a CreateContainer takes at the runtime, contestant by contestant, interleaved."""

import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_agent.errors import EngineError
from edge_agent.wasm.engine_selection import engine_names, select_engine
from scripts.benchmarks import guests
from scripts.benchmarks.contestants import (
    FLOOR,
    FLOOR_PYTHON,
    NATIVE,
    WAZERO,
    Agent,
    Contestant,
    Floor,
    NativeDaemon,
    PythonFloor,
    WazeroHost,
)
from scripts.benchmarks.figures import Aim, latency, p99_ratio, ratio
from scripts.benchmarks.process import cpu_seconds
from tests.support.mosquitto import MOSQUITTO, Mosquitto

WARMUP = 50  # before the first round: page faults and Go's first collections

AGENT_C, AGENT_GO = "edge-agent, C plugin", "edge-agent, Go Wasm plugin"
AGENT_EMPTY = "edge-agent, empty plugin"
ON = "{}, on {}".format  # a contestant, with another engine than "auto" takes
LIMITED = ", log limit as by default"
MQTT = ", results over MQTT"


def measure(folder: Path, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Rounds of all contestants in an order that is drawn anew each round."""
    rounds, events = (4, 100) if quick else (20, 300)
    request = guests.request()
    times: dict[str, list[list[int]]] = {}
    proof: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        contestants = {}
        for name, contestant in _contestants(folder, stack).items():
            say(f"starting: {name}")
            contestants[name] = stack.enter_context(contestant)
            times[name] = []
        for contestant in contestants.values():
            contestant.runtime.bench(WARMUP, request)
        lines = {name: each.log_lines() for name, each in contestants.items()}
        cpu = {name: cpu_seconds(each.pid) for name, each in contestants.items()}
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            for name in random.sample(list(contestants), len(contestants)):
                found = contestants[name].runtime.bench(events, request)
                if found.errors:
                    raise RuntimeError(f"{name}: {found.errors[0]}")
                if name != AGENT_EMPTY and not (found.last.annotations and found.last.env):
                    raise RuntimeError(f"{name}: the container was not adjusted")
                times[name].append(found.latencies_ns)
        for name, contestant in contestants.items():
            proof[name] = {
                "log_lines_per_event": (contestant.log_lines() - lines[name]) / (rounds * events),
                "cpu_us_per_event": (cpu_seconds(contestant.pid) - cpu[name])
                / (rounds * events)
                * 1e6,
            }
    without = {name: name.removesuffix(MQTT) for name in times if name.endswith(MQTT)}
    return {
        "publishing": {
            name: {
                "cpu_us": proof[name]["cpu_us_per_event"] - proof[alone]["cpu_us_per_event"],
                "p99_to_without": asdict(p99_ratio(times[name], times[alone])),
            }
            for name, alone in without.items()
        },
        "request_bytes": len(request),
        "engines": engines(),
        "rounds": rounds,
        "events_per_round": events,
        "contestants": {
            name: {
                **asdict(latency(found)),
                "to_native": asdict(ratio(found, times[NATIVE])),
                "p99_to_native": asdict(p99_ratio(found, times[NATIVE])),
                "to_floor": asdict(ratio(found, times[FLOOR])),
                "to_wazero": asdict(ratio(found, times[WAZERO])),
                "p99_to_wazero": asdict(p99_ratio(found, times[WAZERO])),
                **proof[name],
            }
            for name, found in times.items()
        },
    }


def aims(result: dict[str, Any]) -> list[Aim]:
    """The C plugin against the native daemon, the Go plugin against wazero and the daemon."""
    found = result["contestants"]
    made = [Aim("Go plugin / wazero host", found[AGENT_GO]["to_wazero"]["median"], 0.6, "")]
    for engine in result["engines"]:
        # An interpreter is not meant to be as fast with code as large as Go's.
        for kind, limit in (("C", 1.0), ("Go", 2.5 if engine == "wasmi" else 1.1)):
            ratio_ = found[contestant(kind, engine, result["engines"])]["to_native"]["median"]
            made.append(Aim(f"{engine}: {kind} plugin / native daemon", ratio_, limit, ""))
    for name, limit in ((AGENT_C, 1.6), (AGENT_EMPTY, 1.25)):
        made.append(Aim(f"{name} / floor", found[name]["to_floor"]["median"], limit, ""))
    published = result["publishing"].get(AGENT_C + MQTT)  # where there is a broker
    if published:
        p99 = published["p99_to_without"]["median"]
        made.append(Aim("publishing a result, CPU", published["cpu_us"], 40, "us"))
        made.append(Aim("C plugin, p99 with MQTT / without", p99, 1.2, ""))
    return made


def engines() -> list[str]:
    """Those that are installed, first the one that "auto" takes."""
    found = []
    for name in engine_names():
        try:
            select_engine(name)
        except EngineError:
            continue
        found.append(name)
    return found


def contestant(kind: str, engine: str, installed: list[str]) -> str:
    """Under which name the C or Go plugin on this engine is measured."""
    name = {"C": AGENT_C, "Go": AGENT_GO}[kind]
    return name if engine == installed[0] else ON(name, engine)


def _contestants(folder: Path, stack: ExitStack) -> dict[str, Contestant]:
    c = {"10-bench": guests.c_plugin()}
    go = {"10-annotator": guests.go_plugin()}
    found: dict[str, Contestant] = {
        FLOOR: Floor(folder / "floor"),
        FLOOR_PYTHON: PythonFloor(folder / "floor-python"),
        NATIVE: NativeDaemon(folder / "native"),
        WAZERO: WazeroHost(folder / "wazero", "10-annotator", guests.go_plugin()),
        AGENT_C: Agent(folder / "c", c),
        AGENT_GO: Agent(folder / "go", go),
        AGENT_EMPTY: Agent(folder / "empty", {"10-empty": guests.empty_plugin()}),
        AGENT_C + LIMITED: Agent(folder / "c-limited", c, limits=""),
        AGENT_GO + LIMITED: Agent(folder / "go-limited", go, limits=""),
    }
    for engine in engines()[1:]:
        found[ON(AGENT_C, engine)] = Agent(folder / f"c-{engine}", c, engine=engine)
        found[ON(AGENT_GO, engine)] = Agent(folder / f"go-{engine}", go, engine=engine)
    if MOSQUITTO is not None:
        (folder / "broker").mkdir(parents=True)
        broker = stack.enter_context(Mosquitto(folder / "broker"))
        section = f'[mqtt]\nurl = "mqtt://127.0.0.1:{broker.port}"\n'
        found[AGENT_C + MQTT] = Agent(folder / "c-mqtt", c, more=section)
        found[AGENT_GO + MQTT] = Agent(folder / "go-mqtt", go, more=section)
    return found
