"""Outboxes on disk and in memory: made, filled, emptied and read in tests."""

from collections.abc import Callable, Mapping
from pathlib import Path

import msgpack  # type: ignore[import-untyped]

from edge_agent.mqtt.journal import LEAST_BYTES, Journal
from edge_agent.mqtt.outbox import Outbox
from edge_agent.mqtt.stream import Batch

ALL = 1 << 20
BOOT = b"this boot is one"
OTHER_BOOT = b"this boot is two"

_made: list[Outbox] = []


def end_processes() -> None:
    """What the end of each outbox's process would do: close its files, and nothing else."""
    for box in _made:
        for lane in box.journal.lanes.values() if box.journal else ():
            lane._writer._close()  # noqa: SLF001 - nothing public ends without writing
    _made.clear()


def described(item: object) -> Mapping[str, object] | None:
    """A record for an item; None asks for none."""
    return None if item is None else {"item": item}


def outbox(
    folder: Path | None = None,
    queue_records: int = 100,
    batch_records: int = 10,
    describe: Callable[[object], Mapping[str, object] | None] = described,
    encoding: str = "msgpack",
    disk_bytes: int = LEAST_BYTES,
    boot: bytes = BOOT,
    hold_s: float = 0.0,
) -> Outbox:
    """On disk in `folder`, opened, or in memory."""
    box = Outbox(
        "board-7",
        encoding,
        describe,
        queue_records=queue_records,
        batch_records=batch_records,
        journal=Journal(folder, encoding, disk_bytes, boot, hold_s) if folder else None,
    )
    box.open(0.0)
    _made.append(box)
    return box


def records(*batches: Batch | None) -> list[dict[str, object]]:
    """What the batches hold."""
    return [
        record
        for batch in batches
        if batch is not None
        for record in msgpack.unpackb(batch.payload)["records"]
    ]


def stream_of(batch: Batch) -> str:
    """The name of its stream."""
    return str(msgpack.unpackb(batch.payload)["stream"])


def take_all(box: Outbox, important: bool = False) -> list[Batch]:
    """Everything that was put, packed, taken and not acknowledged."""
    box.pack(ALL, 0.0)
    return list(iter(lambda: box.take(important), None))


def put(box: Outbox, *items: object, important: bool = False, now: float = 0.0) -> None:
    """Put and pack."""
    for item in items:
        box.put(item, important=important)
    box.pack(1 << 20, now)


def items(*batches: Batch) -> list[object]:
    """What the records of the batches say."""
    return [record["item"] for record in records(*batches)]


def files_of(folder: Path) -> list[Path]:
    """The segments."""
    return sorted(folder.glob("*.seg"))


def acknowledge(box: Outbox, *batches: Batch) -> None:
    """All of them."""
    for batch in batches:
        box.acknowledge(batch)
