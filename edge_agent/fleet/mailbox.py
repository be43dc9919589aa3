"""The latest document of each kind that came, until it is looked at. Pure.

Whoever floods a node with documents makes it look at one each second, and keep one.
"""

import math
from collections.abc import Iterable

# Between two documents of one kind that are looked at.
LOOK_PAUSE_S = 1.0


class Mailbox:
    """Times are monotonic seconds."""

    def __init__(self, kinds: Iterable[str], max_bytes: int) -> None:
        """Of what is longer than `max_bytes`, that much and one byte is kept: refused anyway."""
        self._keep = max_bytes + 1
        self._mail: dict[str, bytes] = {}
        self._not_before = dict.fromkeys(kinds, -math.inf)

    def put(self, kind: str, raw: bytes) -> None:
        """The latest takes the place of one before it. Nothing retained any more is no news."""
        if raw:
            self._mail[kind] = raw[: self._keep]

    def take(self, kind: str, now: float) -> bytes:
        """The document of this kind, if it is time to look at one; else nothing."""
        if kind not in self._mail or now < self._not_before[kind]:
            return b""
        self._not_before[kind] = now + LOOK_PAUSE_S
        return self._mail.pop(kind)

    def put_back(self, kind: str, raw: bytes, until: float) -> None:
        """Look at it again then, unless a later one comes."""
        self._mail.setdefault(kind, raw)
        self._not_before[kind] = until

    @property
    def due(self) -> float:
        """When there is something to take."""
        return min((self._not_before[kind] for kind in self._mail), default=math.inf)
