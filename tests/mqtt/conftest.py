"""For all tests of the link and its outbox."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mqtt.outboxes import end_processes
from tests.support.faults import in_memory


@pytest.fixture(autouse=True)
def _processes_end() -> Iterator[None]:
    """Files that stay open would bring later tests' sockets above what select(2) takes."""
    yield
    end_processes()


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """For an outbox that does much, of which nothing depends on a real disk."""
    with in_memory(tmp_path) as folder:
        yield folder
