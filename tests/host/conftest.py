"""The real agent beside upstream's own runtime side."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import tiers
from tests.support.agent import Agent
from tests.support.gobuild import require_go
from tests.support.gopeers import NriRuntime


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    require_go()
    return tmp_path / "nri.sock"


@pytest.fixture
def runtime(socket: Path) -> Iterator[NriRuntime]:
    with NriRuntime(socket) as running:
        yield running


@pytest.fixture
def agent(socket: Path, runtime: NriRuntime, tmp_path: Path) -> Iterator[Agent]:
    del runtime  # only the order: it listens first
    with Agent(tmp_path / "agent", sockets=[socket]) as running:
        yield running


@pytest.fixture
def nobody_is_killed_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as agents see. The kernel counts for the whole machine, and what else runs there may
    need more memory than it has, at any time."""
    tiers.system("a mount namespace")
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts")
    counted = tmp_path / "vmstat"
    counted.write_text(Path("/proc/vmstat").read_text())
    python = tmp_path / "python"
    mounted = f'mount --bind {counted} /proc/vmstat && exec {sys.executable} "$@"'
    python.write_text(f"#!/bin/sh\nexec unshare --mount sh -c '{mounted}' sh \"$@\"\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
