"""A board as far as systemd and packages go: Debian in namespaces, started by its own systemd.

Everything it writes lies in memory or in one folder below /tmp, and goes with it; only the unpacked
Debian is kept (tests.support.debian).
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from edge_agent.control import ask
from edge_agent.errors import ControlError
from tests.support.debian import debian_system
from tests.support.wait import wait_until

BOOT = Path(__file__).resolve().parents[1] / "install" / "boot"
TOOLS = ("awk", "bash", "find", "mmdebstrap", "mount", "nsenter", "pivot_root", "unshare")
STOP_TIMEOUT_S = 120.0
COMMAND_TIMEOUT_S = 180.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

UNIT = "edge-agent.service"


def why_not() -> str:
    """Why no board can be made here, or ""."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "the package under test is for Linux on x86-64"
    if os.geteuid() != 0:
        return "needs root: mounts, namespaces and a cgroup are made"
    missing = [tool for tool in TOOLS if shutil.which(tool, path=_PATH) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    folders = [mount[1] for mount in mounts if mount[2] == "cgroup2"]
    if not folders or not os.access(folders[0], os.W_OK):
        return "no cgroup2 that can be written: systemd needs one"
    # Changing the root is what a chroot does not allow.
    probe = "mount -t tmpfs probe /mnt && cd /mnt && mkdir old && pivot_root . old"
    tried = subprocess.run(
        ["unshare", "--mount", "--pid", "--net", "--cgroup", "--fork", "sh", "-c", probe],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"no machine of namespaces: {tried.stderr.strip()}" if tried.returncode else ""


class Board:
    """A context manager; systemd has started everything when it is entered."""

    def __init__(self, suite: str = "bookworm", packages: Sequence[str] = ()) -> None:
        """`packages` are there, too. DebianUnreachable: they are not there and cannot be had."""
        self._system = debian_system(suite, packages)
        self.folder = Path(tempfile.mkdtemp(prefix="edge-agent-board-"))
        self.run_folder = self.folder / "run"
        self.run_folder.mkdir()
        self.control_socket = self.run_folder / "edge-agent" / "control.sock"
        self._log_path = Path(f"{self.folder}.log")
        self._process: subprocess.Popen[bytes] | None = None
        self._init = 0

    def __enter__(self) -> Self:
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [BOOT, self._system, self.folder],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={"PATH": _PATH},
                start_new_session=True,
            )
        try:
            assert self._process.stdout is not None
            machine = int(self._process.stdout.readline())
            children = Path(f"/proc/{machine}/task/{machine}/children")
            wait_until(lambda: children.read_text(), "the machine's first process")
            self._init = int(children.read_text())
            private = self.run_folder / "systemd" / "private"  # where systemctl finds it
            wait_until(private.exists, "systemd answers")
            wait_until(self._started, "systemd has started all")
        except BaseException:
            print(self._log_path.read_text(errors="replace"))
            self.close()
            raise
        return self

    def _started(self) -> bool:
        """Whether it is over; that a unit failed is for the tests to find."""
        said = self.run("systemctl", "is-system-running", "--wait", fails=True)
        return said.strip() in ("running", "degraded")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            print(self.journal())
        self.close()

    def close(self) -> None:
        """End it and all that runs in it."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None and process.stdout is not None:
            process.stdin.close()  # the sign to kill everything and to clean up
            process.wait(STOP_TIMEOUT_S)
            process.stdout.close()
        self._log_path.unlink(missing_ok=True)

    # --- inside

    def run(self, *command: str, fails: bool = False) -> str:
        """Run a command inside; what it printed. With `fails` it may end as it likes."""
        enter = [f"--target={self._init}", "--mount", "--pid", "--uts", "--ipc", "--net"]
        done = subprocess.run(
            [
                *("nsenter", *enter, "--cgroup", "--root", "--wd=/"),
                *("/usr/bin/env", "-i", f"PATH={_PATH}", "HOME=/root", "LC_ALL=C.UTF-8"),
                *command,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=COMMAND_TIMEOUT_S,
        )
        assert fails or done.returncode == 0, f"{command} gave {done.returncode}: {done.stdout}"
        return done.stdout

    def path(self, inside: str) -> Path:
        """Where a file of the board is reached from outside."""
        return Path(f"/proc/{self._init}/root") / inside.lstrip("/")

    def put(self, file: Path, inside: str) -> None:
        """Copy a file; it appears under its name when it is whole."""
        target = self.path(inside)
        beside = target.with_name(f".{target.name}.new")
        beside.write_bytes(file.read_bytes())
        beside.replace(target)

    def unit(self, name: str) -> str:
        """A property of the agent's unit, such as ActiveState or MainPID."""
        return self.run("systemctl", "show", UNIT, "--property", name, "--value").strip()

    def status(self) -> dict[str, Any] | None:
        """What the agent says of itself, or None while it does not answer."""
        try:
            return ask(self.control_socket, "status")
        except ControlError:
            return None

    def journal(self, *options: str) -> str:
        """The agent's log, all that was written until now."""
        self.run("journalctl", "--sync", fails=True)
        words = ("journalctl", "--unit", UNIT, "--output=cat", "--no-pager", *options)
        return self.run(*words, fails=True)
