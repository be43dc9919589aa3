"""What a restart of the runtime costs: containers that it creates before its plugins are back.

The runtime is upstream's own side of NRI in Go. It is killed, so that its socket file stays like
that of containerd and CRI-O, and asked for containers from the first moment plugins may connect.
"""

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from scripts.benchmarks.figures import Aim
from scripts.benchmarks.guests import c_plugins
from tests.support.goanswers import Made
from tests.support.gobuild import ROOT, native_plugin_binary
from tests.support.gopeers import NriRuntime
from tests.support.wait import wait_until

PLUGINS = (1, 8, 32)
DOWN_S = 1.0  # between the end of a runtime and the next one: about what systemd takes
EVENTS_PER_S = 200
MOST = 10_000  # containers after a restart: given up then
MORE = 20  # containers after the last plugin is back
LOOK_S = 0.05
RESTART_SEC = 0.1  # systemd's default RestartSec=
AGENT, LOOP, SUPERVISED = (
    "edge-agent, C plugins",
    "native plugins that try every 10 ms",
    "native plugins that end, restarted after 100 ms",
)


class Hosts(Protocol):
    """Plugins of one kind at `socket`, from `start` to the end of the stack."""

    def __call__(self, stack: ExitStack, folder: Path, socket: Path, names: Sequence[str]) -> None:
        """Start them."""


@dataclass
class Restart:
    """One restart, counted in containers and milliseconds since the runtime listened."""

    unseen: int  # no plugin was asked
    partly: int  # not all were
    first_ms: float
    all_ms: float


def measure(folder: Path, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Some restarts for each host and number of plugins."""
    rounds = 2 if quick else 7
    hosts: dict[str, Hosts] = {AGENT: _agent, LOOP: _loop, SUPERVISED: _supervised}
    contestants: dict[str, list[dict[str, Any]]] = {name: [] for name in hosts}
    for plugins in PLUGINS:
        for number, (name, host) in enumerate(hosts.items()):
            place = folder / f"{plugins}-{number}"
            place.mkdir()
            say(f"{name}: {plugins}")
            found = _restarts(place, host, plugins, rounds)
            contestants[name].append({"plugins": plugins, **_told(found)})
    return {"rounds": rounds, "asked_per_s": EVENTS_PER_S, "contestants": contestants}


def aims(result: dict[str, Any]) -> list[Aim]:
    """No container more than native plugins at their best."""
    ours, theirs = (result["contestants"][name] for name in (AGENT, LOOP))
    return [
        Aim(
            f"containers that not all of {of['plugins']} plugins saw",
            of["partly"]["median"],
            max(1.0, native["partly"]["median"]),
            "",
        )
        for of, native in zip(ours, theirs, strict=True)
    ]


def _restarts(folder: Path, host: Hosts, plugins: int, rounds: int) -> list[Restart]:
    socket = folder / "nri.sock"
    names = list(c_plugins(plugins))
    found = []
    with ExitStack() as stack:
        with NriRuntime(socket, owners=False) as runtime:
            host(stack, folder, socket, names)
            runtime.wait_for_plugins(*names, timeout_s=120)
            runtime.kill()
        for _ in range(rounds):
            time.sleep(DOWN_S)
            burst = {"pause_us": 1_000_000 // EVENTS_PER_S, "max": MOST}
            with NriRuntime(socket, owners=False, burst=burst) as runtime:
                found.append(_count(_made(runtime, names), names))
                runtime.kill()
    return found


def _made(runtime: NriRuntime, names: Sequence[str]) -> list[Made]:
    """Containers until all plugins are back, and some more."""
    ends = time.monotonic() + MOST / EVENTS_PER_S
    while sorted(runtime.plugins().present) != sorted(names):
        if time.monotonic() > ends:
            raise RuntimeError(f"only {runtime.plugins().present} came back")
        time.sleep(LOOK_S)
    runtime.wait_for_burst(min(MOST, runtime.burst_made() + MORE))
    return runtime.burst_stop()


def _count(made: Sequence[Made], names: Sequence[str]) -> Restart:
    asked = [
        {call.plugin for call in each.calls if call.operation == "CreateContainer"} for each in made
    ]
    seen = [bool(each) for each in asked]
    whole = [each == set(names) for each in asked]
    first, all_ = made[seen.index(True)], made[whole.index(True)]
    return Restart(seen.count(False), whole.count(False), first.at_ns / 1e6, all_.at_ns / 1e6)


def _told(found: Sequence[Restart]) -> dict[str, dict[str, float]]:
    return {
        key: {
            "median": statistics.median(getattr(each, key) for each in found),
            "high": max(getattr(each, key) for each in found),
        }
        for key in ("unseen", "partly", "first_ms", "all_ms")
    }


def _agent(stack: ExitStack, folder: Path, socket: Path, names: Sequence[str]) -> None:
    """As in production, with the defaults."""
    plugins = folder / "plugins"
    plugins.mkdir()
    for identity, module in c_plugins(len(names)).items():
        (plugins / f"{identity}.wasm").write_bytes(module)
    config = folder / "agent.toml"
    config.write_text(
        f'node = "restart"\nplugin_dir = "{plugins}"\nstate_dir = "{folder}/state"\n'
        f'control_socket = "{folder}/control"\n[nri]\nsockets = ["{socket}"]\n'
    )
    log = stack.enter_context((folder / "log").open("ab"))
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_agent", "run", "-c", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=ROOT,
    )
    stack.callback(_end, process)
    # While a plugin is compiled for the first time, a placeholder of its name is registered.
    wait_until(
        lambda: (folder / "log").read_text().count('"serving ') >= len(names), "all are served"
    )


def _native(socket: Path, identity: str, *more: str) -> "subprocess.Popen[bytes]":
    index, _, name = identity.partition("-")
    return subprocess.Popen(
        [
            str(native_plugin_binary()),
            *("--socket", str(socket), "--idx", index, "--name", name),
            *("--annotation", f"edge.bench/{name}=native", "--env", f"BENCH_{name}=native"),
            *more,
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _loop(stack: ExitStack, folder: Path, socket: Path, names: Sequence[str]) -> None:
    """The process lives on and tries again by itself."""
    del folder
    for identity in names:
        stack.callback(_end, _native(socket, identity, "--again", "10ms"))


def _supervised(stack: ExitStack, folder: Path, socket: Path, names: Sequence[str]) -> None:
    """As upstream's samples do: the process ends, and somebody starts it again."""
    del folder
    over = threading.Event()

    def supervise(identity: str) -> None:
        while not over.is_set():
            process = _native(socket, identity)
            while process.poll() is None:
                if over.wait(0.01):
                    _end(process)
            over.wait(RESTART_SEC)

    threads = [threading.Thread(target=supervise, args=(each,)) for each in names]
    for thread in threads:
        thread.start()
        stack.callback(thread.join)
    stack.callback(over.set)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
