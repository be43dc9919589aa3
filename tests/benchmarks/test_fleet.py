"""A small fleet through the benchmark's eyes: what is counted does not depend on the machine."""

from pathlib import Path

import pytest

from scripts.benchmarks.fleet import spread
from tests.support.mosquitto import needs_mosquitto

pytestmark = [pytest.mark.system, needs_mosquitto]


def test_what_a_node_costs_the_broker_does_not_grow_with_the_fleet(tmp_path: Path) -> None:
    found = {}
    for count in (4, 12):
        (tmp_path / str(count)).mkdir()
        found[count] = spread(tmp_path / str(count), count)
    for count, cost in found.items():
        assert cost.nodes == count
        # The deployment and one part to it; two or three states from it, and to the operator.
        assert 4 * count <= cost.messages_received + cost.messages_sent <= 12 * count
        assert cost.bytes_sent + cost.bytes_received <= 24 * 1024 * count
