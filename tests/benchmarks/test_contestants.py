"""Contestants of the benchmark at upstream's own runtime side."""

from pathlib import Path

import pytest

from scripts.benchmarks import guests
from scripts.benchmarks.contestants import Floor
from tests.support.gobuild import require_go


@pytest.mark.system
def test_the_floor_answers_each_request_with_the_same_adjustment(tmp_path: Path) -> None:
    require_go()
    with Floor(tmp_path) as floor:
        found = floor.runtime.bench(20, guests.request())
        assert found.errors == []
        assert len(found.latencies_ns) == 20
        assert found.last.annotations == {"edge.bench/plugin": "c"}
        assert found.last.env == {"EDGE_BENCH": "c"}
