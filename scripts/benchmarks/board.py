"""What a board has to spare: memory on each engine, an update, a load from the store.

All agents of all engines live side by side, so that they rest and work in the same minutes.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from scripts.benchmarks import guests
from scripts.benchmarks.contestants import Agent
from scripts.benchmarks.figures import Aim
from scripts.benchmarks.latency import engines
from scripts.benchmarks.process import anonymous, children, mappings, memory
from tests.support.agent import Agent as Watched
from tests.support.gobuild import ROOT
from tests.support.gopeers import NriRuntime
from tests.support.mosquitto import MOSQUITTO, OPENSSL, Certificates, Mosquitto

MB = 1e6
REST_S = 300.0  # after the start: as the agents that this is compared with are measured
SETTLE_S = 2.0
LOOK_S = 0.001  # between two looks at a process while it updates a plugin
MORE_C, MORE_GO = 10, 2  # plugins beside the first
UPDATED = "10-updated"


class _Most(NamedTuple):
    """MB that a process may take with one C plugin and MQTT over TLS, and each further plugin."""

    one_c: float = 32.0
    further_c: float = 0.5
    further_go_dirty: float = 11.0


# wasmi keeps the code of its guests in private memory, where the others map a file.
_MOST = {"wasmi": _Most(one_c=25.0, further_c=0.4, further_go_dirty=40.0)}


def measure(folder: Path, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """For each engine: processes after their events, an update, loads."""
    if MOSQUITTO is None or OPENSSL is None:
        raise RuntimeError("mosquitto and openssl are needed: MQTT over TLS is part of the figures")
    events = 1000 if quick else 10_000
    rest_s = 0.0 if quick else REST_S
    request = guests.request()
    found: dict[str, Any] = {"events": events, "rest_s": rest_s, "engines": {}}
    with ExitStack() as stack:
        broker = _Broker(folder / "broker", stack)
        agents: dict[tuple[str, str], Agent] = {}
        for engine in engines():
            for what, agent in _agents(folder / engine, engine, broker.section).items():
                say(f"starting: {engine}, {what}")
                agents[engine, what] = stack.enter_context(agent)
        say(f"resting for {rest_s:.0f} s")
        time.sleep(rest_s)
        for (engine, what), agent in agents.items():
            say(f"{engine}, {what}: {events} events")
            result = agent.runtime.bench(events, request)
            if result.errors:
                raise RuntimeError(f"{engine}, {what}: {result.errors[0]}")
        time.sleep(SETTLE_S)
        figures = {key: _memory(agent.pid) for key, agent in agents.items()}
        taken = {engine: mappings(agents[engine, "C"].pid) for engine in engines()}
    for engine in engines():
        say(f"{engine}: an update, and loads from the store")
        further_go = _each(figures[engine, "more Go"], figures[engine, "Go"], MORE_GO)
        found["engines"][engine] = {
            "C": figures[engine, "C"],
            "Go": figures[engine, "Go"],
            "further C": _each(figures[engine, "more C"], figures[engine, "C alone"], MORE_C),
            "further Go": further_go,
            "mappings": taken[engine],
            "update": _update(folder / engine / "update", engine),
            "load": _loads(folder / engine / "load", engine, 3 if quick else 15),
        }
    return found


def aims(result: dict[str, Any]) -> list[Aim]:
    """Those of small boards, engine by engine."""
    made = []
    for engine, found in result["engines"].items():
        further_c, further_go, update = found["further C"], found["further Go"], found["update"]
        most = _MOST.get(engine, _Most())
        for what, figure, limit, unit in (
            (
                "one C plugin, MQTT over TLS, PSS without another Python",
                found["C"]["alone"] / MB,
                most.one_c,
                "MB",
            ),
            ("each further C plugin, PSS", further_c["pss"] / MB, most.further_c, "MB"),
            (
                "each further Go plugin, private dirty",
                further_go["private_dirty"] / MB,
                most.further_go_dirty,
                "MB",
            ),
            ("each further Go plugin, PSS", further_go["pss"] / MB, 24, "MB"),
            ("update of a Go plugin, peak above before", update["over"] / MB, 3, "MB"),
            ("load of a Go plugin from the store", found["load"]["code_ms"], 50, "ms"),
        ):
            made.append(Aim(f"{engine}: {what}", figure, limit, unit))
    return made


class _Broker:
    """With TLS; `section` is the agent's configuration of it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        folder.mkdir(parents=True)
        certificates = Certificates(folder)
        broker = stack.enter_context(Mosquitto(folder, *certificates.settings()))
        self.section = (
            f'[mqtt]\nurl = "mqtts://localhost:{broker.port}"\nca_file = "{certificates.ca}"'
        )


