"""What came from the broker and was not taken: told with its reason, counted, logged once. Pure."""

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from edge_agent.errors import CryptoError, RefusedError
from edge_agent.store.digest import sha256_hex
from edge_agent.text import printable

if TYPE_CHECKING:
    from edge_agent.fleet_protocol.reported_state import Refusal

log = logging.getLogger(__name__)

# What an attacker writes is in it.
MAX_TEXT = 300
NAME_DIGITS = 16


def message_name(raw: bytes) -> str:
    """The first digits of its SHA-256: which message of the broker is meant, in a state."""
    return sha256_hex(raw)[:NAME_DIGITS]


class Refusals:
    """By kind of message: `deployment` or `trust`. Memory is bounded by kinds times reasons."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """`clock` counts seconds from 1970, as well as this node knows."""
        self._clock = clock
        self._latest: dict[str, Refusal] = {}
        self._told: set[tuple[str, str]] = set()

    def add(
        self,
        kind: str,
        raw: bytes,
        error: RefusedError | CryptoError,
        generation: int | None = None,
    ) -> None:
        """The message `raw` of this kind was refused, or could not be checked."""
        reason = error.reason if isinstance(error, RefusedError) else "signature"
        text = printable(str(error))[:MAX_TEXT]
        before = self._latest.get(kind)
        count = before["count"] + 1 if before else 1
        since = before["since"] if before and before["reason"] == reason else int(self._clock())
        self._latest[kind] = {
            "reason": reason,
            "text": text,
            "count": count,
            "since": since,
            "generation": generation,
            "message": message_name(raw),
        }
        if (kind, reason) not in self._told:
            self._told.add((kind, reason))
            log.warning("the %s from the broker is refused (%s): %s", kind, reason, text)

    def clear(self, kind: str, *, new: bool) -> None:
        """A good one came; after a `new` one, which nobody but the fleet can make, what is
        refused is told again."""
        self._latest.pop(kind, None)
        if new:
            self._told = {told for told in self._told if told[0] != kind}

    def latest(self, kind: str) -> "Refusal | None":
        """None when the latest of this kind was taken."""
        return self._latest.get(kind)
