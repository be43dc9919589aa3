"""What the sessions at a runtime need of it."""

from pathlib import Path
from typing import Protocol


class Endpoint(Protocol):
    """A runtime as known by its socket; edge_agent.host.runtime_endpoint is the one there is."""

    socket: Path

    def reached(self) -> None:
        """A session has connected."""

    def lost(self) -> None:
        """A session has ended."""

    def unreachable(self, reason: str) -> None:
        """A session could not connect."""
