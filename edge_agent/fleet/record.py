"""The catalogue in memory and on disk, kept alike as far as the disk allows."""

import logging
import math
from pathlib import Path

from edge_agent.errors import StoreError
from edge_agent.store import cataloguefile
from edge_agent.store.catalogue import Catalogue

log = logging.getLogger(__name__)

# After the disk failed, until it is tried again.
DISK_PAUSE_S = 30.0


class Record:
    """What a node remembers. Times are monotonic seconds."""

    def __init__(self, path: Path) -> None:
        """Read it. StoreError: it is there, and says nothing that could be believed."""
        self._path = path
        self.catalogue: Catalogue = _read(path)
        self.trouble = ""  # why the disk does not have what is said here
        self.retry_at = -math.inf  # before that, the disk is better left alone
        self._unwritten = False

    def commit(self, new: Catalogue, now: float) -> bool:
        """Remember `new`, if the disk does: nothing may follow from it before."""
        if not self._save(new, now):
            return False
        self.catalogue = new
        return True

    def note(self, new: Catalogue, now: float) -> None:
        """Remember `new`, even if the disk does not: better for this run than to ignore it."""
        self.catalogue = new
        self._unwritten = True
        self._save(new, now)

    def write(self, now: float) -> None:
        """Bring to the disk what was only noted."""
        if self._unwritten and now >= self.retry_at:
            self._save(self.catalogue, now)

    def failed(self, error: StoreError, now: float) -> None:
        """Something else on this disk failed."""
        self.retry_at = now + DISK_PAUSE_S
        if str(error) != self.trouble:
            self.trouble = str(error)
            log.error("%s; tried again later", error)

    @property
    def due(self) -> float:
        """When to call `write`."""
        return self.retry_at if self._unwritten else math.inf

    def _save(self, new: Catalogue, now: float) -> bool:
        try:
            cataloguefile.save(self._path, new)
        except StoreError as error:
            self.failed(error, now)
            return False
        self._unwritten = False
        self.trouble = ""
        return True


def _read(path: Path) -> Catalogue:
    try:
        return cataloguefile.recover(path)
    except StoreError:  # a disk that can only be read may still tell
        return cataloguefile.load(path)