def _agents(folder: Path, engine: str, mqtt: str) -> dict[str, Agent]:
    """The first with a broker, as boards run it. What plugins take is measured without one: more
    plugins make more results."""
    many_c, many_go = guests.c_plugins(1 + MORE_C), guests.go_plugins(1 + MORE_GO)
    one_c, one_go = dict([next(iter(many_c.items()))]), dict([next(iter(many_go.items()))])
    return {
        "C": Agent(folder / "c", one_c, engine=engine, more=mqtt),
        "C alone": Agent(folder / "c-alone", one_c, engine=engine),
        "more C": Agent(folder / "more-c", many_c, engine=engine),
        "Go": Agent(folder / "go", one_go, engine=engine),
        "more Go": Agent(folder / "more-go", many_go, engine=engine),
    }


def _memory(pid: int) -> dict[str, int]:
    return memory(pid) | {"alone": sum(each["alone"] for each in mappings(pid).values())}


def _each(many: dict[str, int], one: dict[str, int], further: int) -> dict[str, float]:
    return {key: (many[key] - one[key]) / further for key in one}


# ---- an update ----


@dataclass
class _Peaks:
    """Bytes of anonymous memory, of the process and of the largest of its children."""

    agent: int = 0
    child: int = 0


@contextmanager
def _watched(pid: int) -> Iterator[_Peaks]:
    """Look at a process all the while."""
    peaks, over = _Peaks(), threading.Event()

    def look() -> None:
        while not over.is_set():
            peaks.agent = max(peaks.agent, anonymous(pid))
            for child in children(pid):
                peaks.child = max(peaks.child, anonymous(child))
            over.wait(LOOK_S)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peaks
    finally:
        over.set()
        thread.join()


def _update(folder: Path, engine: str) -> dict[str, float]:
    """A Go plugin of 8 MB is replaced by another one.

    Make-before-break holds the second guest beside the first; what a guest holds is measured
    too: the same code again, as a second plugin.
    """
    (_, (first, config)), (_, (second, _)) = guests.go_plugins(2).items()
    socket = folder.parent / "update.sock"
    with (
        NriRuntime(socket, owners=False) as runtime,
        Watched(
            folder,
            sockets=[socket],
            plugins={UPDATED: first},
            configs={UPDATED: config},
            level="info",
            engine=engine,
        ) as agent,
    ):
        agent.wait_running(UPDATED)
        _settle(runtime)
        before = anonymous(agent.pid)
        with _watched(agent.pid) as peaks:
            agent.put(UPDATED, second)
            agent.wait_running(UPDATED)
            _settle(runtime)
        after = anonymous(agent.pid)
        agent.put("11-again", second, config=config)
        agent.wait_running(UPDATED, "11-again")
        guest = anonymous(agent.pid) - after  # as large as it is before it has served anything
    return {
        "before": before,
        "peak": peaks.agent,
        "after": after,
        "guest": guest,
        "over": peaks.agent - before,
        "child_peak": peaks.child,
    }


def _settle(runtime: NriRuntime) -> None:
    runtime.bench(100, guests.request())
    time.sleep(SETTLE_S)


# ---- loading ----

_LOAD = """
import json, sys, time
from pathlib import Path
from edge_agent.wasm.artifacts import Artifacts
from edge_agent.wasm.engine_selection import select_engine
from edge_agent.wasm.engine import Bounds
from edge_agent.wasm.guestlog import GuestLog
from edge_agent.wasm.imports import HostServices, PluginState
from edge_agent.wasm.modulefile import ModuleFile, identify, inspect_file

if sys.argv[4] == "tls":
    import hashlib  # as what a broker needs does: digests are OpenSSL's then
state, path = Path(sys.argv[1]), Path(sys.argv[2])
engine, _ = select_engine(sys.argv[3])
artifacts = Artifacts(state)
digest, _ = identify(path)
artifacts.module(engine, ModuleFile(path, digest, inspect_file(path, digest), 512 << 10)).close()
began = time.perf_counter()
source = ModuleFile(path, digest, inspect_file(path, digest), 512 << 10)
module = artifacts.stored(engine, source)
loaded = time.perf_counter()
functions = HostServices(GuestLog(lambda *_: None, 10, 100), PluginState()).functions()
module.instantiate(Bounds(32 << 20, 4 << 20), functions, 60.0).close()
print(json.dumps([(loaded - began) * 1e3, (time.perf_counter() - loaded) * 1e3]))
"""


def _loads(folder: Path, engine: str, times: int) -> dict[str, float]:
    """Milliseconds of a process of its own, with warm file caches; the first one compiles.

    `code_ms`: the module's file is read and its artifact verified and mapped, with a broker
    over TLS configured and `alone_ms` without; `guest_ms`: an instance is made and initialised.
    """
    folder.mkdir(parents=True)
    path = folder / "plugin.wasm"
    path.write_bytes(guests.go_plugin())
    found: dict[str, list[list[float]]] = {"tls": [], "alone": []}
    for number in range(times + 1):
        for way, each in found.items():
            command = [sys.executable, "-c", _LOAD, str(folder), str(path), engine, way]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            if number:
                each.append(json.loads(done.stdout))
    return {
        "code_ms": median(code for code, _ in found["tls"]),
        "alone_ms": median(code for code, _ in found["alone"]),
        "guest_ms": median(guest for _, guest in found["tls"] + found["alone"]),
    }
