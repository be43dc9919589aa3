"""The records of an outbox on disk: two lanes within one bound (journal_lane.py).

While a broker acknowledges, a record is held in memory for up to `hold_s`, and written only
if the broker has not acknowledged it by then, or the connection or the process ends: what
arrives at once never reaches the card (docs/adr/0051).
"""

import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path

from edge_agent.config import MqttConfig
from edge_agent.mqtt.journal_lane import JournalLane
from edge_agent.mqtt.journal_writer import SEGMENT_BYTES
from edge_agent.mqtt.stream import Unnumbered
from edge_agent.store import files

log = logging.getLogger(__name__)

# Below the agent's state_dir.
FOLDER = "outbox"
# What is read and written stays beside the bound: a batch in flight in each of four files.
LEAST_BYTES = 8 * SEGMENT_BYTES
# So much of what waits may be lost with the machine's power: a card wears out by syncing.
SYNC_S = 30.0
# What a lane holds in memory; a broker that leaves more unacknowledged is not quick.
HELD_BYTES = SEGMENT_BYTES


class Journal:
    """Ordinary and important records, together about `max_bytes`; belongs to one thread."""

    def __init__(
        self, folder: Path, encoding: str, max_bytes: int, boot: bytes, hold_s: float = 0.0
    ) -> None:
        """`boot` names the machine's present boot, as `boot_bytes` does; `hold_s`, at most SYNC_S:
        how long a record may be in memory only, 0: not at all."""
        self.link_up = False  # a broker is there and acknowledges
        self._folder = folder
        self._hold_s = hold_s
        self._max_bytes = max_bytes
        self._sync_at: float | None = None
        self.lanes = {
            important: JournalLane(folder, name, encoding, boot, holds=hold_s > 0)
            for important, name in ((False, "results"), (True, "important"))
        }
        self.opened = False

    @property
    def bytes(self) -> int:
        """The size of all files, in bytes."""
        return sum(lane.bytes for lane in self.lanes.values())

    @property
    def queued(self) -> int:
        """Records that no broker has acknowledged."""
        return sum(lane.queued for lane in self.lanes.values())

    @property
    def held(self) -> int:
        """Records that are in memory only."""
        return sum(lane.held for lane in self.lanes.values())

    @property
    def streams_cut(self) -> int:
        """Streams that the last process did not finish: their newest records may be lost."""
        return sum(lane.cut_short for lane in self.lanes.values())

    def open(self) -> None:
        """Once: find what an earlier process left. StoreError: nothing can be kept here."""
        files.make_folder(self._folder)
        for lane in self.lanes.values():
            lane.open()
        self.opened = True
        self._make_room(0)
        if self.streams_cut:
            log.warning(
                "the agent before this one was killed, or its machine lost power: results that"
                " it had not written to %s yet and no broker had acknowledged are lost; their"
                " number is not known, and new streams begin",
                self._folder,
            )

    def append(self, important: bool, records: Sequence[Unnumbered], now: float) -> None:
        """Keep them, and give up the oldest that are too many. StoreError: none was kept."""
        lane = self.lanes[important]
        size = sum(len(body.packed) for _, body in records)
        self._make_room(size)
        if self._holding and lane.drained and lane.held_bytes + size <= HELD_BYTES:
            lane.hold(records, now)
        else:
            self._sync_by(min(now, lane.held_since) + SYNC_S)
            lane.append(records)

    def flush(self) -> None:
        """Write all that is held. StoreError: it is held still."""
        for lane in self.lanes.values():
            self._flush(lane)

    def tick(self, now: float) -> float:
        """Write what was held long, sync what waited long; when that is due next (infinity: when
        something is appended). StoreError."""
        for lane in self.lanes.values():
            if now >= lane.held_since + self._hold_s:
                self._flush(lane)
        if self._sync_at is not None and now >= self._sync_at:
            self._sync_at = None
            for lane in self.lanes.values():
                lane.sync()
        if not any(lane.unsynced for lane in self.lanes.values()):
            self._sync_at = None
        held_since = min(lane.held_since for lane in self.lanes.values())
        return min(math.inf if self._sync_at is None else self._sync_at, held_since + self._hold_s)

    def finish(self) -> None:
        """The last step of a process that ends well."""
        for lane in self.lanes.values():
            lane.finish()

    @property
    def _holding(self) -> bool:
        return self.link_up and self._hold_s > 0

    def _flush(self, lane: JournalLane) -> None:
        if lane.held:
            self._make_room(lane.held_bytes)
            self._sync_by(lane.held_since + SYNC_S)
            lane.flush()

    def _sync_by(self, when: float) -> None:
        """Sync at `when` (monotonic) at the latest."""
        self._sync_at = when if self._sync_at is None else min(self._sync_at, when)

    def _make_room(self, size: int) -> None:
        while self.bytes + size > self._max_bytes:
            if not self.lanes[False].drop_oldest() and not self.lanes[True].drop_oldest():
                return  # all of it is being read or written


def journal_of(config: MqttConfig, state_dir: Path) -> Journal:
    """The journal of the node whose state is there."""
    hold_s = config.durability_delay_s if config.durability == "delayed" else 0.0
    return Journal(state_dir / FOLDER, config.encoding, config.queue_bytes, boot_bytes(), hold_s)


def boot_bytes() -> bytes:
    """16 bytes that another boot of this machine does not have."""
    boot = files.boot_id()
    # Without a name of the kernel's every start counts as one after a loss of power.
    return bytes.fromhex(boot.replace("-", "")) if boot else os.urandom(16)
