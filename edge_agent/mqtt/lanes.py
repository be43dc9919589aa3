"""A bounded queue that gives up its oldest ordinary entries first. Pure, no locks."""

from collections import deque
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")


class Entry(NamedTuple, Generic[Item]):
    """One numbered item; `size` in bytes is what it counts against the queue's bound."""

    number: int
    size: int
    important: bool
    item: Item


class Lanes(Generic[Item]):
    """Entries in the order of their numbers, at most `max_entries` and `max_bytes` of them.

    Important entries stand in a lane of their own and are given up only when no
    ordinary one is left, so what is left keeps its order and every step is O(1).
    """

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._ordinary: deque[Entry[Item]] = deque()
        self._important: deque[Entry[Item]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._ordinary) + len(self._important)

    def push(self, entry: Entry[Item]) -> int:
        """Add the newest entry; returns how many were given up, itself perhaps among them."""
        if entry.size > self._max_bytes:
            return 1  # alone too large: nothing else has to go for it
        (self._important if entry.important else self._ordinary).append(entry)
        self._bytes += entry.size
        dropped = 0
        while len(self) > self._max_entries or self._bytes > self._max_bytes:
            self._bytes -= (self._ordinary or self._important).popleft().size
            dropped += 1
        return dropped

    def push_back(self, entry: Entry[Item]) -> None:
        """Return an entry that was popped; its number is below all others.

        It may stand above the bounds: the next `push` enforces them again.
        """
        (self._important if entry.important else self._ordinary).appendleft(entry)
        self._bytes += entry.size

    def first(self) -> Entry[Item] | None:
        """The entry with the lowest number, left in place."""
        lane = self._first_lane()
        return lane[0] if lane else None

    def pop(self) -> Entry[Item]:
        """Take the entry with the lowest number. Raises IndexError if there is none."""
        entry = self._first_lane().popleft()
        self._bytes -= entry.size
        return entry

    def _first_lane(self) -> deque[Entry[Item]]:
        if not self._important:
            return self._ordinary
        if not self._ordinary or self._important[0].number < self._ordinary[0].number:
            return self._important
        return self._ordinary
