"""Sizes and durations as an operator writes them, and from when to when something counts. Pure."""

import re
from datetime import UTC, datetime
from typing import NamedTuple

_SIZE = re.compile(r"(\d{1,12})\s*(B|KiB|MiB|GiB)")
_SIZE_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*(ms|s|m|h)")
_DAYS = re.compile(r"(\d{1,5})\s*d")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

SIZE_FORM = 'bytes as a number, or a string such as "64KiB" or "32MiB"'
DURATION_FORM = 'a string with its unit (ms, s, m, h) such as "500ms", "1s" or "5m"'
VALIDITY_FORM = 'a string with its unit (s, m, h, d) such as "12h", "30d" or "730d", at most 99999d'
MAX_VALIDITY_S = 99_999 * 86_400.0  # 273 years: a later end has no date to be written as


def parse_size(value: object) -> int | None:
    """Bytes, or None if `value` is not a size."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    return int(match[1]) * _SIZE_UNITS[match[2]] if match else None


def format_size(size: int) -> str:
    """The shortest exact way to write `size` bytes."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _SIZE_UNITS[unit] == 0:
            return f"{size // _SIZE_UNITS[unit]}{unit}"
    return f"{size}B"


def parse_duration(value: object) -> float | None:
    """Seconds, or None if `value` is not a duration; a bare number has no unit, so is none."""
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    return float(match[1]) * _DURATION_UNITS[match[2]] if match else None


def parse_validity(value: object) -> float | None:
    """The same for what expires: days too, which is what people think in there; above 0 and at
    most MAX_VALIDITY_S."""
    match = _DAYS.fullmatch(value.strip()) if isinstance(value, str) else None
    seconds = int(match[1]) * 86_400.0 if match else parse_duration(value)
    return seconds if seconds and seconds <= MAX_VALIDITY_S else None


def format_duration(seconds: float) -> str:
    """A short way to write a duration."""
    for unit in ("h", "m", "s"):
        count = seconds / _DURATION_UNITS[unit]
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    return f"{seconds * 1000:g}ms"


_DAY_S, _HOUR_S = 86_400, 3600


class Validity(NamedTuple):
    """Both in seconds since 1970."""

    issued: float
    expires: float

    def as_document(self) -> dict[str, str]:
        """Both times in the form that documents use. ValueError, OverflowError: no calendar has
        them."""
        return {"issued": written(self.issued), "expires": written(self.expires)}

    def over(self, now: float) -> bool:
        """Whether it has expired."""
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
    """The time in the form that documents use. ValueError, OverflowError: a time that no calendar
    has."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
