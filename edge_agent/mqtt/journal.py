"""The records of an outbox on disk: two lanes within one bound (journal_lane.py)."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from edge_agent.mqtt.journal_lane import JournalLane
from edge_agent.mqtt.journal_writer import SEGMENT_BYTES
from edge_agent.mqtt.stream import Unnumbered
from edge_agent.store import files

log = logging.getLogger(__name__)

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# What is read and written stays beside the bound: a batch in flight in each of four files.
LEAST_BYTES = 8 * SEGMENT_BYTES
# So much of what waits may be lost with the machine's power: a card wears out by syncing.
SYNC_S = 30.0


class Journal:
    """Ordinary and important records, together about `max_bytes`; belongs to one thread."""

    def __init__(self, folder: Path, encoding: str, max_bytes: int, boot: bytes) -> None:
        """`boot` names the machine's present boot, as `boot_id` does."""
        self._folder = folder
        self._max_bytes = max_bytes
        self._sync_at: float | None = None
        self.lanes = {
            important: JournalLane(folder, name, encoding, boot)
            for important, name in ((False, "results"), (True, "important"))
        }
        self.opened = False

    @property
    def bytes(self) -> int:
        """What the files have together."""
        return sum(lane.bytes for lane in self.lanes.values())

    @property
    def queued(self) -> int:
        """Records that no broker has acknowledged."""
        return sum(lane.queued for lane in self.lanes.values())

    def open(self) -> None:
        """Once: find what an earlier process left. StoreError: nothing can be kept here."""
        files.make_folder(self._folder)
        for lane in self.lanes.values():
            lane.open()
        self.opened = True
        self._make_room(0)

    def append(self, important: bool, records: Sequence[Unnumbered], now: float) -> None:
        """Write them, and give up the oldest that are too many. StoreError: none was kept."""
        self._make_room(sum(len(body.packed) for _, body in records))
        lane = self.lanes[important]
        lane.append(records)
        if self._sync_at is None:
            self._sync_at = now + SYNC_S

    def tend(self, now: float) -> float | None:
        """Sync what waited long; when that is due next, None: nothing waits. StoreError."""
        if self._sync_at is not None and now >= self._sync_at:
            self._sync_at = None
            for lane in self.lanes.values():
                lane.sync()
        if not any(lane.unsynced for lane in self.lanes.values()):
            self._sync_at = None
        return self._sync_at

    def finish(self) -> None:
        """The last step of a process that ends well."""
        for lane in self.lanes.values():
            lane.finish()

    def _make_room(self, size: int) -> None:
        while self.bytes + size > self._max_bytes:
            if not self.lanes[False].drop_oldest() and not self.lanes[True].drop_oldest():
                return  # all of it is being read or written


def boot_id() -> bytes:
    """16 bytes that another boot of this machine does not have."""
    try:
        return bytes.fromhex(BOOT_ID.read_text("ascii").replace("-", "").strip())[:16].ljust(16)
    except (OSError, ValueError):
        return os.urandom(16)  # every start counts as one after a loss of power
