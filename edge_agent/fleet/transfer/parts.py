"""Fetching a blob in parts that are retained at the broker, and the parts on the disk.

A part is asked for by subscribing to its topic, where it is retained. Only the next few are,
so that a blob of any size takes no more memory than this window, and a broker that answers
nothing is asked again after growing pauses (`Window`, which is pure):

    ASKING --(nothing new for IDLE_S)--> PAUSED --(pause over)--> ASKING ... --> given up

On the disk each part is one file, whole or not there. Its name tells how the blob was cut, so
that parts of one cut are never put together with those of another; whether it is the right one
only the digest of the blob tells.
"""

import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from edge_agent.errors import StoreError, TransferError, WrongBlobError
from edge_agent.fleet_protocol.deployment import Blob
from edge_agent.store import files
from edge_agent.store.digest import PART_BYTES, Digest, sha256

DECODED = "decoded"
_NUMBER_DIGITS = 9


def part_prefix(blob: Blob) -> str:
    """The prefix of the names of all parts that the blob was cut into."""
    return f"{blob.encoding}-{blob.part_size}-{blob.parts}-"


def is_part_size(blob: Blob, number: int, size: int) -> bool:
    """Whether part `number` may have `size` bytes: all have as many, the last has the rest."""
    if number == blob.parts - 1:
        return 0 < size <= blob.part_size
    return size == blob.part_size


class PartFiles:
    """The parts of `blob` in `folder`, which belongs to this blob alone. StoreError."""

    def __init__(self, folder: Path, blob: Blob) -> None:
        self._folder = folder
        self._blob = blob
        self._prefix = part_prefix(blob)

    def here(self) -> set[int]:
        """The numbers of the parts that are there."""
        files.remove_leftovers(self._folder)
        return set(self._parts())

    def store(self, number: int, data: bytes) -> None:
        """Put part `number` on the disk."""
        files.write(self._path(number), data)

    def remove(self) -> None:
        """Remove every part."""
        for path in self._parts().values():
            files.remove(path)

    def decode(self) -> Path:
        """The blob, decoded and checked, as a file. All parts must be there.

        WrongBlobError if the parts make another one, or more bytes than declared; no more
        are then written.
        """
        path = self._folder / DECODED
        files.remove(path)
        digest = sha256()
        left = self._blob.size
        try:
            with files.open_new(path) as file:
                for piece in self._pieces():
                    left -= len(piece)
                    if left < 0:
                        raise WrongBlobError(
                            f"its parts decode to more than the declared {self._blob.size} bytes"
                        )
                    digest.update(piece)
                    file.write(piece)
        except OSError as error:
            files.remove(path)
            raise files.failure("write", path, error) from error
        except (TransferError, StoreError):
            files.remove(path)
            raise
        found = Digest.made(digest)
        if left or found != self._blob.digest:
            files.remove(path)
            raise WrongBlobError(f"its parts make {found}, which is another blob")
        return path

    def _pieces(self) -> Iterator[bytes]:
        """The decoded blob in pieces of at most PART_BYTES, whatever the parts say."""
        encoded = (self._part(number) for number in range(self._blob.parts))
        if self._blob.encoding != "zlib":
            for part in encoded:
                for at in range(0, len(part), PART_BYTES):
                    yield part[at : at + PART_BYTES]
            return
        inflate = zlib.decompressobj()
        try:
            for part in encoded:
                if inflate.eof:  # all that follows would gather in memory
                    raise WrongBlobError("its parts go on after the end of the zlib data")
                yield inflate.decompress(part, PART_BYTES)
                while inflate.unconsumed_tail:
                    yield inflate.decompress(inflate.unconsumed_tail, PART_BYTES)
            yield inflate.flush()  # the rest of one match, at most
        except zlib.error as error:
            raise WrongBlobError(f"its parts are not zlib data: {error}") from error
        if not inflate.eof or inflate.unused_data:
            raise WrongBlobError("its parts do not end where the zlib data does")

    def _parts(self) -> dict[int, Path]:
        try:
            entries = list(self._folder.iterdir())
        except OSError as error:
            raise files.failure("list", self._folder, error) from error
        numbers = {path: self._number(path) for path in entries}
        return {number: path for path, number in numbers.items() if number is not None}

    def _part(self, number: int) -> bytes:
        path = self._path(number)
        try:
            data = files.read(path, self._blob.part_size)
        except StoreError as error:
            files.remove(path)  # to be asked for again, instead of failing for ever
            raise TransferError(f"part {number} cannot be read again: {error}") from error
        if data is None:
            raise TransferError(f"part {number} is gone: {path}")
        return data

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._prefix}{number}"

    def _number(self, path: Path) -> int | None:
        """The part that `path` is, or None if it is not one."""
        tail = path.name.removeprefix(self._prefix)
        if not (tail.isascii() and tail.isdecimal() and len(tail) <= _NUMBER_DIGITS):
            return None
        number = int(tail)
        if number >= self._blob.parts or path != self._path(number):
            return None
        try:
            size = path.lstat().st_size
        except OSError:
            return None
        return number if is_part_size(self._blob, number, size) else None


