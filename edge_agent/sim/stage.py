"""The stage of the demonstration: one temporary folder with a board and a broker."""

import tempfile
from contextlib import ExitStack
from pathlib import Path

from edge_agent.fleet_protocol.topics import node_topics
from edge_agent.sim.board import Board
from edge_agent.sim.broker import Broker
from edge_agent.sim.listener import Listener

FLEET, NODE = "demo", "greenhouse-7"
MAX_SOCKET_PATH = 107  # bytes, Linux


class Stage:
    """A context manager: everything runs from entering to leaving, nothing is left behind."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> "Stage":
        with self._stack:
            folder = self._stack.enter_context(temporary_folder())
            self.broker = self._stack.enter_context(Broker())
            topics = node_topics(FLEET, NODE)
            self.listener = self._stack.enter_context(Listener(self.broker.port, topics))
            self.board = self._stack.enter_context(
                Board(Path(folder) / "board", NODE, FLEET, self.broker.port)
            )
            self.runtime = self.board.runtime
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """Where the path of a board's socket is short enough."""
    name = "edge-agent-demo-"
    usual = len(tempfile.gettempdir().encode()) + len(f"/{name}12345678/board-1/control.sock")
    place = None if usual <= MAX_SOCKET_PATH else "/tmp"
    return tempfile.TemporaryDirectory(prefix=name, dir=place)
