"""From `deploy` until every node of a fleet reports the plugin as running: time, bytes, messages.

One mosquitto, the operator's room in this process, all nodes in another (scripts.benchmarks.swarm),
so on two cores three processes share the work. The nodes' disks are in memory: a thousand
boards have a thousand disks, and this machine one.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edge_agent.operator import folder as folders
from edge_agent.operator.broker import BrokerClient
from edge_agent.operator.fleet import Fleet
from edge_agent.operator.keyring import Keyring
from edge_agent.operator.view import View
from scripts.benchmarks.figures import Aim
from scripts.benchmarks.swarm import FLEET, READY
from tests.support.agent import ROOT, guest
from tests.support.mosquitto import MOSQUITTO, Mosquitto

COUNTS = (100, 300, 1000)
SEVERAL_S = 60.0  # the aim for the most
PLUGIN = "device-injector"  # 19 KiB
PATIENCE_S = 600.0
SYS = ("bytes/received", "bytes/sent", "publish/messages/received", "publish/messages/sent")
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Spread:
    """One deployment at one number of nodes."""

    nodes: int
    connect_s: float
    seconds: float  # deploy until all run it
    half_s: float  # until half of them do
    bytes_received: int  # by the broker
    bytes_sent: int
    messages_received: int
    messages_sent: int


def measure(folder: Path, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """One fleet after another, each with a broker of its own."""
    if MOSQUITTO is None:
        return {"missing": "mosquitto is not installed", "fleets": []}
    found = []
    for count in COUNTS[: 1 if quick else None]:
        say(f"a fleet of {count}")
        place = folder / str(count)
        place.mkdir()
        found.append(vars(spread(place, count)))
    module = guest(PLUGIN)
    return {"plugin_bytes": module.stat().st_size, "fleets": found}


def aims(result: dict[str, Any]) -> list[Aim]:
    """Linear, and the most nodes within a minute."""
    fleets = result["fleets"]
    if not fleets:
        return []
    least, most = fleets[0], fleets[-1]
    wanted = [
        Aim(f"{most['nodes']} nodes run a plugin after", most["seconds"], SEVERAL_S, "s"),
    ]
    if least is not most:
        growth = most["seconds"] / least["seconds"] / (most["nodes"] / least["nodes"])
        name = f"time for each node, {most['nodes']} / {least['nodes']}"
        wanted.append(Aim(name, growth, 1.2, ""))
    return wanted


def spread(folder: Path, count: int) -> Spread:
    """Deploy once to so many nodes, with all files in `folder`. TimeoutError."""
    keyring = Keyring(folder / "keys")
    key = keyring.generate("bench")
    trust = folder / "trust"
    trust.mkdir()
    (trust / "bench.pem").write_bytes(keyring.public_file("bench").read_bytes())
    with _Quiet(folder) as broker:
        made = folders.create(
            folder / "fleet",
            name=FLEET,
            url=f"mqtt://127.0.0.1:{broker.port}",
            keys={"bench": key},
            threshold=1,
        )
        with BrokerClient(made.settings().mqtt) as client:
            fleet = Fleet(made, client, keyring)
            fleet.publish(guest(PLUGIN), PLUGIN, "1.0.0")
            draft = fleet.rolled_out(PLUGIN, "1.0.0", 100, "10")
            began = time.monotonic()
            with _swarm(folder, broker.port, count, trust):
                connected = time.monotonic()
                before = _counters(client)
                half_s, seconds = _deploy(fleet, draft, count)
                after = _counters(client)
    moved = [after[name] - before[name] for name in SYS]
    return Spread(count, connected - began, seconds, half_s, *moved)


def _deploy(fleet: Fleet, draft: Any, count: int) -> tuple[float, float]:
    """Seconds until half of the nodes say that they run it, and until all do."""
    filters = (f"{fleet.nodes_topic}/+/status", f"{fleet.nodes_topic}/+/state")
    view = View()
    running: set[str] = set()
    with fleet.client.subscribed(filters) as news:
        began = time.monotonic()
        digest = fleet.deploy(draft, first=True).deployment.plugins[0].offers[0].blob.digest
        half_s = 0.0
        while len(running) < count:
            message = news.take(PATIENCE_S)
            if message is None:
                raise TimeoutError(f"{len(running)} of {count} nodes run it")
            node = view.feed(message)
            if node is not None and node.runs(digest):
                running.add(node.name)
            if not half_s and len(running) * 2 >= count:
                half_s = time.monotonic() - began
        return half_s, time.monotonic() - began


@contextmanager
def _swarm(folder: Path, port: int, count: int, trust: Path) -> Iterator[None]:
    memory = SHARED_MEMORY if SHARED_MEMORY.is_dir() else folder
    with TemporaryDirectory(dir=memory) as disks:
        words = [str(port), str(count), disks, str(trust)]
        process = subprocess.Popen(
            [sys.executable, "-m", "scripts.benchmarks.swarm", *words],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if process.stdout.readline().strip() != READY:
                raise RuntimeError(f"the nodes did not start: exit {process.wait()}")
            yield
            process.stdin.close()
            process.wait(60)
        finally:
            process.kill()
            process.wait()


def _counters(client: BrokerClient) -> dict[str, int]:
    """What the broker counted so far; it tells once a second."""
    time.sleep(2.5)
    topics = {f"$SYS/broker/{name}": name for name in SYS}
    found: dict[str, int] = {}
    with client.subscribed(topics) as news:
        while len(found) < len(topics):
            message = news.take(10.0)
            if message is None:
                raise TimeoutError("the broker tells no figures")
            found[topics[message.topic]] = int(message.payload)
    return found


class _Quiet(Mosquitto):
    """A broker that writes as those of fleets do, not with each change, and logs little."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "sys_interval 1", "max_queued_messages 10000")
        lines = self._config.read_text().splitlines()
        kept = [line for line in lines if not line.startswith("autosave")]
        self._config.write_text("\n".join([*kept, "log_type error"]) + "\n")