# Parts asked for at one time: two round trips' worth on a slow link, 512 KiB of memory.
WINDOW_PARTS = 8
# A part of 64 KiB at 2 KiB/s and the links' round trips fit.
IDLE_S = 60.0
# After each time that nothing came; a part that does come starts again with the first.
PAUSES_S = (5.0, 30.0, 120.0)


class Window:
    """The parts of one blob, numbered from 0. Times are monotonic seconds."""

    def __init__(self, blob: Blob, here: Iterable[int], now: float) -> None:
        """`here` are the numbers that earlier transfers left."""
        self._blob = blob
        # A byte for each part: a blob may have many, and a node little memory.
        self._here = bytearray(blob.parts)
        for number in here:
            self._here[number] = 1
        self._next = 0  # all below are here or asked for
        self._asked: set[int] = set()
        self._failures = 0  # times in a row that nothing came
        self._due = now  # until then a part must come or, in a pause, none is asked for
        self._paused = True

    @property
    def done(self) -> bool:
        """Every part is here."""
        return self._here.count(1) == len(self._here)

    @property
    def count(self) -> int:
        """How many parts are here."""
        return self._here.count(1)

    @property
    def asked(self) -> frozenset[int]:
        """The parts asked for and not here."""
        return frozenset(self._asked)

    @property
    def due(self) -> float:
        """When to call `tick` again."""
        return math.inf if self.done else self._due

    def tick(self, now: float) -> frozenset[int]:
        """The parts not to be asked for any longer; call `ask` afterwards.

        TransferError once nothing came after the last pause: `asked` still holds what the
        caller then must stop asking for.
        """
        if self.done or self._paused or now < self._due:
            return frozenset()
        if self._failures == len(PAUSES_S):
            raise TransferError(
                f"part {min(self._asked)} of {len(self._here)} did not come from the broker;"
                " is the plugin published there?"
            )
        self._paused, self._due = True, now + PAUSES_S[self._failures]
        self._failures += 1
        dropped, self._asked = frozenset(self._asked), set()
        self._next = 0
        return dropped

    def ask(self, now: float) -> list[int]:
        """The parts to ask for now, beside those that have been."""
        if self._paused:
            if now < self._due:
                return []
            self._paused, self._due = False, now + IDLE_S
        new: list[int] = []
        while len(self._asked) < WINDOW_PARTS:
            self._next = self._here.find(0, self._next)
            if self._next < 0:
                self._next = len(self._here)
                break
            self._asked.add(self._next)
            new.append(self._next)
            self._next += 1
        return new

    def wants(self, number: int, size: int) -> bool:
        """Whether a part that came is to be stored: it was asked for and is not here yet.

        TransferError if it cannot be this part: `size` is not what parts of this blob have.
        """
        if number not in self._asked:
            return False  # twice, or late: it was asked for once
        if not is_part_size(self._blob, number, size):
            raise TransferError(
                f"part {number} of {self._blob.parts} has {size} bytes, where parts have"
                f" {self._blob.part_size}"
            )
        return True

    def stored(self, number: int, now: float) -> None:
        """Part `number` is on the disk."""
        self._asked.discard(number)
        self._here[number] = 1
        self._failures, self._due = 0, now + IDLE_S


class BrokerPort(Protocol):
    """The part of the link to the broker that is used here. Neither method waits; both are
    idempotent."""

    def subscribe(self, topics: Iterable[str], *, anew: bool = False) -> None:
        """Have what is retained there sent, also after the next connection; with `anew` once more
        where it was sent before."""

    def unsubscribe(self, topics: Iterable[str]) -> None:
        """No longer."""


class OverMqtt:
    """One try to get `blob` from the broker."""

    def __init__(
        self, blob: Blob, folder: Path, topic: Callable[[int], str], broker: BrokerPort, now: float
    ) -> None:
        """`topic` is that of a part. StoreError."""
        self._blob = blob
        self._topic = topic
        self._broker = broker
        self._files = PartFiles(folder, blob)
        self._window = Window(blob, self._files.here(), now)

    @property
    def due(self) -> float:
        """When `step` must be called at the latest."""
        return self._window.due

    @property
    def progress(self) -> float:
        """How much of the blob is here, 0 to 1."""
        return self._window.count / self._blob.parts

    def step(self, now: float) -> Path | None:
        """The blob once it is here. TransferError, WrongBlobError, StoreError."""
        if dropped := self._window.tick(now):
            self._broker.unsubscribe(map(self._topic, dropped))
        if new := self._window.ask(now):
            self._broker.subscribe(map(self._topic, new))
        if not self._window.done:
            return None
        try:
            return self._files.decode()
        except WrongBlobError:
            self._files.remove()  # which of them is wrong is not known
            raise

    def take(self, number: int, data: bytes, now: float) -> None:
        """A part came. TransferError if it cannot be one of this blob, StoreError."""
        if self._window.wants(number, len(data)):
            self._files.store(number, data)
            self._window.stored(number, now)
            self._broker.unsubscribe([self._topic(number)])

    def close(self) -> None:
        """Ask for nothing more; what came stays on the disk."""
        self._broker.unsubscribe(map(self._topic, sorted(self._window.asked)))
