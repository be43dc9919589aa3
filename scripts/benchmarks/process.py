"""A process's memory, as the kernel tells it."""

import sys
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


def anonymous(pid: int) -> int:
    """Bytes that no file can give again; cheap to ask for. 0 once the process is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return int(text.partition("RssAnon:")[2].split()[0]) * 1024 if "RssAnon:" in text else 0


def children(pid: int) -> list[int]:
    """Of any thread of the process."""
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(each) for each in file.read_text().split()]
        except OSError:
            pass  # the thread has ended
    return found


def mappings(pid: int) -> dict[str, dict[str, int]]:
    """Bytes of `pss`, `alone` and `private_dirty` by what is mapped: a file, the heap, other
    memory. `alone` is the PSS on a node where nothing else runs this Python: all pages of its
    files, the shares of what any program has.
    """
    pythons = tuple({sys.prefix, sys.base_prefix})
    keys = {"Pss:": "pss", "Rss:": "alone", "Private_Dirty:": "private_dirty"}
    found: dict[str, dict[str, int]] = {}
    path = ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            path = words[5] if len(words) > 5 else "[anonymous]"
        elif words[0] in keys:
            of = found.setdefault(path, dict.fromkeys(keys.values(), 0))
            of[keys[words[0]]] += int(words[1]) * 1024
    for path, of in found.items():
        if path.startswith("/") and not path.startswith(pythons):
            of["alone"] = of["pss"]
    return found


def cpu_seconds(pid: int) -> float:
    """Processor time so far of the threads that live."""
    total = 0
    for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        total += int(file.read_text().split()[0])
    return total / 1e9
