"""A process's memory, as the kernel tells it."""

from pathlib import Path


def memory(pid: int) -> dict[str, int]:
    """Bytes: `rss`, `pss`, `private_dirty`, and `peak` (the highest RSS so far)."""
    wanted = {"Rss:": "rss", "Pss:": "pss", "Private_Dirty:": "private_dirty", "VmHWM:": "peak"}
    found = {}
    for file in ("smaps_rollup", "status"):
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            name, *rest = line.split()
            if name in wanted:
                found[wanted[name]] = int(rest[0]) * 1024
    return found


def cpu_seconds(pid: int) -> float:
    """Processor time so far of the threads that live."""
    total = 0
    for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        total += int(file.read_text().split()[0])
    return total / 1e9
