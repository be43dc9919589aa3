"""The files that a board boots from: Debian's kernel, an initrd, and a disk with Debian 13.

Made once from Debian's packages and kept in the user's cache. `mmdebstrap` installs Debian under
QEMU's emulator of programs, in some minutes for each architecture; a disk is made of it in seconds,
without mounting anything (tests.boards.filesystems).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.boards.filesystems import FILESYSTEMS, IDENTITY, PATH, Filesystem
from tests.boards.hardware import SUITE, Hardware
from tests.boards.initrd import MODULES, initrd, modules_of
from tests.support.containerd_image import image_archive
from tests.support.containerd_system import APPLETS, IMAGE, debian_mirrors
from tests.support.debian import DebianUnreachable
from tests.support.foreign import registered
from tests.support.gobuild import crictl_binary, go_is_installed

GUEST = Path(__file__).parent / "guest"
IMAGE_ARCHIVE = "/usr/local/share/busybox.tar"
# What the board has, and what the agent's package depends on, since there is no archive of packages
# in the board's reach: python3, libstdc++6.
PACKAGES = (
    *("apt", "dbus", "e2fsprogs", "iproute2", "kmod", "procps"),
    *("systemd", "systemd-sysv", "containerd", "runc", "python3", "libstdc++6"),
)
# What would meddle, or wait for what is not there.
MASKED = ("getty.target", "timers.target", "systemd-networkd.service", "systemd-resolved.service")
ENABLED = {
    "sysinit.target.wants": "test-network.service",
    "sockets.target.wants": "test-commands.socket",
}
DISK_BYTES = 3 << 30  # sparse
PROGRAMS = {
    "mmdebstrap": "mmdebstrap",
    "arch-test": "arch-test",
    "qemu-system-aarch64": "qemu-system-arm",
    "qemu-system-arm": "qemu-system-arm",
    "qemu-system-riscv64": "qemu-system-misc",
    "qemu-system-x86_64": "qemu-system-x86",
}


class BoardFiles(NamedTuple):
    kernel: Path
    initrd: Path
    disk: Path  # to be copied: raw, without a partition table
    filesystem: Filesystem


def why_not(hardware: Hardware, filesystem: Filesystem = FILESYSTEMS["ext4"]) -> str:
    """Why no such board can be had here, or "". Registers the emulator where it is not."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Debian: packages are installed, an emulator is registered"
    packages = {each: PROGRAMS[each] for each in ("mmdebstrap", "arch-test", hardware.qemu)}
    packages |= dict.fromkeys(filesystem.programs(), filesystem.package)
    missing = {packages[each]: None for each in packages if shutil.which(each, path=PATH) is None}
    if missing:
        return f"not installed; apt-get install --no-install-recommends {' '.join(missing)}"
    if not go_is_installed():
        return "Go is not installed: crictl is built by it, Debian has none"
    return registered(hardware.emulator) if hardware.emulator else ""


def board_files(
    hardware: Hardware,
    filesystem: Filesystem = FILESYSTEMS["ext4"],
    tell: Callable[[str], None] = print,
) -> BoardFiles:
    """Made at the first call. DebianUnreachable; PeerError if crictl cannot be built."""
    packages = (*PACKAGES, *hardware.packages)
    system = _kept(
        f"debian-{hardware.arch}",
        repr((SUITE, packages)).encode(),
        lambda folder: _install(hardware, packages, folder / "root"),
        lambda: tell(f"installing Debian {SUITE} for {hardware.arch} (once, some minutes)"),
    )
    kernel = _kept(
        f"kernel-{hardware.arch}",
        repr((SUITE, hardware.kernel_package)).encode(),
        lambda folder: _unpack(hardware, folder / "root"),
        lambda: tell(f"unpacking Debian's kernel for {hardware.arch} (once)"),
    )
    recipe = b"".join(
        [
            repr((system, kernel, hardware, filesystem)).encode(),
            *(path.read_bytes() for path in sorted(Path(__file__).parent.glob("i*.py"))),
            *(path.read_bytes() for path in sorted(GUEST.rglob("*")) if path.is_file()),
        ]
    )
    board = _kept(
        f"{filesystem.name}-{hardware.arch}",
        recipe,
        lambda folder: _assemble(hardware, filesystem, system / "root", kernel / "root", folder),
        lambda: tell(f"making the disk for {hardware.arch}, {filesystem.name}"),
    )
    return BoardFiles(board / "kernel", board / "initrd", board / "disk", filesystem)


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "edge-agent" / "boards"


