"""Packages built from this checkout, and boards to install them on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.board import Board, why_not
from tests.support.debian import DebianUnreachable

ROOT = Path(__file__).resolve().parents[2]
SUITES = ("bookworm", "trixie")  # Python 3.11 and systemd 252; 3.13 and 257

Build = Callable[..., Path]


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """build(arch="amd64", version="1.0", wheels=None) -> a package, compressed quickly.

    "all" for `arch`: the operator's. `wheels`: a folder with more engines."""

    def build(arch: str = "amd64", version: str = "1.0", wheels: Path | None = None) -> Path:
        folder = tmp_path_factory.mktemp("package")
        program = str(ROOT / "scripts" / "build-deb")
        command = [sys.executable, program, arch, "--compression=gz"]
        if wheels is not None:
            command.append(f"--wheels={wheels}")
        done = subprocess.run(
            [*command, f"--output={folder}", f"--version={version}"],
            env={"PROFILE": "ci", **os.environ},  # of the engines: the same code, sooner
            capture_output=True,
            text=True,
            check=False,
        )
        if "pip gives no" in done.stderr:
            pytest.skip(f"PyPI cannot be reached: {done.stderr.strip()}")
        if "install Rust" in done.stderr or "no rustup here" in done.stderr:
            pytest.skip(f"the engines cannot be built here: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        (made,) = folder.glob(f"edge-agent*_{version}_{arch}.deb")
        return made

    return build


@pytest.fixture(scope="session")
def package(build: Build) -> Path:
    return build()


@pytest.fixture(scope="module", params=SUITES)
def board(request: pytest.FixtureRequest) -> Iterator[Board]:
    """Freshly started; shared by the tests of a module."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    try:
        made = Board(request.param)
    except DebianUnreachable as error:
        pytest.skip(str(error))
    with made:
        yield made
