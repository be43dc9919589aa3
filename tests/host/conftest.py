"""The real agent beside upstream's own runtime side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent import Agent
from tests.support.gopeers import NriRuntime, require_go


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
