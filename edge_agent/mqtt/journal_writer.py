"""The end of a lane, where records are numbered, held in memory for a while, and written.

What is held and acknowledged is never written (docs/adr/0051). Nothing is synced when it is
written: what the kernel was given survives the end of this process, however it ends. What
waits longer is synced (docs/adr/0026).

A *number* must not come twice, with something else, after the machine lost what was not
synced, or a killed process what it held: a lane that was not finished properly goes on with a
new stream, from 1, behind what is left of the old one. Where nothing is held, that is so only
after another boot.
"""

import logging
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from edge_agent.errors import StoreError
from edge_agent.fleet_protocol.packing import PACKINGS
from edge_agent.mqtt import segment
from edge_agent.mqtt.segment import HEADER_BYTES, Header, Place, Segment, Segments, write
from edge_agent.mqtt.stream import Entry, StreamKey, Unnumbered
from edge_agent.store import files

log = logging.getLogger(__name__)

# A file is given up as a whole when the bound is reached, and read as a whole.
SEGMENT_BYTES = 256 * 1024
# An unfinished file whose records are all acknowledged is emptied from this size on: before
# the kernel thinks of writing it, and not with each batch.
EMPTY_BYTES = 32 * 1024
# Stands for the boot in the header of a file whose stream has numbers that are in no file.
NO_BOOT = bytes(16)


class Held(NamedTuple):
    """A numbered record that is in memory only."""

    entry: Entry
    since: float  # monotonic


class JournalWriter:
    """Writes into the last of `segments` while that is open. After any StoreError it can go on."""

    def __init__(
        self, folder: Path, name: str, encoding: str, boot: bytes, segments: Segments, holds: bool
    ) -> None:
        """`holds`: `hold` may be called."""
        self.index = 0  # of the newest file
        self.stream: StreamKey | None = None  # None: begin a new one
        self.number = 0  # of the newest record
        self.total = 0  # records of the stream that were written so far
        self.held: deque[Held] = deque()
        self.held_bytes = 0
        self.unsynced = False  # something waits that only the kernel has
        self._folder = folder
        self._name = name
        self._encoding = encoding
        self._boot = boot
        self._holds = holds
        self._packing = PACKINGS[encoding]()
        self._segments = segments
        self._fd: int | None = None
        self._written_accounted = 0  # the acknowledged number that the last header says
        self._placed = False  # the last file's name is on the disk

    @property
    def is_open(self) -> bool:
        """Whether this process has written into the last file."""
        return self._fd is not None

    def goes_on(self, header: Header) -> bool:
        """Whether what was sent of the file's stream must be in it, if it is the newest."""
        return header.stream.encoding == self._encoding and (
            header.boot == self._boot or header.finished
        )

    def begin(self) -> None:
        """Have a file, which says on the disk that numbers of its stream are used. StoreError."""
        self._ready()

    def hold(self, records: Sequence[Unnumbered], now: float) -> None:
        """Number them and hold them in memory. StoreError: none is kept.

        The first file says on the disk that numbers are used, so that no other process does.
        """
        self._ready()
        for entry in self._numbered(records):
            self.held.append(Held(entry, now))
            self.held_bytes += len(entry.packed)
            self.number = entry.number

    def let_go(self) -> None:
        """The oldest record that is held was acknowledged."""
        self.held_bytes -= len(self.held.popleft().entry.packed)

    def append(self, records: Sequence[Unnumbered]) -> list[Place]:
        """Number and write them; the places before each and behind the last one. Nothing is
        held any more. StoreError: none is kept.
        """
        fd = self._ready()
        return self._write(fd, self._numbered(records))

    def flush(self) -> list[Place]:
        """Write what is held, and hold it no more; as `append`. StoreError: it is held still."""
        if not self.held:
            return []
        fd = self._ready()
        places = self._write(fd, [held.entry for held in self.held])
        self.held.clear()
        self.held_bytes = 0
        return places

    def _write(self, fd: int, entries: Sequence[Entry]) -> list[Place]:
        last, begun = self._segments.newest, segment.seed(entries[0].stream)
        places, frames = [self._segments.end], list[bytes]()
        for entry in entries:
            frames.append(segment.frame(entry.number, entry.packed, begun))
            _, offset, before = places[-1]
            places.append(Place(last, offset + len(frames[-1]), before + 1))
        try:
            # First: or what it accounts for would seem to be missing in front of the records.
            if self._written_accounted < self._segments.accounted[last.stream]:
                self._write_header(fd)
            write(fd, b"".join(frames), last.size)
        except OSError as error:
            self._undo(fd, last)
            raise files.failure("write", last.path, error) from error
        self._segments.resize(last, places[-1].offset)
        last.records += len(entries)
        self.total += len(entries)
        self.number = entries[-1].number
        self.unsynced = True
        return places

    def write_accounted(self) -> None:
        """Write down what was acknowledged, before files of it go. StoreError."""
        if self._written_accounted >= self._segments.accounted.get(self._segments.newest.stream, 0):
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
        try:
            self.flush()
            self.unsynced = True
            self.sync()
            if self._fd is not None:
                self._write_header(self._fd, finished=True)
                os.fdatasync(self._fd)
        except (OSError, StoreError) as error:
            lost = f"; {len(self.held)} results are lost with it" if self.held else ""
            log.warning("the outbox is left unfinished: %s%s", error, lost)
        self._close()

    def empty(self) -> None:
        """The broker has all that was written: leave only a header, if the file has grown."""
        self.unsynced = False
        last = self._segments.newest
        # Where records are held there will be no next write that tells what was acknowledged.
        least = HEADER_BYTES + 1 if self._holds else EMPTY_BYTES
        if self._fd is None or last.size < least:
            return
        last.first, last.before, last.records = self._first(), self.total, 0
        try:
            self._write_header(self._fd)
            os.ftruncate(self._fd, HEADER_BYTES)
        except OSError as error:
            log.warning("%s", files.failure("empty", last.path, error))
            return
        self._segments.resize(last, HEADER_BYTES)

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
        new = Segment(path, index, self.stream, self._first(), self.total, HEADER_BYTES)
        try:
            fd = self._make(new, synced=first_of_all)
        except OSError as error:
            raise files.failure("make", path, error) from error
        self._placed = first_of_all
        self.index = index
        self._fd = fd
        self._written_accounted = self._segments.accounted[self.stream]
        self._segments.add(new)
        return fd

    def _numbered(self, records: Sequence[Unnumbered]) -> list[Entry]:
        assert self.stream is not None  # `_ready` made one
        number, entries = self.number, list[Entry]()
        for skipped, body in records:
            number += skipped + 1
            entries.append(Entry(self.stream, number, self._packing.numbered(body, number)))
        return entries

    def _first(self) -> int:
        """The least number that can be written next."""
        return self.held[0].entry.number if self.held else self.number + 1

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
        boot = NO_BOOT if self._holds else self._boot
        return Header(of.stream, boot, of.first, of.before, acknowledged, finished)

    def _write_header(self, fd: int, *, finished: bool = False) -> None:
        last = self._segments.newest
        write(fd, self._header(last, finished=finished).packed(), 0)
        self._written_accounted = self._segments.accounted[last.stream]

    def _undo(self, fd: int, last: Segment) -> None:
        """What was written in part must not be read one day as if it had been kept."""
        try:
            os.ftruncate(fd, last.size)
        except OSError:
            if not self.held:  # those keep their numbers: they may as well be read
                self.stream = None
        self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
