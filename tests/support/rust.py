"""Rust for the tests: builds the guest that lays the Rust SDK open."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.support import tiers

ROOT = Path(__file__).resolve().parents[2]
SDK = ROOT / "plugins" / "sdk-rust"
GUEST = ROOT / "tests" / "guests" / "sdk-rust"
TARGET = "wasm32-unknown-unknown"
CARGO_TIMEOUT_S = 600


def require_rust() -> None:
    """Skip the calling test, with its reason, where there is no Rust for WebAssembly."""
    import pytest

    tiers.system("Rust")
    if shutil.which("cargo") is None:
        pytest.skip("Rust is not installed")
    asked = ["rustc", "--print", "target-libdir", "--target", TARGET]
    found = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    if not Path(found).is_dir():
        pytest.skip(f"Rust's target is not installed (rustup target add {TARGET})")


def cargo(*words: str, folder: Path, target: Path) -> str:
    """What Cargo said; `target`: its folder for what it makes. AssertionError: it failed."""
    tiers.system("Rust")
    done = subprocess.run(
        ["cargo", *words],
        cwd=folder,
        env={**os.environ, "CARGO_TARGET_DIR": str(target)},
        capture_output=True,
        text=True,
        timeout=CARGO_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def sdk_guest(target: Path) -> Path:
    """Builds the module of tests/guests/sdk-rust. Skips the test where there is no Rust."""
    require_rust()
    cargo("build", "--release", "--quiet", "--target", TARGET, folder=GUEST, target=target)
    return target / TARGET / "release" / "sdk_guest.wasm"
