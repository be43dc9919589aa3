"""For all tests of the link and its outbox."""

from collections.abc import Iterator

import pytest

from tests.mqtt.outboxes import end_processes


@pytest.fixture(autouse=True)
def _processes_end() -> Iterator[None]:
    """Files that stay open would bring later tests' sockets above what select(2) takes."""
    yield
    end_processes()
