"""The topics that a node publishes to (fleet protocol, version 1). Pure."""

import re
from typing import NamedTuple

from edge_agent.errors import ConfigError

ROOT = "edge/v1"
# Nothing that MQTT gives a meaning ("/", "+", "#", "$") and short enough for any broker.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class NodeTopics(NamedTuple):
    """Where one node speaks; status and state are retained, the others are not."""

    status: str
    state: str
    results: str
    logs: str
    metrics: str


def node_topics(fleet: str, node: str) -> NodeTopics:
    """The topics of `node` in `fleet`. Raises ConfigError for a name that no topic can hold."""
    for what, name in (("fleet", fleet), ("node", node)):
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{what} {name!r} cannot stand in a topic: use 1 to 63 of a-z 0-9 . _ -"
                " with a letter or digit first"
            )
    return NodeTopics(*(f"{ROOT}/{fleet}/nodes/{node}/{leaf}" for leaf in NodeTopics._fields))
