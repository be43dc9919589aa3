from collections.abc import Iterator

import pytest

from edge_agent.wasm.engine import Engine
from tests.support import engines
from tests.wasm.lab import Bench, Lab


@pytest.fixture(scope="session", params=engines.ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine that the contract suite runs on, one after the other."""
    engine = engines.make(request.param)
    if isinstance(engine, str):
        pytest.skip(engine)
    return engine


@pytest.fixture(scope="session")
def bench(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(engine, tmp_path_factory.mktemp(engine.name))


@pytest.fixture
def lab(bench: Bench) -> Iterator[Lab]:
    """Where the contract suite starts its guests, once for each engine."""
    lab = Lab(bench)
    yield lab
    lab.close()
