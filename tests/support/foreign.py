"""A board of another architecture, as far as programs go: Debian's own, run by QEMU's emulator.

It tells whether the agent works there, and nothing of time, memory or the order of memory accesses.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

from tests.support.containerd_system import debian_mirrors
from tests.support.debian import DebianUnreachable, cache_folder

ROOT = Path(__file__).resolve().parents[2]
ARCH = ROOT / "tests" / "arch"
BINFMT = Path("/proc/sys/fs/binfmt_misc")
TOOLS = ("dpkg-deb", "mmdebstrap", "mount", "nsenter", "tar", "unshare")
STOP_TIMEOUT_S = 30.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What the tests run in there, and what a package's scripts need. None is configured, so what
# comes by being essential has to be named.
PACKAGES = (
    *("base-files", "bash", "coreutils", "dash", "debianutils", "diffutils", "dpkg", "findutils"),
    *("grep", "gzip", "init-system-helpers", "libc-bin", "libstdc++6", "mount", "perl-base"),
    *(
        "procps",
        "python3",
        "python3-cffi",
        "python3-nacl",
        "python3-pip",
        "python3-venv",
        "sed",
        "tar",
    ),
)


class Emulated(NamedTuple):
    suite: str  # the first Debian with this architecture among those that are supported
    emulator: str
    machine: str  # as Python's platform.machine() calls it


EMULATED = {
    "arm64": Emulated("bookworm", "qemu-aarch64", "aarch64"),
    "armhf": Emulated("bookworm", "qemu-arm", "armv7l"),
    "riscv64": Emulated("trixie", "qemu-riscv64", "riscv64"),
}


def why_not(arch: str) -> str:
    """Why no such board can be had here, or "". Registers the emulator where it is not."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Debian: mounts and namespaces are made, an emulator is registered"
    missing = [tool for tool in TOOLS if shutil.which(tool, path=_PATH) is None]
    if missing:
        return (
            f"not installed: {', '.join(missing)}; "
            "apt-get install mmdebstrap qemu-user-static binfmt-support"
        )
    return registered(EMULATED[arch].emulator)


def registered(emulator: str) -> str:
    """Why the kernel starts no programs under `emulator`, or "". Registers it where it is not."""
    wanted = (f"{emulator}-static", "update-binfmts")
    missing = [tool for tool in wanted if shutil.which(tool, path=_PATH) is None]
    if missing:
        return (
            f"not installed: {', '.join(missing)}; apt-get install qemu-user-static binfmt-support"
        )
    if not (BINFMT / "register").exists():
        _tried("mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT))
    if not (BINFMT / emulator).exists():
        said = _tried("update-binfmts", "--enable", emulator)
        if not (BINFMT / emulator).exists():
            return f"{emulator} cannot be registered with the kernel: {said}"
    # The kernel must hold the emulator itself: in there, its path leads nowhere.
    if "F" not in (BINFMT / emulator).read_text().partition("flags:")[2].split("\n")[0]:
        return f"{emulator} is registered without the flag F: reinstall qemu-user-static"
    return ""


def foreign_system(arch: str, suite: str = "") -> Path:
    """The root folder of an unpacked Debian, made once and kept. DebianUnreachable."""
    suite = suite or EMULATED[arch].suite
    recipe = repr(PACKAGES).encode() + (ARCH / "unpacked").read_bytes()
    folder = cache_folder() / f"{suite}-{arch}-{hashlib.sha256(recipe).hexdigest()[:16]}"
    if folder.exists():
        return folder
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / f"lock-{arch}").open("w") as lock:
        # Two runs that start at once: one builds, the other waits and finds it there.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            scratch = Path(tempfile.mkdtemp(dir=cache_folder()))
            try:
                _unpack(arch, suite, PACKAGES, scratch / "root")
                (scratch / "root").rename(folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return folder


class ForeignBoard:
    """A context manager. What is written in there lies in memory, and goes with it."""

    def __init__(self, arch: str, suite: str = "") -> None:
        """DebianUnreachable: the packages are not there and cannot be had."""
        self.arch = arch
        self._system = foreign_system(arch, suite)
        self.folder = Path(tempfile.mkdtemp(prefix="edge-agent-board-"))
        self.run_folder = self.folder / "run"
        self._cache = cache_folder() / f"pip-{arch}"
        self._cache.mkdir(exist_ok=True)
        self._process: subprocess.Popen[str] | None = None
        self._init = 0

    def __enter__(self) -> Self:
        process = subprocess.Popen(
            [ARCH / "enter", self._system, self.folder, self._cache],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PATH": _PATH},
            start_new_session=True,
        )
        self._process = process
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            self.close()
            raise AssertionError("no machine of namespaces, see above")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        self._init = int(children.read_text())
        for file in ("/etc/resolv.conf", "/etc/hosts"):
            self.path(file).write_bytes(Path(file).read_bytes())
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all that runs in it."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None and process.stdout is not None:
            process.stdin.close()  # the sign
            process.wait(STOP_TIMEOUT_S)
            process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, inside: str) -> Path:
        """Where a file of the board is reached from outside."""
        return Path(f"/proc/{self._init}/root{self.folder}/root") / inside.lstrip("/")

    def command(self, *words: str, env: Sequence[str] = ()) -> list[str]:
        """What runs these words in there, for subprocess."""
        enter = [f"--target={self._init}", "--mount", "--pid"]
        return [
            *("nsenter", *enter, "--", "chroot", str(self.folder / "root")),
            *("/usr/bin/env", "-i", f"PATH={_PATH}", "HOME=/root", "LC_ALL=C.UTF-8", *env),
            *words,
        ]

    def run(self, *words: str, fails: bool = False) -> str:
        """Run a command inside; what it printed. With `fails` it may end as it likes."""
        done = subprocess.run(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert fails or done.returncode == 0, f"{words} gave {done.returncode}: {done.stdout}"
        return done.stdout


def _unpack(arch: str, suite: str, packages: Sequence[str], root: Path) -> None:
    reasons = []
    merged = 'for d in bin lib sbin; do mkdir -p "$1/usr/$d"; ln -s "usr/$d" "$1/$d"; done'
    for mirror in debian_mirrors():
        done = subprocess.run(
            [
                *("mmdebstrap", "--quiet", "--mode=root", "--variant=extract"),
                *(f"--architectures={arch}", f"--include={','.join(packages)}"),
                "--aptopt=APT::Install-Recommends false",
                # A copy of the archive may be older than it should; signatures hold all the same.
                "--aptopt=Acquire::Check-Valid-Until false",
                "--aptopt=Acquire::Check-Date false",
                *(f"--setup-hook={merged}", f'--extract-hook={ARCH / "unpacked"} "$1"'),
                *(suite, str(root), mirror),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            break
        reasons.append(f"{mirror}: {done.stderr.strip()[-500:]}")
        shutil.rmtree(root, ignore_errors=True)
    else:
        raise DebianUnreachable(f"no Debian {suite} {arch} could be had: {'; '.join(reasons)}")


def _tried(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()
