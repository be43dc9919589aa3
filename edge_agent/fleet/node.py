"""Who a node is, as far as its fleet's documents are concerned."""

from collections.abc import Mapping
from typing import NamedTuple

from edge_agent.config import Limits
from edge_agent.config.model import Report


class Node(NamedTuple):
    """One node of a fleet."""

    name: str
    fleet: str
    labels: Mapping[str, str]
    limits: Limits = Limits()  # for what a plugin's entry leaves open
    report: Report = "all"
