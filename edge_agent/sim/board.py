"""A simulated board: the real agent as a process, a simulated runtime, and what it publishes.

The agent runs in a folder of its own. The modules of the project's plugins come with the package.
paho is imported here although only edge_agent/mqtt does so otherwise: a listener stands for
another program.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.errors import EdgeAgentError
from edge_agent.fleet_protocol.topics import NodeTopics
from edge_agent.sim.plugin_connection import Plugin
from edge_agent.sim.runtime import SimRuntime

PACKAGE_ROOT = Path(__file__).parents[2]
MODULES = Path(__file__).parent / "modules"
WAIT_S = 60.0  # for the next state of an agent; a small board compiles for a while
LOOK_S = 0.5  # how often the agent's process is looked at meanwhile
STOP_S = 10.0
SUBSCRIBE_TIMEOUT_S = 10.0
MAX_SOCKET_PATH = 107  # bytes, Linux

INJECTOR, GUARD, LOGGER, STUCK = "device-injector", "resource-guard", "event-logger", "stuck"

Record = dict[str, Any]
"""One result or log record of the fleet protocol, from a node with `encoding = "json"`."""


def module(name: str) -> bytes:
    """A plugin's module that comes with the package."""
    return (MODULES / f"{name}.wasm").read_bytes()


def another_build(content: bytes, version: str) -> bytes:
    """The same module with a custom section: other bytes, so another version to the agent."""
    name = b"demo.version"
    body = bytes([len(name)]) + name + version.encode()
    return content + b"\0" + bytes([len(body)]) + body


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder with a path that is short enough for a board's socket."""
    name = "edge-agent-demo-"
    usual = len(tempfile.gettempdir().encode()) + len(f"/{name}12345678/board-1/control.sock")
    place = None if usual <= MAX_SOCKET_PATH else "/tmp"
    return tempfile.TemporaryDirectory(prefix=name, dir=place)


class DemoError(EdgeAgentError):
    """The demonstration cannot go on; the message has the end of the agent's log."""


