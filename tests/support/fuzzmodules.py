"""native/fuzz: the program that makes modules for tests, built by cargo into the user's cache."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

from tests.support import tiers

CARGO_MISSING = "cargo is not installed"

_ROOT = Path(__file__).resolve().parents[2]
_BUILD_TIMEOUT_S = 1800  # the first time, some 80 s of a fast processor


def program() -> Path:
    """The program, up to date. FileNotFoundError: no cargo. CalledProcessError."""
    tiers.system("cargo")
    cargo = shutil.which("cargo")
    if cargo is None:
        raise FileNotFoundError(CARGO_MISSING)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = cache / "edge-agent" / "cargo" / "fuzz"
    target.mkdir(parents=True, exist_ok=True)
    command = [cargo, "build", "--quiet", "--locked", "--release", "--jobs", "2"]
    # Cargo's own lock says on stderr that it waits.
    with (target / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(
            command,
            cwd=_ROOT / "native" / "fuzz",
            env=os.environ | {"CARGO_TARGET_DIR": str(target)},
            check=True,
            timeout=_BUILD_TIMEOUT_S,
        )
    return target / "release" / "edge-agent-fuzz"
