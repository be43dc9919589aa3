"""A file system whose writes are logged: a loop device on a file that QEMU serves by FUSE."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Self

from tests.support.wait import wait_until

TOOLS = ("mke2fs", "e2fsck", "mount", "umount", "qemu-storage-daemon")
SIZE = 256 << 20  # bytes, sparse


def why_not() -> str:
    """Why no such disk can be had here, or ""."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux: file systems are mounted"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)}; apt-get install e2fsprogs qemu-system-common"
    for device in ("/dev/fuse", "/dev/loop-control"):
        if not Path(device).exists():
            return f"this kernel has no {device}"
    return ""


class LoggedDisk:
    """A context manager: ext4 with default options, mounted at `mount`. `log` grows with each
    request; `before` is the disk as it was when the log began."""

    def __init__(self, folder: Path) -> None:
        self.mount = folder / "mounted"
        self.log, self.before = folder / "writes", folder / "before"
        self._data, self._served = folder / "data", folder / "served"
        self._process: subprocess.Popen[bytes] | None = None
        self.mount.mkdir()
        with self.before.open("wb") as disk:
            disk.truncate(SIZE)
        run("mke2fs", "-q", "-t", "ext4", str(self.before))
        run("cp", "--sparse=always", str(self.before), str(self._data))
        for file in (self.log, self._served):
            file.write_bytes(b"")

    def __enter__(self) -> Self:
        nodes = [
            *file_nodes(self._data, "data"),
            *file_nodes(self.log, "log"),
            *("--blockdev", "driver=blklogwrites,file=data,log=log,node-name=logged"),
        ]
        export = f"type=fuse,id=served,node-name=logged,mountpoint={self._served},writable=on"
        self._process = subprocess.Popen(
            ["qemu-storage-daemon", *nodes, "--export", export], stdin=subprocess.DEVNULL
        )
        wait_until(lambda: self._served.stat().st_size == SIZE, "the disk is served")
        run("mount", "-t", "ext4", "-o", "loop", str(self._served), str(self.mount))
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", str(self.mount)], check=False)
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait()


class Boot:
    """What the kernel says of its boot, to all in these namespaces of mounts; a context manager.

    A cut of the power is followed by another boot, and programs ask which it is.
    """

    PLACE = "/proc/sys/kernel/random/boot_id"

    def __init__(self, folder: Path) -> None:
        self._file = folder / "boot_id"

    def __enter__(self) -> Self:
        self.again()
        run("mount", "--bind", str(self._file), self.PLACE)
        return self

    def __exit__(self, *_: object) -> None:
        run("umount", self.PLACE)

    def again(self) -> None:
        """The next boot."""
        self._file.write_text(f"{uuid.uuid4()}\n")


def run(*command: str) -> None:
    """CalledProcessError, with what the command said, if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} gave {done.returncode}: {done.stdout}{done.stderr}"


def file_nodes(path: Path, name: str) -> list[str]:
    file = f"driver=file,node-name={name}-file,filename={path}"
    return ["--blockdev", file, "--blockdev", f"driver=raw,node-name={name},file={name}-file"]
