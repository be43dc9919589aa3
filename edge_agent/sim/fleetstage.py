"""The stage of the second act: three boards, a broker, and an operator's fleet folder."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from edge_agent.config import MqttConfig
from edge_agent.config.model import Broker as Address
from edge_agent.fleet_protocol.selection import place
from edge_agent.fleet_protocol.topics import node_topics
from edge_agent.operator import folder as folders
from edge_agent.operator.broker import BrokerClient
from edge_agent.operator.fleet import Fleet
from edge_agent.operator.keyring import Keyring
from edge_agent.operator.view import View
from edge_agent.sim.board import WAIT_S, Board, StageError
from edge_agent.sim.broker import Broker
from edge_agent.sim.listener import Listener
from edge_agent.sim.stage import temporary_folder

FLEET = "demo"
NODES = ("barn-1", "field-2", "greenhouse-7")
KEY = "grower"
# Probation is for weeks of use; the story has seconds.
UPDATES = """
[updates]
trust_dir = "trust"
probation = "2s"
probation_events = 5
"""


class FleetStage:
    """A context manager: everything runs from entering to leaving, nothing is left behind."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._broker_stack = ExitStack()

    def __enter__(self) -> "FleetStage":
        with self._stack:
            folder = Path(self._stack.enter_context(temporary_folder()))
            self._stack.callback(lambda: self._broker_stack.close())
            self.broker = self._broker_stack.enter_context(Broker())
            port = self.broker.port
            self.listeners = {
                node: self._stack.enter_context(Listener(port, node_topics(FLEET, node)))
                for node in NODES
            }
            self.boards = {
                node: self._stack.enter_context(Board(folder / f"b{number}", node, FLEET, port))
                for number, node in enumerate(NODES)
            }
            self.modules = folder / "modules"
            self.modules.mkdir()
            self._found_fleet(folder, port)
            client = self._stack.enter_context(BrokerClient(self._mqtt(port)))
            self.fleet = Fleet(folders.find(folder / "fleet"), client, self._keyring)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # --- boards

    def start(self) -> None:
        """Each board gets the operator's public key, and its agent starts."""
        public = self._keyring.public_file(KEY).read_bytes()
        for board in self.boards.values():
            trust = board.folder / "trust"
            trust.mkdir()
            (trust / f"{KEY}.pem").write_bytes(public)
            board.start_agent(UPDATES)

    def wait(self, condition: Callable[[View], object], what: str) -> View:
        """What the nodes say once that fulfils `condition`. StageError."""
        with self.fleet.client.subscribed(
            (f"{self.fleet.nodes_topic}/+/status", f"{self.fleet.nodes_topic}/+/state")
        ) as news:
            view, waited = View(), 0.0
            while not condition(view):
                message = news.take(1.0)
                if message is not None:
                    view.feed(message)
                    waited = 0.0
                    continue
                waited += 1.0
                if waited > WAIT_S:
                    logs = "".join(board.log_end() for board in self.boards.values())
                    raise StageError(f"waited for {what}{logs}")
            return view

    # --- the operator

    def module(self, name: str, content: bytes) -> Path:
        """A plugin's file, as its author built it."""
        path = self.modules / f"{name}.wasm"
        path.write_bytes(content)
        return path

    def canary(self, name: str, version: str) -> tuple[str, int]:
        """The node that a rollout of this release reaches first, and the percentage for it."""
        seed = f"{name} {version}"
        first = min(NODES, key=lambda node: place(seed, node))
        return first, place(seed, first) + 1

    def switch_broker_off(self) -> None:
        """As after a cut of the power, with what it had been told to retain on its disk."""
        self._broker_stack.close()

    def switch_broker_on(self) -> None:
        """At the same address as before."""
        before = self.broker
        self._broker_stack = ExitStack()
        self.broker = self._broker_stack.enter_context(Broker(before.port, before.memory))

    def _found_fleet(self, folder: Path, port: int) -> None:
        self._keyring = Keyring(folder / "keys")
        key = self._keyring.generate(KEY)
        folders.create(
            folder / "fleet",
            name=FLEET,
            url=f"mqtt://127.0.0.1:{port}",
            keys={KEY: key},
            threshold=1,
        )

    def _mqtt(self, port: int) -> MqttConfig:
        return MqttConfig((Address("127.0.0.1", port, False),), "operator")
