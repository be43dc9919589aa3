"""How much memory a compiler may take without taking it from what runs.

Without swap, what a board gives up first when memory runs short is the code of its running
programs, which is read from the disk again at each step: the agent, its runtime and the compiler
stand still for minutes, and the kernel's out-of-memory killer sees no reason to come. The agent's
watchdog ends the agent then, and the module is compiled again, and so on. So a compiler is given
what is free when it starts, and fails for want of memory while all others go on (docs/adr/0056).
"""

from collections.abc import Iterator
from pathlib import Path

LEAST_BYTES = 24 << 20  # a plugin in C takes 6 (wasmi) to 18 MiB (Wasmer) on two processors
# Ours. The board's share is for the code of what runs: containerd and its shim have 35 MiB of it
# resident, the agent 10. The cgroup's is the agent's own growth; its code is not counted as free.
_KEPT_ON_BOARD_BYTES = 48 << 20
_KEPT_IN_CGROUP_BYTES = 8 << 20
# Times a module's own bytes. Measured with a Go plugin of 10 MB: wasmi 6, Wasmer 12, Wasmtime 21.
_LEAST_TIMES = 3


def is_too_little(share_bytes: int, module_bytes: int) -> bool:
    """Whether no compiler can do with that share: then none is started, as a board that has no
    more would stand still while it tries."""
    return share_bytes < _LEAST_TIMES * module_bytes


def compilers_share(most: int, system: Path) -> int:
    """Bytes that a compiler may take now: at most `most`, and less on a board that has less free.

    Never below LEAST_BYTES (unless `most` is): what that is enough for is worth a try. What this
    `system` does not tell (no cgroup v2, no /proc) sets no limit.
    """
    room = most
    available = _fields(system / "proc/meminfo").get("MemAvailable:")
    if available is not None:
        room = min(room, (available << 10) - _KEPT_ON_BOARD_BYTES)
    for free in _free_in_cgroups(system):
        room = min(room, free - _KEPT_IN_CGROUP_BYTES)
    return min(most, max(room, LEAST_BYTES) & -(1 << 20))


def _free_in_cgroups(system: Path) -> Iterator[int]:
    """Bytes below the limit of this process's cgroup, and of each above it that has one.

    Files that nobody has used for some time are as good as free.
    """
    lines = _text(system / "proc/self/cgroup").splitlines()
    name = next((line[len("0::/") :] for line in lines if line.startswith("0::/")), "")
    cgroups = system / "sys/fs/cgroup"
    folder = cgroups / name
    while folder.is_relative_to(cgroups):
        taken = _number(_text(folder / "memory.current"))
        limits = [_number(_text(folder / f"memory.{each}")) for each in ("max", "high")]
        for limit in limits:
            if limit is not None and taken is not None:
                yield limit - taken + _fields(folder / "memory.stat").get("inactive_file", 0)
        folder = folder.parent


def _fields(path: Path) -> dict[str, int]:
    """First word of each line -> the number after it."""
    found = {}
    for line in _text(path).splitlines():
        words = line.split()
        number = _number(words[1]) if len(words) > 1 else None
        if number is not None:
            found[words[0]] = number
    return found


def _number(text: str) -> int | None:
    """None: "max", or nothing."""
    return int(text) if text.strip().isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
