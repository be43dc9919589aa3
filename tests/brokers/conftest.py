from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """On a disk, unlike elsewhere: HiveMQ takes 1.4 GB before it has a message."""
    with TemporaryDirectory(prefix="edge-agent-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
