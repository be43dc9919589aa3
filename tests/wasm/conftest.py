from collections.abc import Iterator

import pytest

from edge_agent.wasm.engine import Engine
from tests.support import engines
from tests.wasm.lab import Bench, Lab


@pytest.fixture(scope="session", params=engines.ENGINES)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    engine = engines.make(request.param)
    if isinstance(engine, str):
        pytest.skip(engine)
    return Bench(engine, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def engine(bench: Bench) -> Engine:
    return bench.engine


@pytest.fixture
def lab(bench: Bench) -> Iterator[Lab]:
    """Where the contract suite starts its guests, once for each engine."""
    lab = Lab(bench)
    yield lab
    lab.close()
