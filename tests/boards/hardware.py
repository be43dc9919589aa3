"""The boards that QEMU emulates, and what Debian calls their parts."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import NamedTuple

SUITE = "trixie"
HELP = re.compile(r"^flags\b.*\b(vmx|svm)\b", re.MULTILINE)


class Hardware(NamedTuple):
    arch: str  # as Debian calls it
    machine: str  # as `uname -m` does
    oci: dict[str, str]  # as an image's configuration does
    emulator: str  # of one program, for installing the packages
    qemu: str
    options: tuple[str, ...]  # of QEMU: board and processor
    console: str
    kernel_package: str
    go: dict[str, str]  # what crictl is built for
    packages: tuple[str, ...] = ()  # what the agent's package recommends there

    def accelerator(self) -> str:
        """KVM where this machine has it for this architecture, else translation."""
        native = platform.machine() == self.machine and os.access("/dev/kvm", os.W_OK)
        # A /dev/kvm without the processor's help, as in some virtual machines, boots no Linux.
        helped = self.machine != "x86_64" or HELP.search(Path("/proc/cpuinfo").read_text())
        return "kvm" if native and helped else "tcg,thread=multi"


BOARDS = {
    each.arch: each
    for each in (
        Hardware(
            arch="arm64",
            machine="aarch64",
            oci={"architecture": "arm64"},
            emulator="qemu-aarch64",
            qemu="qemu-system-aarch64",
            options=("-machine", "virt,gic-version=3", "-cpu", "cortex-a72"),
            console="ttyAMA0",
            kernel_package="linux-image-arm64",
            go={"GOARCH": "arm64"},
        ),
        Hardware(
            arch="riscv64",
            machine="riscv64",
            oci={"architecture": "riscv64"},
            emulator="qemu-riscv64",
            qemu="qemu-system-riscv64",
            options=("-machine", "virt"),
            console="ttyS0",
            kernel_package="linux-image-riscv64",
            go={"GOARCH": "riscv64"},
            packages=("python3-nacl",),
        ),
        Hardware(
            arch="armhf",
            machine="armv7l",
            oci={"architecture": "arm", "variant": "v7"},
            emulator="qemu-arm",
            qemu="qemu-system-arm",
            options=("-machine", "virt,highmem=off", "-cpu", "cortex-a15"),
            console="ttyAMA0",
            kernel_package="linux-image-armmp-lpae",
            go={"GOARCH": "arm", "GOARM": "7"},
            packages=("python3-nacl",),
        ),
        Hardware(
            arch="amd64",
            machine="x86_64",
            oci={"architecture": "amd64"},
            emulator="",
            qemu="qemu-system-x86_64",
            options=("-machine", "q35", "-cpu", "max"),
            console="ttyS0",
            kernel_package="linux-image-amd64",
            go={"GOARCH": "amd64"},
        ),
    )
}