def _kept(name: str, recipe: bytes, make: Callable[[Path], None], tell: Callable[[], None]) -> Path:
    """The folder that `make` filled for this recipe, now or in an earlier run."""
    folder = cache_folder() / f"{name}-{hashlib.sha256(recipe).hexdigest()[:16]}"
    if folder.exists():
        return folder
    with _locked(name):
        if not folder.exists():
            tell()
            for outdated in cache_folder().glob(f"{name}-*"):
                shutil.rmtree(outdated, ignore_errors=True)
            scratch = Path(tempfile.mkdtemp(dir=cache_folder()))
            try:
                scratch.chmod(0o755)
                make(scratch)
                scratch.rename(folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return folder


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """Of two runs that start at once one builds, and the other finds it."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / f"lock.{name}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install(hardware: Hardware, packages: Sequence[str], root: Path) -> None:
    """Debian with `packages`, configured."""
    _mmdebstrap(hardware, "essential", packages, root)


def _unpack(hardware: Hardware, root: Path) -> None:
    """The kernel with its modules and a static busybox, unpacked and not configured."""
    merged = 'for d in bin lib sbin; do mkdir -p "$1/usr/$d"; ln -s "usr/$d" "$1/$d"; done'
    wanted = (hardware.kernel_package, "busybox-static")
    _mmdebstrap(hardware, "extract", wanted, root, f"--setup-hook={merged}")


def _mmdebstrap(
    hardware: Hardware, variant: str, packages: Sequence[str], root: Path, *options: str
) -> None:
    reasons = []
    for mirror in debian_mirrors():
        done = subprocess.run(
            [
                *("mmdebstrap", "--quiet", "--mode=root", f"--variant={variant}"),
                *(f"--architectures={hardware.arch}", f"--include={','.join(packages)}"),
                "--aptopt=APT::Install-Recommends false",
                # A copy of the archive may be older than it should; signatures hold all the same.
                "--aptopt=Acquire::Check-Valid-Until false",
                "--aptopt=Acquire::Check-Date false",
                *options,
                *(SUITE, str(root), mirror),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return
        reasons.append(f"{mirror}: {done.stderr.strip()[-500:]}")
        shutil.rmtree(root, ignore_errors=True)
    raise DebianUnreachable(f"no Debian {SUITE} {hardware.arch} could be had: {'; '.join(reasons)}")


def _assemble(
    hardware: Hardware, filesystem: Filesystem, system: Path, kernel: Path, folder: Path
) -> None:
    """kernel, initrd and disk in `folder`."""
    # One is the compressed kernel; on riscv64 it is named vmlinux.
    (image,) = (kernel / "boot").glob("vmlinu[xz]-*")
    shutil.copyfile(image, folder / "kernel")
    busybox = (kernel / "usr" / "bin" / "busybox").read_bytes()
    modules = modules_of(kernel / "usr" / "lib" / "modules", (*MODULES, filesystem.name))
    (folder / "initrd").write_bytes(initrd(busybox, (GUEST / "init").read_bytes(), modules))

    root = folder / "root"
    subprocess.run(["cp", "--archive", "--reflink=auto", str(system), str(root)], check=True)
    shutil.copytree(GUEST / "files", root, dirs_exist_ok=True)
    (root / "etc" / "hostname").write_text("board\n")
    (root / "etc" / "machine-id").write_text(IDENTITY.replace("-", "") + "\n")
    units = root / "etc" / "systemd" / "system"
    for unit in MASKED:
        (units / unit).symlink_to("/dev/null")
    for target, unit in ENABLED.items():
        (units / target).mkdir(exist_ok=True)
        (units / target / unit).symlink_to(f"../{unit}")
    archive = image_archive(IMAGE, busybox, APPLETS, hardware.oci)
    (root / IMAGE_ARCHIVE.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
    (root / IMAGE_ARCHIVE.lstrip("/")).write_bytes(archive)
    crictl = root / "usr" / "local" / "bin" / "crictl"
    shutil.copyfile(crictl_binary(hardware.go), crictl)
    crictl.chmod(0o755)
    for archives in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc"):
        shutil.rmtree(root / archives, ignore_errors=True)
    (root / "var" / "cache" / "apt" / "archives" / "partial").mkdir(parents=True)
    (root / "var" / "lib" / "apt" / "lists" / "partial").mkdir(parents=True)

    with (folder / "disk").open("wb") as disk:
        disk.truncate(DISK_BYTES)
    filesystem.write(root, folder / "disk")
    shutil.rmtree(root)
