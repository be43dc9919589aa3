"""A real containerd with NRI, in mount and pid namespaces of its own.

Everything it writes lies in memory or in one folder below /tmp, and goes with it; only the
extracted packages are kept (tests.support.containerd_system). It may be killed and started again:
its containers go on meanwhile, as on a board.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

from tests.support.containerd_system import FIXTURE, IMAGE, IMAGE_PATH, containerd_system
from tests.support.cri import Cri
from tests.support.wait import wait_until

TOOLS = ("bash", "find", "mount", "nsenter", "pivot_root", "stat", "unshare")
STOP_TIMEOUT_S = 120.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def why_not() -> str:
    """Why a containerd cannot be run here, or ""."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "the packages of the tests' containerd are for Linux on x86-64"
    if os.geteuid() != 0:
        return "needs root: containerd mounts, and makes namespaces and cgroups"
    missing = [tool for tool in TOOLS if shutil.which(tool, path=_PATH) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if not os.access("/sys/fs/cgroup", os.W_OK):
        return "/sys/fs/cgroup is read-only: containers need cgroups"
    mount = ("mount", "-t", "tmpfs", "probe", "/mnt")
    tried = _try("unshare", "--mount", "--pid", "--uts", "--fork", *mount)
    if tried.returncode:
        return f"cannot mount in a namespace: {tried.stderr.strip()}"
    root = Path("/").stat()
    seen = _try("nsenter", "--mount=/proc/self/ns/mnt", "stat", "--format=%d:%i", "/")
    if seen.stdout.strip() != f"{root.st_dev}:{root.st_ino}":
        return "in a chroot: what is run in a container would see the root outside"
    return ""


def _try(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


class Containerd:
    """A context manager. `nri_socket` and `cri` are what the tests use."""

    def __init__(self) -> None:
        """ArchiveUnreachable: the packages are not there and cannot be had."""
        self._system = containerd_system()
        # Short: a socket's path has at most 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="edge-ctrd-", dir="/tmp"))
        self.nri_socket = self.folder / "run" / "nri" / "nri.sock"
        self.cri_socket = self.folder / "run" / "containerd" / "containerd.sock"
        self.log_path = self.folder / "containerd.log"
        # As unique as the folder is; the agent's own name is in it for who finds one.
        self.cgroup = self.folder.name
        self.cri = Cri(self.cri_socket, IMAGE, f"/{self.cgroup}")
        self._namespaces: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._enter_namespaces()
            self.start()
            self.run("ctr", "--namespace=k8s.io", "images", "import", "--local", IMAGE_PATH)
            wait_until(self.cri.has_image, "containerd's CRI knows the image")
        except BaseException:
            print(self.log())
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End containerd and all containers; the mounts go with their namespace."""
        self.cri.close()
        namespaces, self._namespaces = self._namespaces, None
        if namespaces is not None:
            assert namespaces.stdin is not None
            namespaces.stdin.close()  # its sign to kill everything and to clean up
            namespaces.wait(STOP_TIMEOUT_S)
        if self._process is not None:
            self._process.wait(STOP_TIMEOUT_S)
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- containerd itself

    def start(self) -> None:
        """Start it and wait until it serves. NRI is ready before CRI answers."""
        self.log_path.touch()
        begins = self.log_path.stat().st_size
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._inside("containerd", "--config=/etc/containerd/config.toml"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(lambda: self._booted(begins), "containerd has started")

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End containerd, gently or with SIGKILL; containers go on."""
        assert self._process is not None
        os.kill(self.pid, how)
        self._process.wait(STOP_TIMEOUT_S)
        self._process = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of containerd, as seen from outside its namespaces."""
        assert self._process is not None
        return _only_child(self._process.pid)

    def run(self, *command: str) -> str:
        """Run a command in the namespaces, in order; its output."""
        done = subprocess.run(self._inside(*command), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}\n{self.log()}")
        return done.stdout

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def cgroup_file(self, container: str, controller: str, v1: str, v2: str) -> str:
        """A container's setting as the kernel has it, under either version of cgroups."""
        mounted = Path("/sys/fs/cgroup")
        if (mounted / "cgroup.controllers").exists():
            return (mounted / self.cgroup / container / v2).read_text().strip()
        return (mounted / controller / self.cgroup / container / v1).read_text().strip()

    # --- namespaces

    def _enter_namespaces(self) -> None:
        with self.log_path.open("ab") as log:
            self._namespaces = subprocess.Popen(
                [FIXTURE / "namespaces", self._system, self.folder, self.cgroup],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={"PATH": _PATH},
                start_new_session=True,
            )
        assert self._namespaces.stdout is not None
        with self._namespaces.stdout as output:
            if output.readline() != b"ready\n":
                raise RuntimeError("the namespaces could not be made")

    def _inside(self, *command: str) -> list[str]:
        assert self._namespaces is not None
        init = _only_child(_only_child(self._namespaces.pid))
        enter = ["nsenter", f"--target={init}", "--mount", "--pid", "--uts", "--root", "--wd=/"]
        return [*enter, "/bin/busybox", "env", "-i", f"PATH={_PATH}", "HOME=/root", *command]

    def _booted(self, begins: int) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()
        return b"containerd successfully booted" in self.log_path.read_bytes()[begins:]


def _only_child(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 1, f"process {pid} has children {children}"
    return int(children[0])
