"""The wheel of native/engines for one architecture, built by scripts/build-wheels."""

import subprocess
from pathlib import Path

from scripts.deb.wheels import ROOT, WheelError

PACKAGE = "edge_agent_engines"


def engines_wheel(arch: str) -> Path:
    """The wheel, built if this checkout's was not yet. WheelError: cargo or rustup is missing, or
    the build fails."""
    done = subprocess.run(
        [ROOT / "scripts" / "build-wheels", arch],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise WheelError(f"scripts/build-wheels {arch}: {done.stderr.strip()[-2000:]}")
    return Path(done.stdout.splitlines()[-1])
