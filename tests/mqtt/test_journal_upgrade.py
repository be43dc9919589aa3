"""An outbox that an older agent left on a board (tests/data/outbox-3e1b8fc) loses nothing."""

import json
import shutil
from pathlib import Path

import msgpack  # type: ignore[import-untyped]
import pytest

from edge_agent.mqtt.outbound import next_epoch
from edge_agent.mqtt.stream import Batch
from tests.mqtt.observer import accounted
from tests.mqtt.outboxes import outbox

RECORDED = Path(__file__).parents[1] / "data" / "outbox-3e1b8fc"
BOOT, OTHER_BOOT = b"boot number one!", b"boot number two!"
# Items 0 to 29 in JSON, to 129 in MessagePack; each 20th is important.
IMPORTANT = set(range(7, 130, 20))
ORDINARY = [item for item in range(130) if item not in IMPORTANT]
ACKNOWLEDGED = set(ORDINARY[:48])


def contents(batch: Batch) -> dict[str, object]:
    """In either encoding."""
    if batch.payload.startswith(b"{"):
        found = json.loads(batch.payload)
    else:
        found = msgpack.unpackb(batch.payload)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("hold_s", [0.0, 5.0])
@pytest.mark.parametrize("boot", [BOOT, OTHER_BOOT])
@pytest.mark.parametrize("end", ["finished", "killed"])
def test_what_an_older_agent_left_arrives_once_and_numbers_keep_their_meaning(
    tmp_path: Path, end: str, boot: bytes, hold_s: float
) -> None:
    folder = tmp_path / "outbox"
    shutil.copytree(RECORDED / end, folder)
    box = outbox(folder, queue_records=1000, boot=boot, hold_s=hold_s)
    assert box.journal is not None
    assert box.journal.streams_cut == (2 if end == "killed" and boot == OTHER_BOOT else 0)
    box.connected(True, 0.0)
    for item in (130, 131):
        box.put(item, important=item == 131)
    box.pack(10, 0.0)
    arrived: dict[tuple[object, object], object] = {}
    numbers: dict[object, set[int]] = {}
    for important in (True, False):
        while batch := box.take(important):
            found = contents(batch)
            records = found["records"]
            assert isinstance(records, list)
            numbers.setdefault(found["stream"], set()).update(accounted(records))
            for record in records:
                assert "gap" not in record
                key = (found["stream"], record["seq"])
                assert key not in arrived
                arrived[key] = record["item"]
            box.acknowledge(batch)
    must, items = set(range(132)) - ACKNOWLEDGED, set(arrived.values())
    assert len(items) == len(arrived)
    # A killed agent may not have written down yet what was acknowledged last.
    assert must <= items <= set(range(132)) if end == "killed" else must == items
    assert box.queued == 0
    for found_numbers in numbers.values():
        assert found_numbers == set(range(min(found_numbers), max(found_numbers) + 1))
    goes_on = end == "finished" or boot == BOOT
    assert len(numbers) == (3 if goes_on else 5)


def test_connections_are_numbered_on(tmp_path: Path) -> None:
    shutil.copytree(RECORDED / "finished", tmp_path / "outbox")
    assert next_epoch(tmp_path / "outbox" / "session", 0) > 1_790_000_000_000
