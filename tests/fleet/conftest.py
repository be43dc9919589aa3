from pathlib import Path

import pytest

from tests.fleet.updating import A, B, C
from tests.support.fleetnode import Board, Operator
from tests.support.mosquitto import OPENSSL, Certificates
from tests.support.shelf import Shelf


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    if OPENSSL is None:
        pytest.skip("openssl is not installed")
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def operator(shelf: Shelf) -> Operator:
    """Three modules are at the broker."""
    operator = Operator(shelf)
    for it in (A, B, C):
        operator.upload(it)
    return operator


@pytest.fixture
def board(tmp_path: Path, shelf: Shelf) -> Board:
    return Board(tmp_path / "board", shelf)
