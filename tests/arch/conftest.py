"""Boards of other architectures. Only when asked for: scripts/test-arch names this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.install.conftest import build  # noqa: F401
from tests.support.foreign import EMULATED, ForeignBoard, why_not


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--arch", choices=EMULATED, required=True, help="as Debian names it")
    parser.addoption("--suite", default="", help="the Debian that is unpacked")


@pytest.fixture(scope="session")
def arch(pytestconfig: pytest.Config) -> str:
    return str(pytestconfig.getoption("arch"))


@pytest.fixture
def board(arch: str, pytestconfig: pytest.Config) -> Iterator[ForeignBoard]:
    reason = why_not(arch)
    if reason:
        pytest.skip(reason)
    with ForeignBoard(arch, pytestconfig.getoption("suite")) as board:
        yield board
