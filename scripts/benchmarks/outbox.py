"""What waits for the broker: memory, disk, sending, and that it delays no answer."""

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, get_args

from edge_agent.config import Broker, MqttConfig
from edge_agent.config.model import Durability
from edge_agent.control import ask
from edge_agent.errors import ControlError
from edge_agent.mqtt.journal import SYNC_S, Journal, boot_bytes
from edge_agent.mqtt.link import Link
from edge_agent.mqtt.outbox import Outbox
from scripts.benchmarks import guests
from scripts.benchmarks.contestants import Agent
from scripts.benchmarks.extdisk import bytes_written, ext4, settle
from scripts.benchmarks.figures import Aim, latency, p99_ratio, ratio
from scripts.benchmarks.queueing import record, written
from tests.support.gobuild import ROOT
from tests.support.mosquitto import MOSQUITTO, Mosquitto

MB = 1e6
BATCH = 100
BATCH_S = 0.25  # the agent's own, in simulated time
HOLD_S = MqttConfig.durability_delay_s
QUIET_S = 40.0  # longer than what waits is left unsynced
DOWN_S, UP_S = 1.0, 2.0  # of the broker that is killed and started again
TROUBLED, QUIET = "broker killed and started again, backlog goes out", "broker there, nothing waits"
MAX_ROUNDS_S = 240.0


