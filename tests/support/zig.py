"""Zig for the tests: the compiler of C and Zig plugins, a package of Python's."""

import importlib.util
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SDK = ROOT / "plugins" / "sdk-zig"
GUEST = ROOT / "tests" / "guests" / "sdk-zig" / "main.zig"
ZIG_TIMEOUT_S = 600


def require_zig() -> None:
    """Skip the calling test, with its reason, where there is no Zig."""
    import pytest

    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("ziglang is not installed (pip install ziglang)")


def zig(*words: str | Path, folder: Path) -> str:
    """What Zig said. AssertionError: it failed."""
    done = subprocess.run(
        [sys.executable, "-m", "ziglang", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=ZIG_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def sdk_modules(root: Path) -> tuple[str, ...]:
    """For Zig: a root file that imports the SDK by its name."""
    return "--dep", "edge_nri", f"-Mroot={root}", f"-Medge_nri={SDK / 'edge_nri.zig'}"


def sdk_guest(folder: Path) -> Path:
    """Builds the module of tests/guests/sdk-zig. Skips the test where there is no Zig."""
    require_zig()
    flags = ("-target", "wasm32-freestanding", "-O", "small", "-fstrip", "-fno-entry", "-rdynamic")
    made = folder / "sdk_guest.wasm"
    zig("build-exe", *flags, f"-femit-bin={made}", *sdk_modules(GUEST), folder=folder)
    return made
