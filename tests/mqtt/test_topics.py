"""Topic names."""

import pytest

from edge_agent.errors import ConfigError
from edge_agent.mqtt.topics import node_topics


def test_topics_are_those_of_the_fleet_protocol() -> None:
    assert node_topics("greenhouse", "board-7") == (
        "edge/v1/greenhouse/nodes/board-7/status",
        "edge/v1/greenhouse/nodes/board-7/state",
        "edge/v1/greenhouse/nodes/board-7/results",
        "edge/v1/greenhouse/nodes/board-7/logs",
        "edge/v1/greenhouse/nodes/board-7/metrics",
    )


@pytest.mark.parametrize("name", ["", "+", "#", "a/b", "Board", "-a", "a" * 64, "a\n", "ä"])
def test_names_that_no_topic_can_hold_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="node"):
        node_topics("greenhouse", name)
    with pytest.raises(ConfigError, match="fleet"):
        node_topics(name, "board-7")
