"""What a board says of itself: hostile or broken files are as good as absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.config import pressure
from edge_agent.host import readings
from edge_agent.host.readings import Exceeded, exceeded, parse_stall, read, unread

CALM = "avg10=0.00 avg60=0.00 avg300=0.00 total=0"
HOSTILE = [
    "",
    "\n",
    "some",
    f"full {CALM}\n",
    f"some {CALM}\nsome {CALM}\n",
    f"some {CALM}\nnone {CALM}\n",
    "some avg10=nan avg60=0.00 avg300=0.00 total=0\n",
    "some avg10=-1.00 avg60=0.00 avg300=0.00 total=0\n",
    "some avg10=inf avg60=0.00 avg300=0.00 total=0\n",
    "some avg10=100.01 avg60=0.00 avg300=0.00 total=0\n",
    "some avg10=1e3 avg60=0.00 avg300=0.00 total=0\n",
    f"some avg10={'9' * 4000}.00 avg60=0.00 avg300=0.00 total=0\n",
    "some avg10=\u0661.00 avg60=0.00 avg300=0.00 total=0\n",
    "\x00" * 4096,
]


def board(root: Path, memory: str = f"some {CALM}\nfull {CALM}\n", **more: str) -> Path:
    """A root of /proc and /sys."""
    for name in pressure.STALLS:
        path = root / "proc/pressure" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(memory if name == "memory" else f"some {CALM}\n")
    for number, text in enumerate(more.get("zones", "").split("|")):
        path = root / f"sys/class/thermal/thermal_zone{number}/temp"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if "throttled" in more:
        path = root / "sys/devices/platform/soc/soc:firmware/get_throttled"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(more["throttled"])
    return root


def of(**pairs: str) -> pressure.Thresholds:
    return pressure.read(pairs.items())


def test_all_that_a_board_says_is_read(tmp_path: Path) -> None:
    told = (
        "some avg10=25.01 avg60=12.00 avg300=3.00 total=99\n"
        "full avg10=1.00 avg60=0.50 avg300=0.10 total=9\n"
    )
    root = board(tmp_path, told, zones="41000|61500\n|asleep", throttled="50005\n")
    found = read(root, frozenset({str(tmp_path)}))
    assert found.stalls["memory"] == {"some": (2501, 1200, 300), "full": (100, 50, 10)}
    assert (found.temperature, found.throttled) == (61500, 0x50005)
    free, total = found.disks[str(tmp_path)]
    assert 0 <= free <= total
    assert found.missing == {}
    message = readings.board(found, str(tmp_path))
    assert (message.memory.some_10, message.memory.full_300, message.cpu.some_10) == (2501, 10, 0)
    assert (message.temperature, message.throttled) == (61500, 0x50005)
    assert message.disk.total_bytes == total


@pytest.mark.parametrize("text", HOSTILE)
def test_what_no_kernel_writes_is_as_good_as_absent(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match="is not what a kernel writes"):
        parse_stall(text)
    found = read(board(tmp_path, text, zones=text or "x", throttled=text), frozenset())
    assert found.missing.keys() == {"memory", "temperature", "throttled"}
    wanted = of(
        memory="some 1% over 10s", temperature="1 C", throttled="yes", cpu="some 1% over 10s"
    )
    assert exceeded(wanted, found) == []
    assert [each.partition(":")[0] for each in unread(wanted, found)] == [
        "memory",
        "temperature",
        "throttled",
    ]


@pytest.mark.parametrize("text", ["-300000", "999999", "12345678", "1.5", "0x10", "NaN", "--1"])
def test_no_board_is_as_hot_or_as_cold_as_this(tmp_path: Path, text: str) -> None:
    assert read(board(tmp_path, zones=text), frozenset()).temperature is None
    assert read(board(tmp_path, zones=f"{text}|42000"), frozenset()).temperature == 42000


def test_a_kernel_without_pressure_says_why(tmp_path: Path) -> None:
    found = read(tmp_path, frozenset({str(tmp_path / "none")}))
    assert "this kernel tells no pressure (PSI" in found.missing["memory"]
    assert found.missing["disk"] == f"{tmp_path}/none: No such file or directory"
    assert unread(of(disk=f"{tmp_path}/none below 10%"), found)[0].startswith("disk: ")
    assert readings.board(found).SerializeToString() == b""


def test_binary_content_is_no_reading(tmp_path: Path) -> None:
    board(tmp_path, zones="42000")
    (tmp_path / "proc/pressure/memory").write_bytes(b"\xff\xfe" * 9000)
    (tmp_path / "sys/class/thermal/thermal_zone0/temp").write_bytes(b"\xff" * 9000)
    assert read(tmp_path, frozenset()).missing.keys() >= {"memory", "temperature"}


def test_a_threshold_is_exceeded_above_it_and_not_at_it(tmp_path: Path) -> None:
    told = (
        "some avg10=20.00 avg60=20.01 avg300=0.00 total=0\n"
        "full avg10=20.01 avg60=0.00 avg300=0.00 total=0\n"
    )
    found = read(board(tmp_path, told, zones="80000", throttled="0xf0000"), frozenset({"/"}))
    assert exceeded(of(memory="some 20% over 10s"), found) == []
    assert exceeded(of(memory="some 20% over 60s"), found) == [Exceeded("memory", 2001, 2000)]
    assert exceeded(of(memory="full 20% over 10s"), found) == [Exceeded("memory", 2001, 2000)]
    assert exceeded(of(temperature="80 C", throttled="yes"), found) == [], "it was, and is over"
    assert exceeded(of(temperature="79.9C"), found) == [Exceeded("temperature", 80000, 79900)]
    assert [each.reading for each in exceeded(of(disk="/ below 1000000GiB"), found)] == ["disk"]
    assert exceeded(of(disk="/ below 0%"), found) == []
    assert unread(of(cpu="full 1% over 10s"), found) == ["cpu: this kernel tells no `full` of it"]


@pytest.mark.skipif(not Path("/proc/pressure/memory").exists(), reason="needs a kernel with PSI")
def test_this_kernels_own_files_are_read() -> None:
    found = read(Path("/"), frozenset({"/"}))
    assert found.stalls.keys() == set(pressure.STALLS)
    assert found.disks["/"][1] > 0
