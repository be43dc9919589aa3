"""What came from the broker and was not taken: told with its reason, counted, logged once. Pure."""

import logging
from typing import TypedDict

from edge_agent.errors import CryptoError, RefusedError
from edge_agent.text import printable

log = logging.getLogger(__name__)

# What an attacker writes is in it.
MAX_TEXT = 300


class Refusal(TypedDict):
    """The latest refusal of one kind of message, for reports."""

    reason: str  # a word: `signature`, `rollback`, ... (docs/fleet-protocol.md)
    text: str
    count: int  # refused in a row, for whatever reasons
    generation: int | None  # what it says of itself, where trusted keys signed it


class Refusals:
    """By kind of message: `deployment` or `trust`. Memory is bounded by kinds times reasons."""

    def __init__(self) -> None:
        self._latest: dict[str, Refusal] = {}
        self._told: set[tuple[str, str]] = set()

    def add(
        self, kind: str, error: RefusedError | CryptoError, generation: int | None = None
    ) -> None:
        """A message of this kind was refused, or could not be checked."""
        reason = error.reason if isinstance(error, RefusedError) else "signature"
        text = printable(str(error))[:MAX_TEXT]
        before = self._latest.get(kind)
        count = before["count"] + 1 if before else 1
        self._latest[kind] = Refusal(reason=reason, text=text, count=count, generation=generation)
        if (kind, reason) not in self._told:
            self._told.add((kind, reason))
            log.warning("the %s from the broker is refused (%s): %s", kind, reason, text)

    def clear(self, kind: str, *, new: bool) -> None:
        """A good one came; after a `new` one, which nobody but the fleet can make, what is
        refused is told again."""
        self._latest.pop(kind, None)
        if new:
            self._told = {told for told in self._told if told[0] != kind}

    def latest(self, kind: str) -> Refusal | None:
        """None when the latest of this kind was taken."""
        return self._latest.get(kind)
