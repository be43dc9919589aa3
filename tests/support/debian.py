"""An unpacked Debian with Python and systemd, made once and kept in the user's cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.support.containerd_system import debian_mirrors

# The last is what the package depends on and dpkg alone would not bring.
PACKAGES = ("python3", "systemd", "systemd-sysv", "libstdc++6")
# What would meddle, or wait for what is not there.
MASKED = (
    "getty.target",
    "timers.target",
    "systemd-modules-load.service",
    "systemd-networkd.service",
    "systemd-resolved.service",
)


class DebianUnreachable(Exception):
    """No mirror gave the packages: a matter of the network, not of this project."""


def debian_system(suite: str, packages: Sequence[str] = ()) -> Path:
    """The root folder of a Debian of this machine's architecture, with these packages, too.

    DebianUnreachable.
    """
    recipe = repr((suite, *packages)).encode() + Path(__file__).read_bytes()
    folder = cache_folder() / f"{suite}-{hashlib.sha256(recipe).hexdigest()[:16]}"
    if folder.exists():
        return folder
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / "lock").open("w") as lock:
        # Two runs that start at once: one builds, the other waits and finds it there.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            scratch = Path(tempfile.mkdtemp(dir=cache_folder()))
            try:
                _build(suite, packages, scratch / "root")
                (scratch / "root").rename(folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return folder


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "edge-agent" / "debian"


def _build(suite: str, packages: Sequence[str], root: Path) -> None:
    reasons = []
    for mirror in debian_mirrors():
        done = subprocess.run(
            [
                *("mmdebstrap", "--quiet", "--mode=root", "--variant=essential"),
                f"--include={','.join([*PACKAGES, *packages])}",
                "--aptopt=APT::Install-Recommends false",
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
        raise DebianUnreachable(f"no Debian {suite} could be had: {'; '.join(reasons)}")
    (root / "etc" / "hostname").write_text("board\n")
    for unit in MASKED:
        (root / "etc" / "systemd" / "system" / unit).symlink_to("/dev/null")
