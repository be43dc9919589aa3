"""The file systems that a board's disk may have: how one is made of a folder, and checked."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Always the same: two disks of one recipe differ in nothing that the file system is given.
IDENTITY = "0f51e7a2-6f0a-4a0c-9d0d-1c6f3a9f7b11"
TIME = "1700000000"  # of what is on it, since the epoch


class Filesystem(NamedTuple):
    """Commands with `{root}`, a folder, and `{disk}`, an existing file, in them.

    Each leaves the first 512 bytes of the disk to the loader of systems, which no board here has.
    """

    name: str  # as the kernel calls it
    package: str  # Debian's, with its programs; the first word of each command is one
    make: tuple[str, ...]
    check: str  # changes nothing, and gives 0 for one that is whole

    def write(self, root: Path, disk: Path) -> None:
        """Make the file system with what is in `root`. CalledProcessError."""
        for command in self.make:
            words = [word.format(root=root, disk=disk) for word in command.split()]
            environment = {**os.environ, "PATH": PATH}
            subprocess.run(words, env=environment, check=True, capture_output=True)

    def checking(self, disk: Path) -> list[str]:
        return [word.format(disk=disk) for word in self.check.split()]

    def programs(self) -> list[str]:
        return [command.split()[0] for command in (*self.make, self.check)]


FILESYSTEMS = {
    each.name: each
    for each in (
        Filesystem(
            name="ext4",
            package="e2fsprogs",
            make=(f"mke2fs -q -t ext4 -U {IDENTITY} -d {{root}} {{disk}}",),
            check="e2fsck -f -n {disk}",
        ),
        Filesystem(
            name="f2fs",
            package="f2fs-tools",
            make=(
                f"mkfs.f2fs -q -f -U {IDENTITY} {{disk}}",
                f"sload.f2fs -P -T {TIME} -f {{root}} {{disk}}",
            ),
            check="fsck.f2fs --dry-run {disk}",
        ),
    )
}
