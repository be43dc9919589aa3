"""A link that queues and sends: `python -m scripts.benchmarks.queueing STATE PORT COUNT SECONDS`.

Reports COUNT records while nothing listens on PORT and prints what that took; after a line
on its input, when somebody does, it sends for SECONDS and prints how many went out.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from edge_agent import process as heap
from edge_agent.config import Broker, MqttConfig
from edge_agent.mqtt.link import Link
from scripts.benchmarks.process import memory

BURST = 500
MARKS = (10_000, 100_000)  # and the last
LOOK_S = 0.1


def record(number: int) -> dict[str, object]:
    """As large as a result of CreateContainer usually is."""
    return {
        "time": 1_790_000_000.123456 + number,
        "plugin": "20-resource-guard",
        "version": "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "runtime": "/var/run/nri/nri.sock",
        "event": "CreateContainer",
        "outcome": "adjusted",
        "duration_us": 143,
        "pod": {"namespace": "default", "name": f"sensor-{number % 100}", "uid": "1c2d3e4f-5a6b"},
        "container": {"name": "app", "id": f"{number:064x}"},
        "adjusted": ["linux.resources"],
    }


def written() -> int:
    """Bytes that this process has sent to disks so far, less what it took back in time."""
    found = {}
    for line in Path("/proc/self/io").read_text().splitlines():
        name, _, value = line.partition(":")
        found[name] = int(value)
    return found["write_bytes"] - found["cancelled_write_bytes"]


def main(state_dir: Path, port: int, count: int, seconds: float) -> None:
    config = MqttConfig(
        (Broker("127.0.0.1", port, False),),
        "bench",
        queue_bytes=2 << 30,
        reconnect_min_s=1.0,
        reconnect_max_s=1.0,
    )
    heap.keep_heap_small()
    link = Link(config, "bench", "bench", _described, dict, dict, state_dir=state_dir)
    link.start()
    outbox = link.outbound.results.outbox
    began, before = time.monotonic(), written()
    for number in range(1, count + 1):
        link.report(number, 4000)
        if number % BURST == 0:
            while outbox.unkept:
                time.sleep(0.001)
        if number in MARKS or number == count:
            _say(queued=number, **memory(_pid()), disk=link.status()["disk_bytes"])
    assert outbox.journal is not None
    assert link.status()["queued"] == count, link.status()
    _say(
        seconds=time.monotonic() - began,
        written=written() - before,
        disk=outbox.journal.bytes,
        trouble=outbox.disk_trouble,
    )
    sys.stdin.readline()
    while link.status()["sent"] == 0:
        time.sleep(LOOK_S)
    began, first, peak = time.monotonic(), link.status()["sent"], 0
    while link.status()["queued"] and time.monotonic() - began < seconds:
        time.sleep(LOOK_S)
        peak = max(peak, memory(_pid())["rss"])
    took = time.monotonic() - began
    _say(sent=link.status()["sent"] - first, seconds=took, peak=peak, left=link.status()["queued"])
    link.stop()


def _described(item: object) -> dict[str, object]:
    assert isinstance(item, int)  # what `main` reports
    return record(item)


def _pid() -> int:
    return int(Path("/proc/self").readlink().name)


def _say(**found: Any) -> None:
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
