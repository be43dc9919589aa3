import resource
from collections.abc import Iterator

import pytest

from edge_agent.wasm.engine import Engine
from tests.support import engines
from tests.wasm.lab import Bench, Lab

# A module stays open for the whole run, on Wasmer with two descriptors: more than the usual 1024.
_, MOST_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (MOST_FILES, MOST_FILES))

# Which engine cannot be had under an emulator, and why.
WIDE = pytest.mark.not_emulated(
    "QEMU notes each page that was ever reserved, here 4 GiB for each memory"
)
NOT_EMULATED = {"wasmer": WIDE, "wasmtime": WIDE}
PARAMS = [pytest.param(name, marks=NOT_EMULATED.get(name, ())) for name in engines.ENGINES]


@pytest.fixture(scope="session", params=PARAMS)
def engine_name(request: pytest.FixtureRequest) -> str:
    """Each engine that the contract suite runs on, one after the other."""
    return str(request.param)


@pytest.fixture(scope="session")
def engine(engine_name: str) -> Engine:
    engine = engines.make(engine_name)
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
