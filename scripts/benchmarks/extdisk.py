"""A disk of its own with ext4, so that what is written to it can be counted."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECTOR_BYTES = 512  # the kernel's unit in /sys, whatever the disk's
_WRITTEN = 6  # field of Documentation/block/stat.rst: sectors written


@contextmanager
def ext4(folder: Path, size_mib: int = 256) -> Iterator[Path | None]:
    """An empty file system on a loop device; None where this process may not make one."""
    image, mounted = folder / "disk.img", folder / "disk"
    mkfs = shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if os.geteuid() != 0 or mkfs is None:
        yield None
        return
    mounted.mkdir(parents=True)
    with image.open("wb") as file:
        file.truncate(size_mib << 20)
    # Without what fills a new file system in the background.
    _run(mkfs, "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image))
    if subprocess.run(["mount", "-o", "loop", image, mounted], check=False).returncode:
        yield None
        return
    try:
        yield mounted
    finally:
        _run("umount", str(mounted))
        image.unlink()


def settle(folder: Path) -> None:
    """As the kernel does it after some time: everything goes to the disk."""
    _run("sync", "-f", str(folder))


def bytes_written(folder: Path) -> int:
    """To the whole device of `folder`, journal included, since it exists."""
    device = folder.stat().st_dev
    stat = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text()
    return int(stat.split()[_WRITTEN]) * SECTOR_BYTES


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