class Board:
    """A context manager: the runtime listens from entering to leaving; leaving ends the agent."""

    def __init__(self, folder: Path, node: str, fleet: str, broker_port: int) -> None:
        """Make `folder`, whose path must be short; the broker listens on this machine."""
        self.folder = folder
        self.node = node
        self.plugin_dir = folder / "plugins"
        self.plugin_dir.mkdir(parents=True)
        self.runtime = SimRuntime(folder / "nri.sock")
        self._fleet = fleet
        self._broker_port = broker_port
        self._agent: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Board":
        self.runtime.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._agent is not None and self._agent.poll() is None:
            self._agent.kill()
            self._agent.wait()
        self.runtime.stop()

    # --- the agent

    def start_agent(self, more: str = "") -> None:
        """Write agent.toml, ending with the tables `more`, and start the agent."""
        config = self.folder / "agent.toml"
        config.write_text(
            f"node = {json.dumps(self.node)}\n"
            f"fleet = {json.dumps(self._fleet)}\n"
            'plugin_dir = "plugins"\n'
            'state_dir = "state"\n'
            'control_socket = "control.sock"\n'
            "[nri]\n"
            f"sockets = [{json.dumps(str(self.runtime.path))}]\n"
            'reconnect_min = "20ms"\n'
            "[mqtt]\n"
            f'url = "mqtt://127.0.0.1:{self._broker_port}"\n'
            'encoding = "json"\n'
            'batch = "50ms"\n'
            'reconnect_min = "200ms"\n'
            'reconnect_max = "1s"\n' + more
        )
        search = os.pathsep.join(filter(None, (str(PACKAGE_ROOT), os.environ.get("PYTHONPATH"))))
        with self.log_path.open("ab") as log:
            self._agent = subprocess.Popen(
                [sys.executable, "-m", "edge_agent", "run", "-c", str(config)],
                env=os.environ | {"PYTHONPATH": search},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def stop_agent(self) -> float:
        """SIGTERM; the seconds until the agent ended. DemoError: not in time, or with an error."""
        assert self._agent is not None
        began = time.monotonic()
        self._agent.terminate()
        try:
            code = self._agent.wait(STOP_S)
        except subprocess.TimeoutExpired:
            raise DemoError(f"the agent did not end within {STOP_S:g} s{self.log_end()}") from None
        if code:
            raise DemoError(f"the agent ended with {code}{self.log_end()}")
        return time.monotonic() - began

    @property
    def log_path(self) -> Path:
        return self.folder / "agent.log"

    def log_end(self) -> str:
        """The last lines of the agent's log, to be put behind a message."""
        lines = self.log_path.read_text(errors="replace").splitlines()[-8:]
        return "\n".join([f"; the end of its log ({self.node}):", *lines])

    # --- plugins

    def put(self, identity: str, module: bytes, config: str = "", settings: str = "") -> None:
        """Put a plugin into the agent's folder or replace it, each file in one step."""
        for suffix, content in (
            (".toml", settings.encode()),
            (".conf", config.encode()),
            (".wasm", module),
        ):
            if content:
                temporary = self.plugin_dir / f".{identity}{suffix}"
                temporary.write_bytes(content)
                temporary.rename(self.plugin_dir / f"{identity}{suffix}")

    def take_away(self, identity: str) -> None:
        """Remove a plugin's files, the module first."""
        for suffix in (".wasm", ".conf", ".toml"):
            (self.plugin_dir / f"{identity}{suffix}").unlink(missing_ok=True)

    def wait_for_plugins(self, *names: str) -> list[Plugin]:
        """Return once exactly these plugins are served, in any order. DemoError."""
        wanted = sorted(names)
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                return self.runtime.wait_until(
                    lambda plugins: sorted(plugin.name for plugin in plugins) == wanted,
                    f"the plugins {', '.join(names)}",
                    LOOK_S,
                )
            except TimeoutError as error:
                ended = self._agent.poll() if self._agent is not None else None
                if ended is not None:
                    raise DemoError(f"the agent ended with {ended}{self.log_end()}") from None
                if time.monotonic() > deadline:
                    raise DemoError(f"{error}{self.log_end()}") from error


class Listener:
    """A context manager: subscribed to a node's topics; keeps what the node published."""

    def __init__(self, port: int, topics: NodeTopics) -> None:
        self.results: list[Record] = []
        self.logs: list[Record] = []
        self.states: list[Record] = []
        self.statuses: list[str] = []
        self.messages = 0
        self._port = port
        self._topics = topics
        self._changed = threading.Condition()
        self._subscribed = threading.Event()
        node = topics.status.split("/")[-2]
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"listener-{node}",
            clean_session=False,  # messages of a time without a connection arrive later
        )
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe([(t, 1) for t in topics])
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda _client, _data, message: self._received(
            message.topic, bytes(message.payload)
        )

    def __enter__(self) -> "Listener":
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        if not self._subscribed.wait(SUBSCRIBE_TIMEOUT_S):
            raise TimeoutError("the embedded broker did not take a subscription")
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def wait_for(self, condition: Callable[[], object], timeout_s: float = WAIT_S) -> bool:
        """Whether `condition()` became true in time; it is evaluated after every message."""
        with self._changed:
            return bool(self._changed.wait_for(condition, timeout_s))

    def about(self, pod: str, event: str = "") -> list[Record]:
        """The results of one pod's events, or of one kind of event, in their order."""
        return [
            record
            for record in list(self.results)
            if record.get("pod", {}).get("name") == pod and event in ("", record["event"])
        ]

    def gaps(self) -> list[int]:
        """The numbers of results between the first and the last that did not arrive."""
        seen = {record["seq"] for record in list(self.results)}
        return sorted(set(range(1, max(seen, default=0) + 1)) - seen)

    def plugins(self) -> list[Record]:
        """The plugins in the last reported state."""
        return list(self.states[-1].get("plugins", ())) if self.states else []

    def _received(self, topic: str, payload: bytes) -> None:
        document = json.loads(payload) if payload else {}
        with self._changed:
            self.messages += 1
            if topic == self._topics.results:
                self.results += [record for record in document["records"] if "seq" in record]
            elif topic == self._topics.logs:
                self.logs += [record for record in document["records"] if "seq" in record]
            elif topic == self._topics.state:
                self.states.append(document)
            elif topic == self._topics.status:
                self.statuses.append(document["status"])
            self._changed.notify_all()
