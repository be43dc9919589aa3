"""From when to when something counts: documents, sets of keys, certificates. Pure."""

from datetime import UTC, datetime
from typing import NamedTuple

_DAY_S, _HOUR_S = 86_400, 3600


class Validity(NamedTuple):
    """Both in seconds since 1970."""

    issued: float
    expires: float

    def as_document(self) -> dict[str, str]:
        """As documents have it. ValueError, OverflowError: not in any calendar."""
        return {"issued": written(self.issued), "expires": written(self.expires)}

    def over(self, now: float) -> bool:
        """Whether it counts no more."""
        return now >= self.expires

    def ending(self, now: float) -> str:
        """For people, from the last third on: "expires in 12 days", "expired on ..."; else ""."""
        left_s = self.expires - now
        if left_s <= 0:
            return f"expired on {written(self.expires)}"
        if left_s >= (self.expires - self.issued) / 3:
            return ""
        days = left_s >= 2 * _DAY_S
        left = f"{left_s / _DAY_S:.0f} days" if days else f"{left_s / _HOUR_S:.0f} hours"
        return f"expires in {left}"


def written(seconds: float) -> str:
    """As documents have times. ValueError, OverflowError: a time that no calendar has."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
