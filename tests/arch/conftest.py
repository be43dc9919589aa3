"""Boards of other architectures. Only when asked for: scripts/test-arch names this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.install.conftest import Build, build  # noqa: F401
from tests.support.foreign import EMULATED, ForeignBoard, why_not


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--arch", choices=EMULATED, required=True, help="as Debian names it")
    parser.addoption("--suite", default="", help="the Debian that is unpacked")
    parser.addoption("--wheels", type=Path, help="a folder with more engines for the package")


@pytest.fixture(scope="session")
def arch(pytestconfig: pytest.Config) -> str:
    return str(pytestconfig.getoption("arch"))


@pytest.fixture(scope="session")
def wheels(pytestconfig: pytest.Config) -> Path | None:
    folder: Path | None = pytestconfig.getoption("--wheels")
    return folder


@pytest.fixture(scope="session")
def package(build: Build, arch: str, wheels: Path | None) -> Callable[[str], Path]:  # noqa: F811
    """package(version) -> the package for this board."""
    return lambda version: build(arch=arch, version=version, wheels=wheels)


@pytest.fixture
def board(arch: str, pytestconfig: pytest.Config) -> Iterator[ForeignBoard]:
    reason = why_not(arch)
    if reason:
        pytest.skip(reason)
    with ForeignBoard(arch, pytestconfig.getoption("suite")) as board:
        yield board
