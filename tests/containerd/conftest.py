"""One containerd for all tests of this folder; each test leaves it without pods."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.containerd import Containerd, why_not
from tests.support.containerd_system import ArchiveUnreachable
from tests.support.cri import Cri


@pytest.fixture(scope="session")
def real_containerd() -> Iterator[Containerd]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    try:
        made = Containerd()
    except ArchiveUnreachable as error:
        pytest.skip(str(error))
    with made:
        yield made


@pytest.fixture
def containerd(real_containerd: Containerd) -> Iterator[Containerd]:
    """Running, without pods; whatever the test left of them is removed."""
    begins = len(real_containerd.log())
    yield real_containerd
    if not real_containerd.running:
        real_containerd.start()
    for pod in real_containerd.cri.pods():
        real_containerd.cri.remove_pod(pod)
    # A plugin that asks for an event this runtime does not know is dropped with these words.
    assert "invalid plugin events" not in real_containerd.log()[begins:]


@pytest.fixture
def cri(containerd: Containerd) -> Cri:
    return containerd.cri


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder that agents share one after another, so that each module compiles once."""
    return tmp_path_factory.mktemp("compiled")
