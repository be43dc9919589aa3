"""What a disk holds after a cut of the power, made of the log of its writes.

QEMU's `blklogwrites` writes each request down in the order of arrival, in the form of the kernel's
dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst): a sector with the header;
then for each request a sector that describes it, and its data.

What was written before a completed flush stays. Of what came later each write may be there, or
not, or its first sectors only: a disk with a cache promises no more.
"""

from __future__ import annotations

import enum
import random
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

MAGIC = 0x6A736677736872
SECTOR = 512
_HEADER = struct.Struct("<QQQI")  # magic, version, number of entries, bytes of a sector
_ENTRY = struct.Struct("<QQQQ")  # sector, sectors, flags, bytes of a mark's data
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8


class LogError(ValueError):
    """It is no such log."""


class Write(NamedTuple):
    """One request; `data` is where its bytes lie in the log, 0 for a flush and a discard."""

    start: int  # in bytes, on the disk
    size: int
    data: int
    end: int  # in the log: what came later begins there
    flush: bool = False
    discard: bool = False


class Fate(enum.Enum):
    """What may become of the writes since the latest flush."""

    ALL_LOST = "all lost"
    SOME_LOST = "some lost"
    TORN = "some lost, some torn"
    NONE_LOST = "none lost"


class Cut(NamedTuple):
    """The power goes when `requests` have come."""

    requests: int
    flushed: int  # so many of them lie before the latest flush
    fate: Fate
    survivors: tuple[tuple[int, int], ...]  # (request, its first bytes that are on the disk)


def requests(log: Path, begin: int = 0) -> list[Write]:
    """All that the log has as a whole; what was being written when QEMU was ended is left out.

    `begin` is the `end` of a request: only what came later. LogError.
    """
    found = []
    size = log.stat().st_size
    with log.open("rb") as file:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size or _HEADER.unpack(header)[:2] != (MAGIC, 1):
            raise LogError(f"{log} is no log of writes")
        sector_bytes = _HEADER.unpack(header)[3]
        at = max(begin, sector_bytes)
        # The number in the header is renewed seldom: the entries themselves are followed.
        while at + sector_bytes <= size:
            file.seek(at)
            sector, count, flags, _ = _ENTRY.unpack(file.read(_ENTRY.size))
            at += sector_bytes
            bare = bool(flags & (FLUSH | DISCARD)) or count == 0
            if not flags and not count:
                break  # an entry of zeros: nothing was written here yet
            data, at = at, at if bare else at + count * sector_bytes
            if at > size:
                break
            found.append(
                Write(
                    sector * sector_bytes,
                    count * sector_bytes,
                    0 if bare else data,
                    at,
                    bool(flags & FLUSH),
                    bool(flags & DISCARD),
                )
            )
    return found


def cuts(log: Sequence[Write], count: int, seed: int, begins: Sequence[int] = (0,)) -> list[Cut]:
    """`count` cuts at random moments, in their order.

    As many in each part of the log; `begins` says how many requests came before each part.
    """
    chance = random.Random(seed)
    fates = list(Fate)
    ends = (*begins[1:], len(log))
    parts = list(zip(begins, ends, strict=True))
    moments = sorted(chance.randint(*parts[each % len(parts)]) for each in range(count))
    return [cut(log, moment, chance.choice(fates), chance) for moment in moments]


def cut(log: Sequence[Write], moment: int, fate: Fate, chance: random.Random) -> Cut:
    """The power goes after `moment` requests; `chance` says what survives of those not flushed."""
    flushed = next((at for at in range(moment, 0, -1) if log[at - 1].flush), 0)
    survivors = []
    for number in range(flushed, moment):
        size = log[number].size
        if fate is Fate.ALL_LOST or log[number].flush:
            continue
        if fate is not Fate.NONE_LOST and chance.random() < 0.5:
            continue
        if fate is Fate.TORN and not log[number].discard and chance.random() < 0.5:
            size = chance.randrange(0, size, SECTOR)
        survivors.append((number, size))
    if fate in (Fate.SOME_LOST, Fate.TORN):
        # A disk writes in the order that suits it.
        chance.shuffle(survivors)
    return Cut(moment, flushed, fate, tuple(survivors))


class Replay:
    """Makes disks as cuts leave them, from `base`: the disk as it was when the log began.

    Cuts must come in the order of their moments.
    """

    def __init__(self, log: Path, base: Path) -> None:
        """`base` is changed: it becomes what was surely on the disk."""
        self._log, self._base = log, base
        self._requests = requests(log)
        self._done = 0
        self._unsure: list[Write] = []  # on the disk that `turn` made, and not in the base

    def make(self, state: Cut, disk: Path) -> None:
        """The disk after this cut, as a file of its own."""
        self._settle(state)
        with self._base.open("rb") as base, disk.open("wb") as made:
            for at, block in _blocks(base):
                made.seek(at)
                made.write(block)
            made.truncate(self._base.stat().st_size)
        self._survive(state, disk)

    def turn(self, state: Cut, disk: Path, written: Iterable[Write] = ()) -> None:
        """Make `disk`, a copy of the base once and turned by each cut since, what this cut left.

        `written` is what others have written to it since it was turned: that is taken back. Little
        is written where `make` copies all.
        """
        changed = [*self._unsure, *written, *self._settle(state)]
        with self._base.open("rb") as base, disk.open("r+b") as made:
            for request in changed:
                base.seek(request.start)
                made.seek(request.start)
                made.write(base.read(request.size))
        self._survive(state, disk)
        self._unsure = [self._requests[number] for number, _ in state.survivors]

    def _settle(self, state: Cut) -> Sequence[Write]:
        """Have what was flushed in the base; what is new there."""
        if state.flushed < self._done:
            raise ValueError("an earlier cut than the one before")
        new = self._requests[self._done : state.flushed]
        with self._log.open("rb") as log, self._base.open("r+b") as base:
            for request in new:
                _apply(log, base, request, request.size)
        self._done = state.flushed
        return new

    def _survive(self, state: Cut, disk: Path) -> None:
        with self._log.open("rb") as log, disk.open("r+b") as made:
            for number, size in state.survivors:
                _apply(log, made, self._requests[number], size)


def _apply(log: IO[bytes], disk: IO[bytes], request: Write, size: int) -> None:
    if request.flush:
        return
    disk.seek(request.start)
    if request.discard:
        disk.write(bytes(size))
    else:
        log.seek(request.data)
        disk.write(log.read(size))


def _blocks(file: IO[bytes], size: int = 1 << 16) -> Iterator[tuple[int, bytes]]:
    """The blocks that are not all zeros: copies stay as sparse as the original."""
    nothing, at = bytes(size), 0
    while block := file.read(size):
        if block != nothing[: len(block)]:
            yield at, block
        at += len(block)
