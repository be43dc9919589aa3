"""Who a node is, as far as its fleet's documents are concerned."""

from collections.abc import Mapping
from typing import NamedTuple

from edge_agent.config import Limits
from edge_agent.config.model import Report
from edge_agent.store.code import Machine


class Node(NamedTuple):
    """One node of a fleet."""

    name: str
    fleet: str
    labels: Mapping[str, str]
    limits: Limits = Limits()  # for what a plugin's entry leaves open
    report: Report = "all"
    machine: Machine | None = None  # that fleet's machine code must be made for; None: takes none
