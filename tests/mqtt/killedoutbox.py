"""An outbox killed by SIGKILL at every file operation, for a process of its own:

    python -m tests.mqtt.killedoutbox FOLDER HOLD_S

HOLD_S above 0: a broker is there most of the time, and records are held in memory.

A process of its own, because it forks: one child for each point, which works until it is
killed there, then another one that takes over and sends everything. What a child sends it
first writes into a pipe, as to a broker that has it even if nobody hears its answer.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]

from edge_agent.mqtt import journal_writer
from edge_agent.mqtt.journal import SYNC_S
from edge_agent.mqtt.outbox import Outbox
from edge_agent.mqtt.stream import Batch
from tests.mqtt.observer import accounted
from tests.mqtt.outboxes import outbox

# Small files, so that the few records of one life go through all that can happen.
journal_writer.SEGMENT_BYTES = 2048
journal_writer.EMPTY_BYTES = 512
ITEMS = 200
TEXT = "x" * 60
OPERATIONS = ("open", "pwrite", "fdatasync", "fsync", "ftruncate", "unlink")
HOWS = ("before", "half", "after")


class Killer:
    """Ends this process at the `point`th file operation; counts them."""

    def __init__(self, point: int, how: str) -> None:
        self.count = 0
        self._point = point
        self._how = how
        for name in OPERATIONS:
            setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*arguments: Any, **options: Any) -> Any:
            if name == "open" and not arguments[1] & os.O_CREAT:
                return real(*arguments, **options)
            self.count += 1
            if self.count != self._point:
                return real(*arguments, **options)
            if self._how == "half" and name == "pwrite":
                fd, data, at = arguments
                real(fd, data[: len(data) // 2], at)
            elif self._how == "after":
                real(*arguments, **options)
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError("still alive")

        return operation


def work(box: Outbox, tell: Callable[[str, object], None], hold_s: float) -> None:
    """One life: results come, some are sent, some of those acknowledged, some errors between."""
    in_flight: list[Batch] = []
    box.connected(True, 0.0)
    for number in range(ITEMS):
        box.put(f"{number} {TEXT}", important=number % 50 == 7)
        if number % 3 == 0:
            box.pack(1 << 20, number / 10)
            if not box.unkept:
                tell("kept", number)
        if hold_s and number % 9 == 0:
            box.tick(number / 10)
        if number % 10 == 0 and (batch := box.take(important=number % 40 == 0)):
            tell("sent", batch.payload)
            in_flight.append(batch)
        if number % 14 == 0:
            for batch in in_flight:
                box.acknowledge(batch)
            in_flight.clear()
        if number % 60 == 0:
            box.rewind()
            in_flight.clear()
            box.connected(number % 120 == 0, number / 10)
        if number % 100 == 99:
            box.tick(SYNC_S * number)
            send_all(box, tell)
    box.finish()


def send_all(box: Outbox, tell: Callable[[str, object], None]) -> None:
    """Until nothing waits."""
    box.rewind()
    for important in (True, False):
        while batch := box.take(important):
            tell("sent", batch.payload)
            box.acknowledge(batch)


def forked(child: Callable[[Callable[[str, object], None]], None]) -> tuple[int, list[Any]]:
    """Run `child` in a process of its own: its exit status and what it told."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)

        def tell(what: str, value: object) -> None:
            os.write(writer, msgpack.packb((what, value)))

        child(tell)
        os._exit(0)
    os.close(writer)
    unpacker = msgpack.Unpacker()
    while data := os.read(reader, 65536):
        unpacker.feed(data)
    os.close(reader)
    return os.waitpid(pid, 0)[1], list(unpacker)


def life(folder: Path, hold_s: float, point: int, how: str) -> tuple[bool, list[Any]]:
    """Whether it was killed, and what it told."""

    def child(tell: Callable[[str, object], None]) -> None:
        Killer(point, how)
        work(opened(folder, hold_s), tell, hold_s)

    status, told = forked(child)
    assert status in (0, signal.SIGKILL), (point, how, status)
    return status != 0, told


def opened(folder: Path, hold_s: float) -> Outbox:
    """An outbox with small files and a bound that is never reached."""
    return outbox(folder, queue_records=10_000, batch_records=10, disk_bytes=1 << 20, hold_s=hold_s)


def heir(folder: Path, hold_s: float) -> list[Any]:
    """The next life: it reports once more and sends everything."""

    def child(tell: Callable[[str, object], None]) -> None:
        box = opened(folder, hold_s)
        for important in (False, True):
            box.put(f"{ITEMS + important} {TEXT}", important=important)
        box.pack(1 << 20, 0.0)
        send_all(box, tell)
        assert box.queued == 0
        box.finish()

    status, told = forked(child)
    assert status == 0
    return told


def judge(told: list[Any], where: object, streams: int) -> int:
    """Each kept item arrives once, each number once and with one meaning; how many came twice."""
    kept = max((value for what, value in told if what == "kept"), default=-1)
    by_number: dict[tuple[str, int], str] = {}
    numbers: dict[str, set[int]] = {}
    twice = 0
    for what, payload in told:
        if what != "sent":
            continue
        batch = msgpack.unpackb(payload)
        numbers.setdefault(batch["stream"], set()).update(accounted(batch["records"]))
        for record in batch["records"]:
            assert "gap" not in record, (where, record)
            key = (batch["stream"], record["seq"])
            twice += key in by_number
            assert by_number.setdefault(key, record["item"]) == record["item"], (where, key)
    items = sorted(int(item.split()[0]) for item in by_number.values())
    assert len(items) == len(set(items)), (where, "an item has two numbers")
    missing = set(range(kept + 1)) - set(items)
    assert not missing, (where, "kept and lost", sorted(missing))
    assert {ITEMS, ITEMS + 1} <= set(items), where
    for stream, found in numbers.items():
        assert found == set(range(1, max(found) + 1)), (where, stream)
    assert len(numbers) <= streams, (where, "streams go on")
    return twice


def main(folder: Path, hold_s: float) -> None:
    points = twice = 0
    for how in HOWS:
        for point in range(1, 10_000):
            shutil.rmtree(folder, ignore_errors=True)
            killed, told = life(folder, hold_s, point, how)
            # A header that is half new is damaged: its stream cannot go on. The kernel writes
            # so few bytes as one; a card may not.
            streams = 3 if how == "half" else 2
            if hold_s:
                streams = 4  # whoever was killed may have held something
            twice = max(twice, judge(told + heir(folder, hold_s), (how, point), streams))
            points += killed
            if not killed:
                break
    print(points, twice)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
