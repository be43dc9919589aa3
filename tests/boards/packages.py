"""The agent's package, as it is made for a board."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ("1.0", "99.0")  # what a board has first, and what it is upgraded to


def agent_package(arch: str, version: str, folder: Path, wheels: Path | None = None) -> Path:
    """In `folder`. `wheels` is a folder with the engines' for `arch`, else they are built.

    CalledProcessError; what failed was printed.
    """
    words = [sys.executable, str(ROOT / "scripts" / "build-deb"), arch]
    words += [f"--version={version}", f"--output={folder}", "--compression=gz"]
    if wheels is not None:
        words.append(f"--wheels={wheels.absolute()}")
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
    return folder / f"edge-agent_{version}_{arch}.deb"
