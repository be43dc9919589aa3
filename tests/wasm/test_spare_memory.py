"""What a compiler may take on a board, as files of its kernel tell it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.wasm.spare_memory import LEAST_BYTES, compilers_share

MIB = 1 << 20
MOST = 512 * MIB


class System:
    """/proc and /sys/fs/cgroup, with what is set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.proc, self.cgroups = folder / "proc", folder / "sys" / "fs" / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        self.cgroups.mkdir(parents=True)

    def available(self, mib: int) -> None:
        text = f"MemTotal: 191904 kB\nMemAvailable:   {mib << 10} kB\nHugePages_Total: 0\n"
        (self.proc / "meminfo").write_text(text)

    def at_home(self, line: str) -> None:
        (self.proc / "self" / "cgroup").write_text(f"1:name=systemd:/old\n{line}\n")

    def cgroup(self, name: str, **files: object) -> None:
        folder = self.cgroups / name
        folder.mkdir(parents=True, exist_ok=True)
        for key, value in files.items():
            (folder / f"memory.{key}").write_text(f"{value}\n")

    def share(self, most: int = MOST) -> int:
        return compilers_share(most, self.folder)


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path)


def test_a_board_with_enough_gives_all(system: System) -> None:
    assert system.share() == MOST  # it tells nothing
    system.available(4096)
    assert system.share() == MOST
    assert system.share(4 * MIB) == 4 * MIB


def test_the_board_keeps_what_its_programs_need(system: System) -> None:
    system.available(102)
    assert system.share() == 54 * MIB
    assert system.share(32 * MIB) == 32 * MIB
    system.available(0)
    assert system.share() == LEAST_BYTES
    assert system.share(4 * MIB) == 4 * MIB


def test_the_limit_of_the_cgroup_counts(system: System) -> None:
    system.available(4096)
    system.at_home("0::/system.slice/edge-agent.service")
    system.cgroup("system.slice", max="max", high="max", current=300 * MIB)
    name = "system.slice/edge-agent.service"
    system.cgroup(name, max=640 * MIB, high="max", current=30 * MIB)
    assert system.share() == MOST
    system.cgroup(name, max=80 * MIB)
    assert system.share() == (80 - 30 - 8) * MIB
    # Files that nobody uses give way.
    system.cgroup(name, stat=f"anon 4096\ninactive_file {9 * MIB}\nactive_file {7 * MIB}")
    assert system.share() == (80 - 30 - 8 + 9) * MIB
    system.cgroup(name, high=70 * MIB)
    assert system.share() == (70 - 30 - 8 + 9) * MIB


@pytest.mark.parametrize("line", ["0::/kubepods/a b/c", "0::/", "0::/../../elsewhere"])
def test_each_cgroup_above_counts(system: System, line: str) -> None:
    system.available(4096)
    system.at_home(line)
    system.cgroup("kubepods/a b/c", max="max", current=5 * MIB)
    system.cgroup("", max=100 * MIB, current=40 * MIB)
    assert system.share() == (100 - 40 - 8) * MIB


def test_what_cannot_be_read_sets_no_limit(system: System) -> None:
    system.at_home("0::/gone")
    (system.proc / "meminfo").write_bytes(b"MemAvailable:\nMemAvailable: some kB\n\xff\xfe")
    assert system.share() == MOST
    system.at_home("4:memory:/v1")
    assert system.share() == MOST
