"""What a board says of itself: pressure, temperature, throttling, free disk.

Read from /proc and /sys, which a defect or a container's mount may have filled with anything: what
has not the kernel's form is as good as absent, with the reason.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from edge_agent.config.pressure import STALLS, Thresholds
from edge_agent.pb import edge_pb2

_MAX_BYTES = 4096  # of a file; the kernel's have less than 200
_MAX_ZONES = 64
_MAX_SHARE = 10_000  # hundredths of a percent
_COLDEST, _HOTTEST = -100_000, 250_000  # thousandths of a degree: no board lives beyond
_THROTTLED_NOW = 0xF
WINDOWS = (10, 60, 300)

_SHARE = r"([0-9]{1,3}\.[0-9]{2})"
_LINE = re.compile(
    rf"(some|full) avg10={_SHARE} avg60={_SHARE} avg300={_SHARE} total=[0-9]{{1,20}}"
)
_THROTTLED = re.compile(r"(?:0x)?([0-9a-fA-F]{1,8})")
_DEGREES = re.compile(r"-?[0-9]{1,6}")
_FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"  # of a Raspberry Pi

Shares = tuple[int, int, int]
"""Hundredths of a percent of the last 10, 60 and 300 s."""


class Readings(NamedTuple):
    """`missing`: why something is not known, by the key of its threshold."""

    stalls: dict[str, dict[str, Shares]]  # by "memory" and so on, then by "some" and "full"
    temperature: int | None  # of the hottest zone, thousandths of a degree Celsius
    throttled: int | None  # as the firmware says it
    disks: dict[str, tuple[int, int]]  # by path: bytes that are free, and all
    missing: dict[str, str]


class Exceeded(NamedTuple):
    """A threshold that is exceeded, in the reading's unit."""

    reading: str
    value: int
    threshold: int


def read(system: Path, disks: frozenset[str]) -> Readings:
    """Waits for the kernel, and for the disks at these paths."""
    stalls: dict[str, dict[str, Shares]] = {}
    missing: dict[str, str] = {}
    for name in STALLS:
        try:
            stalls[name] = parse_stall(_text(system / "proc/pressure" / name))
        except OSError:
            missing[name] = "this kernel tells no pressure (PSI: CONFIG_PSI, or psi=1 at its start)"
        except ValueError as error:
            missing[name] = f"/proc/pressure/{name} {error}"
    temperature = max(_temperatures(system), default=None)
    if temperature is None:
        missing["temperature"] = "this board tells none in /sys/class/thermal"
    throttled = None
    try:
        throttled = _throttled(_text(system / _FIRMWARE))
    except (OSError, ValueError):
        missing["throttled"] = "this board does not tell it, as a Raspberry Pi does"
    found: dict[str, tuple[int, int]] = {}
    for path in disks:
        try:
            told = os.statvfs(path)
        except OSError as error:
            missing["disk"] = f"{path}: {error.strerror}"
        else:
            found[path] = told.f_bavail * told.f_frsize, told.f_blocks * told.f_frsize
    return Readings(stalls, temperature, throttled, found, missing)


def parse_stall(text: str) -> dict[str, Shares]:
    """The content of one of /proc/pressure. ValueError: it is something else."""
    found = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        shares = [round(float(each) * 100) for each in match.groups()[1:]] if match else []
        if match is None or max(shares) > _MAX_SHARE or match[1] in found:
            raise ValueError("is not what a kernel writes")
        found[match[1]] = shares[0], shares[1], shares[2]
    if "some" not in found:
        raise ValueError("is not what a kernel writes")
    return found


def exceeded(thresholds: Thresholds, readings: Readings) -> list[Exceeded]:
    """The thresholds that are exceeded; what is not known exceeds none."""
    found = []
    for name, stall in thresholds.stalls.items():
        shares = readings.stalls.get(name, {}).get("full" if stall.full else "some")
        if shares is not None and (share := shares[WINDOWS.index(stall.over_s)]) > stall.share:
            found.append(Exceeded(name, share, stall.share))
    limit, temperature = thresholds.temperature, readings.temperature
    if limit is not None and temperature is not None and temperature > limit:
        found.append(Exceeded("temperature", temperature, limit))
    if thresholds.throttled and (now := (readings.throttled or 0) & _THROTTLED_NOW):
        found.append(Exceeded("throttled", now, 0))
    if (disk := thresholds.disk) is not None and disk.path in readings.disks:
        free, total = readings.disks[disk.path]
        least = disk.least if disk.share is None else total * disk.share // _MAX_SHARE
        if free < least:
            found.append(Exceeded("disk", free, least))
    return found


def unread(thresholds: Thresholds, readings: Readings) -> list[str]:
    """ "READING: why it is not known", of each that a threshold is set for."""
    wanted = list(thresholds.stalls)
    wanted += ["temperature"] * (thresholds.temperature is not None)
    wanted += ["throttled"] * thresholds.throttled + ["disk"] * (thresholds.disk is not None)
    found = [f"{name}: {readings.missing[name]}" for name in wanted if name in readings.missing]
    for name, stall in thresholds.stalls.items():
        if stall.full and name in readings.stalls and "full" not in readings.stalls[name]:
            found.append(f"{name}: this kernel tells no `full` of it")
    return found


def board(readings: Readings, disk: str = "") -> edge_pb2.Board:
    """The readings for a guest; `disk` is the path whose disk it watches."""
    message = edge_pb2.Board()
    for name, told in readings.stalls.items():
        place = getattr(message, name)
        place.SetInParent()
        for kind, shares in told.items():
            for window, share in zip(WINDOWS, shares, strict=True):
                setattr(place, f"{kind}_{window}", share)
    if readings.temperature is not None:
        message.temperature = readings.temperature
    if readings.throttled is not None:
        message.throttled = readings.throttled
    if disk in readings.disks:
        message.disk.free_bytes, message.disk.total_bytes = readings.disks[disk]
    return message


def _temperatures(system: Path) -> Iterator[int]:
    folder = system / "sys/class/thermal"
    try:
        zones = sorted(each for each in folder.iterdir() if each.name.startswith("thermal_zone"))
    except OSError:
        return
    for zone in zones[:_MAX_ZONES]:
        try:
            text = _text(zone / "temp").strip()
        except (OSError, ValueError):
            continue  # a sensor that sleeps or is gone
        if _DEGREES.fullmatch(text) and _COLDEST <= int(text) <= _HOTTEST:
            yield int(text)


def _throttled(text: str) -> int:
    match = _THROTTLED.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    return int(match[1], 16)


def _text(path: Path) -> str:
    """The beginning of a file. OSError. ValueError: it is no ASCII."""
    with path.open("rb") as file:
        return file.read(_MAX_BYTES).decode("ascii")