def measure(folder: Path, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Three measurements, one after the other."""
    if MOSQUITTO is None:
        raise RuntimeError("mosquitto is not installed")
    found: dict[str, Any] = {}
    say("queueing")
    found["queue"] = _queue(folder / "queue", 100_000 if quick else 1_000_000, 5 if quick else 30)
    say("counting what is written")
    found["writes"] = _writes(folder / "writes", quick)
    say("one result after the other, acknowledged at once")
    found["singles"] = _singles(folder / "singles", 30 if quick else 200)
    say("answering meanwhile")
    found["answers"] = _answers(folder / "answers", 20_000 if quick else 100_000, say)
    return found


def aims(result: dict[str, Any]) -> list[Aim]:
    """Flat memory, and answers that take as long as ever."""
    queue, answers, singles = result["queue"], result["answers"], result["singles"]
    return [
        Aim("written for a result acknowledged in time", singles["delayed"], 100.0, "bytes"),
        Aim(f"{queue['count']} queued results, more RSS", queue["more_rss"] / MB, 2.0, "MB"),
        Aim("CreateContainer meanwhile / undisturbed", answers["to_quiet"]["median"], 1.1, ""),
    ]


# --- memory, bytes for each record, sending


def _queue(folder: Path, count: int, seconds: float) -> dict[str, Any]:
    folder.mkdir(parents=True)
    broker = Mosquitto(folder)
    command = [sys.executable, "-m", "scripts.benchmarks.queueing", str(folder / "state")]
    with subprocess.Popen(
        [*command, str(broker.port), str(count), str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            marks = [json.loads(process.stdout.readline())]
            while marks[-1].get("queued") != count:
                marks.append(json.loads(process.stdout.readline()))
            done = json.loads(process.stdout.readline())
            with broker:
                process.stdin.write("\n")
                process.stdin.flush()
                sent = json.loads(process.stdout.readline())
        finally:
            process.kill()
    if done["trouble"]:
        raise RuntimeError(done["trouble"])
    first, last = marks[0], marks[-1]
    return {
        "count": count,
        "marks": marks,
        "more_rss": last["rss"] - first["rss"],
        "more_pss": last["pss"] - first["pss"],
        "bytes_each": done["disk"] / count,
        "written_per_1000": done["written"] / count * 1000,
        "queued_per_s": count / done["seconds"],
        "sent_per_s": sent["sent"] / sent["seconds"],
        "sending_rss": sent["peak"] - last["rss"],
    }


# --- what reaches the disk


def _writes(folder: Path, quick: bool) -> dict[str, Any]:
    busy, quiet = (4_000, 50) if quick else (40_000, 300)
    found: dict[str, Any] = {}
    with ext4(folder) as disk:
        if disk is None:
            return {"skipped": "counting them needs root, mkfs.ext4 and a loop device"}
        rates = (
            ("400 results a second", busy, BATCH, BATCH_S),
            (f"a result each {QUIET_S:.0f} s", quiet, 1, QUIET_S),
        )
        for kind, sends, hold_s in (
            ("broker away", False, HOLD_S),
            ("sent at once", True, HOLD_S),
            ('... durability = "always"', True, 0.0),
        ):
            for rate, count, at_once, every_s in rates:
                box = _outbox(disk / "outbox" / str(len(found)), hold_s)
                box.connected(sends, 0.0)
                found[f"{kind}, {rate}"] = _written(
                    box, disk / "outbox", count, at_once, every_s, sends
                )
    return found


def _written(
    box: Outbox, folder: Path, count: int, at_once: int, every_s: float, sends: bool
) -> dict[str, float]:
    """Time is simulated: the kernel's own writing, too, happens once in SYNC_S of it."""
    now = settled = packed = 0.0
    _put(box, 0, 1, now)  # what the first start writes is another matter
    box.tick(SYNC_S)
    while sends and (batch := box.take()):
        box.acknowledge(batch)
    settle(folder)
    before = bytes_written(folder)
    for number in range(1, count, at_once):
        now += every_s
        packed += _put(box, number, at_once, now)
        while sends and (batch := box.take()):
            box.acknowledge(batch)
        box.tick(now)
        if now - settled >= SYNC_S:
            settle(folder)
            settled = now
    settle(folder)
    device = bytes_written(folder) - before
    box.finish()
    return {
        "results": count,
        "device_per_1000": device / count * 1000,
        "record_per_1000": packed / count * 1000,
    }


def _singles(folder: Path, count: int) -> dict[str, float]:
    """What this process has the kernel write for a result, by `write_bytes` of /proc/self/io."""
    folder.mkdir(parents=True)
    found = {}
    with Mosquitto(folder) as broker:
        for durability in get_args(Durability):
            config = MqttConfig(
                (Broker("127.0.0.1", broker.port, False),), "bench", durability=durability
            )
            link = Link(
                config, "bench", "bench", _described, dict, dict, state_dir=folder / durability
            )
            link.start()
            for number in range(count + 1):
                if number == 1:  # what the first costs is another matter
                    before = written()
                link.report(number)
                while link.status()["sent"] <= number:
                    time.sleep(0.005)
            found[durability] = (written() - before) / count
            link.stop()
    return found


def _described(item: object) -> dict[str, object]:
    return record(int(str(item)))


def _outbox(folder: Path, hold_s: float = 0.0) -> Outbox:
    journal = Journal(folder, "msgpack", 128 << 20, boot_bytes(), hold_s)
    box = Outbox(
        "bench",
        "msgpack",
        _described,
        queue_records=100_000,
        batch_records=BATCH,
        journal=journal,
    )
    box.open(0.0)
    if box.disk_trouble:
        raise RuntimeError(box.disk_trouble)
    return box


def _put(box: Outbox, first: int, count: int, now: float) -> int:
    assert box.journal is not None
    before = box.journal.bytes
    for number in range(first, first + count):
        box.put(number)
    box.pack(count, now)
    return box.journal.bytes - before


# --- answers meanwhile


def _answers(folder: Path, backlog: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Two agents of the same kind in the same rounds, so that the machine is busy for both."""
    request = guests.request()
    folder.mkdir(parents=True)
    for name in ("broker", "killed"):
        (folder / name).mkdir()
    killed = Mosquitto(folder / "killed")
    with Mosquitto(folder / "broker") as broker:
        agents = {
            QUIET: Agent(folder / "quiet", guests.c_plugins(1), more=_section(broker)),
            TROUBLED: Agent(folder / "troubled", guests.c_plugins(1), more=_section(killed)),
        }
        box = _outbox(folder / "troubled" / "state" / "outbox")
        for first in range(0, backlog, BATCH):
            _put(box, first, BATCH, 0.0)
        box.finish()
        times: dict[str, list[list[int]]] = {QUIET: [], TROUBLED: []}
        with agents[QUIET] as quiet, agents[TROUBLED] as troubled, _flapping(killed) as flapped:
            waiting = partial(_status, folder / "troubled")
            for agent in (quiet, troubled):
                agent.runtime.bench(50, request)
            began, status = time.monotonic(), waiting()
            while status["sent"] < backlog and time.monotonic() - began < MAX_ROUNDS_S:
                say(f"{status['queued']} wait")
                for name in random.sample(list(agents), 2):
                    done = agents[name].runtime.bench(100, request)
                    if done.errors:
                        raise RuntimeError(f"{name}: {done.errors[0]}")
                    times[name].append(done.latencies_ns)
                status = waiting()
            took = time.monotonic() - began
    return {
        "backlog": backlog,
        "seconds": took,
        "sent": status["sent"],
        "dropped": status["dropped"],
        "broker_killed": len(flapped),
        "contestants": {name: asdict(latency(found)) for name, found in times.items()},
        "to_quiet": asdict(ratio(times[TROUBLED], times[QUIET])),
        "p99_to_quiet": asdict(p99_ratio(times[TROUBLED], times[QUIET])),
    }


def _section(broker: Mosquitto) -> str:
    return (
        f'[mqtt]\nurl = "mqtt://127.0.0.1:{broker.port}"\nqueue = "256MiB"\n'
        'reconnect_min = "500ms"\nreconnect_max = "500ms"\n'
    )


def _status(folder: Path) -> dict[str, Any]:
    try:
        found = ask(folder / "control.sock", "status")["mqtt"]
    except ControlError as error:
        raise RuntimeError(f"{error}\n{(folder / 'log').read_text()}") from error
    assert isinstance(found, dict)
    return found


@contextmanager
def _flapping(broker: Mosquitto) -> Iterator[list[float]]:
    """Started and killed until the end; when it was killed."""
    killed: list[float] = []
    over = threading.Event()

    def flap() -> None:
        while not over.is_set():
            broker.start()
            over.wait(UP_S)
            broker.kill()
            killed.append(time.monotonic())
            over.wait(DOWN_S)

    thread = threading.Thread(target=flap, daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()
