"""Thresholds of a board's pressure, as `[pressure]` in NN-name.toml has them. Pure.

memory = "some 20% over 10s"     also cpu and io, "full", and 60s or 300s
temperature = "80 C"
throttled = "yes"
disk = "/var/lib below 10%"      or a size, such as 500MiB
every = "5s"                     between two looks
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from edge_agent.config.units import parse_duration, parse_size

STALLS = ("memory", "cpu", "io")
KEYS = (*STALLS, "temperature", "throttled", "disk", "every")
MAX_TEXT_CHARS = 300
LEAST_S, MOST_S = 1.0, 86_400.0
"""Between two looks, and between two calls by the timer."""
_DEFAULT_EVERY_S = 5.0

_STALL = re.compile(r"(some|full) ([0-9]{1,3}(?:\.[0-9]{1,2})?)% over (10|60|300)s")
_TEMPERATURE = re.compile(r"(-?[0-9]{1,3}(?:\.[0-9]{1,3})?) ?C")
_DISK = re.compile(r"(/[!-~]{0,200}) below (?:([0-9]{1,2}(?:\.[0-9]{1,2})?)%|([0-9]+ ?[KMG]iB))")


class Stall(NamedTuple):
    """Tasks wait for longer than `share` (hundredths of a percent) of the last `over_s`."""

    full: bool  # all of them, not only some
    share: int
    over_s: int


class DiskLimit(NamedTuple):
    """Less is free than `share` (hundredths of a percent), or than `least` bytes."""

    path: str
    share: int | None
    least: int


class Thresholds(NamedTuple):
    """What is looked at, every so many seconds."""

    stalls: dict[str, Stall]
    temperature: int | None  # thousandths of a degree Celsius
    throttled: bool
    disk: DiskLimit | None
    every_s: float


def read(pairs: Iterable[tuple[str, str]]) -> Thresholds:
    """Of the keys and values of the table. ValueError: "KEY: problem", the first."""
    given = dict(pairs)
    unknown = given.keys() - set(KEYS)
    if unknown:
        raise ValueError(f"{min(unknown)}: is not known; there are {', '.join(KEYS)}")
    every_s = parse_duration(given.pop("every", f"{_DEFAULT_EVERY_S:g}s"))
    if every_s is None or not LEAST_S <= every_s <= MOST_S:
        raise ValueError('every: must be a duration of 1s to 24h, such as "5s"')
    if not given:
        raise ValueError(f"every: without a threshold; there are {', '.join(KEYS[:-1])}")
    found: dict[str, re.Match[str]] = {}
    for key, text in given.items():
        pattern, form = _FORMS[key]
        match = pattern.fullmatch(text)
        if match is None:
            raise ValueError(f"{key}: must be {form}")
        found[key] = match
    stalls = {key: _stall(key, found[key]) for key in STALLS if key in found}
    temperature = round(float(found["temperature"][1]) * 1000) if "temperature" in found else None
    disk = _disk(found["disk"]) if "disk" in found else None
    return Thresholds(stalls, temperature, "throttled" in found, disk, every_s)


_STALL_FORM = 'such as "some 20% over 10s": some or full, a share, 10s, 60s or 300s'
_FORMS = {
    **dict.fromkeys(STALLS, (_STALL, _STALL_FORM)),
    "temperature": (_TEMPERATURE, 'a temperature such as "80 C"'),
    "throttled": (re.compile("yes"), '"yes", or left out'),
    "disk": (_DISK, 'such as "/var/lib below 10%" or "/var/lib below 500MiB"'),
}


def _stall(key: str, found: re.Match[str]) -> Stall:
    share = _hundredths(found[2])
    if not 0 < share <= 10_000:
        raise ValueError(f"{key}: a share is above 0% and at most 100%")
    return Stall(found[1] == "full", share, int(found[3]))


def _disk(found: re.Match[str]) -> DiskLimit:
    path, share, size = found.groups()
    return DiskLimit(path, _hundredths(share) if share else None, parse_size(size) or 0)


def _hundredths(percent: str) -> int:
    return round(float(percent) * 100)
