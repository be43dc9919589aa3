"""The end of a lane, where records are written.

Nothing is synced when it is written: what the kernel was given survives the end of this
process, however it ends, and what a broker acknowledges soon need never reach the card.
What waits longer is synced (docs/adr/0026). So a *number* must not come twice, with
something else, after the machine lost what was not synced: a lane that was not finished
properly before a boot goes on with a new stream, from 1, behind what is left of the old one.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from edge_agent.errors import StoreError
from edge_agent.mqtt import segment
from edge_agent.mqtt.packing import PACKINGS
from edge_agent.mqtt.segment import HEADER_BYTES, Header, Segment, Segments, write
from edge_agent.mqtt.stream import StreamKey, Unnumbered
from edge_agent.store import files

log = logging.getLogger(__name__)

# A file is given up as a whole when the bound is reached, and read as a whole.
SEGMENT_BYTES = 256 * 1024
# An unfinished file whose records are all acknowledged is emptied from this size on: before
# the kernel thinks of writing it, and not with each batch.
EMPTY_BYTES = 32 * 1024


class JournalWriter:
    """Writes into the last of `segments` while that is open. After any StoreError it can go on."""

    def __init__(
        self, folder: Path, name: str, encoding: str, boot: bytes, segments: Segments
    ) -> None:
        self.index = 0  # of the newest file
        self.stream: StreamKey | None = None  # None: begin a new one
        self.number = 0  # of the newest record
        self.total = 0  # records in the stream so far
        self.unsynced = False  # something waits that only the kernel has
        self._folder = folder
        self._name = name
        self._encoding = encoding
        self._boot = boot
        self._packing = PACKINGS[encoding]()
        self._segments = segments
        self._fd: int | None = None
        self._told = 0  # the acknowledged number that the last header says
        self._placed = False  # the last file's name is on the disk

    @property
    def is_open(self) -> bool:
        """This process has written into the last file."""
        return self._fd is not None

    def goes_on(self, header: Header) -> bool:
        """Whether what was sent of the file's stream must be in it, if it is the newest."""
        return header.stream.encoding == self._encoding and (
            header.boot == self._boot or header.finished
        )

    def append(self, records: Sequence[Unnumbered]) -> None:
        """Number and write them. StoreError: none is kept."""
        fd = self._ready()
        last = self._segments.newest
        begun = segment.seed(last.stream)
        number, frames = self.number, list[bytes]()
        for skipped, body in records:
            number += skipped + 1
            frames.append(segment.frame(number, self._packing.numbered(body, number), begun))
        data = b"".join(frames)
        try:
            write(fd, data, last.size)
            if self._told < self._segments.accounted[last.stream]:
                self._write_header(fd)
        except OSError as error:
            self._undo(fd, last)
            raise files.failure("write", last.path, error) from error
        self._segments.resize(last, last.size + len(data))
        last.records += len(records)
        self.total += len(records)
        self.number = number
        self.unsynced = True

    def tell(self) -> None:
        """Write down what was acknowledged, before files of it go. StoreError."""
        if self._told >= self._segments.accounted.get(self._segments.newest.stream, 0):
            return
        fd = self._ready()
        try:
            self._write_header(fd)
        except OSError as error:
            raise files.failure("write", self._segments.newest.path, error) from error

    def sync(self) -> None:
        """Bring to the disk what waits. StoreError: it may be lost with the machine."""
        if self._fd is None or not self.unsynced:
            return
        try:
            os.fdatasync(self._fd)
            if not self._placed:
                files.sync_folder(self._folder)
                self._placed = True
        except OSError as error:
            path = self._segments.newest.path
            raise files.failure("bring to the disk", path, error) from error
        finally:
            self.unsynced = False

    def finish(self) -> None:
        """The last step of a process that ends well: its numbers can go on after any boot."""
        if self._fd is None:
            return
        try:
            self.unsynced = True
            self.sync()
            self._write_header(self._fd, finished=True)
            os.fdatasync(self._fd)
        except (OSError, StoreError) as error:
            log.warning("the outbox is left unfinished: %s", error)
        self._close()

    def empty(self) -> bool:
        """All is acknowledged: leave nothing but a header, if the file has grown. Was that done?"""
        self.unsynced = False
        last = self._segments.newest
        if self._fd is None or last.size < EMPTY_BYTES:
            return False
        last.first, last.before, last.records = self.number + 1, self.total, 0
        try:
            self._write_header(self._fd)
            os.ftruncate(self._fd, HEADER_BYTES)
        except OSError as error:
            log.warning("%s", files.failure("empty", last.path, error))
            return False
        self._segments.resize(last, HEADER_BYTES)
        return True

    def _ready(self) -> int:
        """The open file, a new one if there is none or it is full. StoreError."""
        if self._fd is not None and self._segments.newest.size < SEGMENT_BYTES:
            return self._fd
        self.sync()
        first_of_all = self._fd is None
        self._close()
        files.require_space(self._folder, SEGMENT_BYTES)
        if self.stream is None:
            self.stream = StreamKey(os.urandom(8).hex(), self._encoding)
            self.number = self.total = 0
            self._segments.accounted[self.stream] = 0
        index = self.index + 1
        path = self._folder / f"{self._name}-{index:010}-{self.stream.name}.seg"
        new = Segment(path, index, self.stream, self.number + 1, self.total, HEADER_BYTES)
        try:
            fd = self._make(new, synced=first_of_all)
        except OSError as error:
            raise files.failure("make", path, error) from error
        self._placed = first_of_all
        self.index = index
        self._fd = fd
        self._told = self._segments.accounted[self.stream]
        self._segments.add(new)
        return fd

    def _make(self, new: Segment, *, synced: bool) -> int:
        """Make the file with its header. OSError: it is not there."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(new.path, flags, files.PRIVATE_FILE)
        try:
            write(fd, self._header(new).packed(), 0)
            if synced:
                # From now on numbers are used: a machine that loses them must know it.
                os.fdatasync(fd)
                files.sync_folder(self._folder)
        except OSError:
            os.close(fd)
            files.remove(new.path)
            raise
        return fd

    def _header(self, of: Segment, *, finished: bool = False) -> Header:
        acknowledged = self._segments.accounted[of.stream]
        return Header(of.stream, self._boot, of.first, of.before, acknowledged, finished)

    def _write_header(self, fd: int, *, finished: bool = False) -> None:
        last = self._segments.newest
        write(fd, self._header(last, finished=finished).packed(), 0)
        self._told = self._segments.accounted[last.stream]

    def _undo(self, fd: int, last: Segment) -> None:
        """What was written in part must not be read one day as if it had been kept."""
        try:
            os.ftruncate(fd, last.size)
        except OSError:
            self.stream = None
        self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
