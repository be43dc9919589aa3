"""A disk that is quickly full."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import tiers


@contextmanager
def small_disk(folder: Path, size_kib: int, options: str = "rw") -> Iterator[Path]:
    """A file system in memory of this size at `folder`; skips where it cannot be mounted."""
    tiers.system("a mounted disk")
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a small disk")
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"{options},size={size_kib}k", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"needs to mount a small disk: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
