"""A real cgroup whose process waits for memory again and again (`system`)."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.support import tiers
from tests.support.wait import wait_until

_MOUNTED = Path("/sys/fs/cgroup")
# Reads a file again and again that is larger than its cgroup: each page is read from the disk anew.
_PRESS = """
import mmap, os, sys
size = int(sys.argv[2])
with open(sys.argv[1], "w+b") as file:
    for _ in range(size >> 20):
        file.write(os.urandom(1 << 20))
    file.flush()
    os.fsync(file.fileno())
    pages = mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ)
    while True:
        for at in range(0, size, mmap.PAGESIZE):
            pages[at]
"""


def limit_memory(cgroup: str, limit_bytes: int) -> None:
    """Of a cgroup by its path below the root, v1 or v2. The test is skipped where there is none."""
    for root, file in ((_MOUNTED / "memory", "memory.limit_in_bytes"), (_MOUNTED, "memory.max")):
        path = root / cgroup / file
        if path.exists():
            path.write_text(str(limit_bytes))
            return
    pytest.skip("needs a cgroup with a limit of memory, v1 or v2")


@contextmanager
def memory_pressure(cgroup: str, file_bytes: int, limit_bytes: int = 0) -> Iterator[None]:
    """Within it, a process of this new cgroup reads `file_bytes`, which are more than it may keep.

    `limit_bytes` is the cgroup's own limit; 0: that of those above it."""
    tiers.system("cgroups")
    if os.geteuid() != 0:
        pytest.skip("needs root: makes a cgroup")
    if not Path("/proc/pressure/memory").exists():
        pytest.skip("needs a kernel with PSI")
    v1 = _MOUNTED / "memory"
    folder = (v1 if v1.exists() else _MOUNTED) / cgroup
    folder.mkdir()
    try:
        if limit_bytes:
            limit_memory(cgroup, limit_bytes)
        # On a disk: what lies in memory cannot be taken from a cgroup without swap.
        with tempfile.NamedTemporaryFile(dir="/var/tmp") as file:
            enter = f'echo $$ > {folder}/cgroup.procs && exec "$@"'
            words = [sys.executable, "-c", _PRESS, file.name, str(file_bytes)]
            process = subprocess.Popen(["sh", "-c", enter, "sh", *words], stdin=subprocess.DEVNULL)
            try:
                yield
                assert process.poll() is None, "it was killed, where it should have waited"
            finally:
                process.kill()
                process.wait()
    finally:
        wait_until(partial(_removed, folder), "the cgroup is empty")


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
