"""What a board's kernel says of its memory: what there is, what each process has, what it ended."""

from __future__ import annotations

import re
from typing import NamedTuple

# Of each process its share of memory in KiB, its id and its name.
SHARES = """
for each in /proc/[0-9]*; do
  kib=$(sed -n 's/^Pss: *\\([0-9]*\\) kB/\\1/p' $each/smaps_rollup 2>/dev/null) || continue
  if [ -n "$kib" ]; then echo "$kib ${each#/proc/} $(cat "$each/comm")"; fi
done
"""
KERNELS_LOG = "journalctl --dmesg --no-pager --output=cat"
# mm/oom_kill.c, __oom_kill_process, of Linux 6.12.
_KILLED = re.compile(
    r"(?P<where>Memory cgroup out of memory|Out of memory[^:]*): Killed process (?P<pid>\d+)"
    r" \((?P<name>.*)\) .*anon-rss:(?P<kib>\d+)kB.* oom_score_adj:(?P<score>-?\d+)"
)


class Killed(NamedTuple):
    """A process that the kernel ended for want of memory."""

    by_cgroup: bool  # its cgroup's limit was reached; else the board's memory was at its end
    name: str
    mib: int  # of its own (anonymous) memory
    score: int  # oom_score_adj: -1000 to 1000, the highest is ended first

    def __str__(self) -> str:
        why = "its cgroup's limit" if self.by_cgroup else "the board's memory"
        return f"{self.name}, {self.mib} MiB, score {self.score}: {why}"


def killed(log: str) -> list[Killed]:
    """All that the kernel tells of in its log, in its order."""
    return [
        Killed(
            found["where"].startswith("Memory cgroup"),
            found["name"],
            int(found["kib"]) >> 10,
            int(found["score"]),
        )
        for found in _KILLED.finditer(log)
    ]


def fields(text: str) -> dict[str, int]:
    """Lines of a name and a number, as /proc/meminfo (KiB), /proc/vmstat, memory.stat (bytes) and
    memory.events have them."""
    found = {}
    for line in text.splitlines():
        words = line.replace(":", " ").split()
        if len(words) >= 2:
            found[words[0]] = int(words[1])
    return found


def shares(said: str, agent: str, names: tuple[str, ...]) -> dict[str, float]:
    """MiB by name out of what SHARES printed; those that are not in `names` are "others".

    The process with the id `agent` is "edge-agent", whatever its own name.
    """
    found: dict[str, float] = {}
    for line in said.splitlines():
        kib, pid, comm = line.split(maxsplit=2)
        name = "edge-agent" if pid == agent else comm if comm in names else "others"
        found[name] = found.get(name, 0.0) + int(kib) / 1024
    return found
