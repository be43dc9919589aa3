"""The stage of the demonstration: one temporary folder with a runtime, a broker and the agent."""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from edge_agent.errors import EdgeAgentError
from edge_agent.mqtt.topics import node_topics
from edge_agent.sim.asking import Plugin
from edge_agent.sim.broker import Broker
from edge_agent.sim.listener import Listener
from edge_agent.sim.runtime import SimRuntime

PACKAGE_ROOT = Path(__file__).parents[2]
FLEET, NODE = "demo", "greenhouse-7"
WAIT_S = 60.0  # for what takes a moment; a small board compiles for a while
LOOK_S = 0.5  # how often the agent is looked after meanwhile
STOP_S = 10.0
MAX_SOCKET_PATH = 107  # bytes, Linux


class StageError(EdgeAgentError):
    """The demonstration cannot go on; the message has the end of the agent's log."""


class Stage:
    """A context manager: everything runs from entering to leaving, nothing is left behind."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._agent: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Stage":
        with self._stack:
            temporary = tempfile.TemporaryDirectory(prefix="edge-agent-demo-", dir=_short_place())
            self.folder = Path(self._stack.enter_context(temporary))
            self.plugin_dir = self.folder / "plugins"
            self.plugin_dir.mkdir()
            self.broker = self._stack.enter_context(Broker())
            topics = node_topics(FLEET, NODE)
            self.listener = self._stack.enter_context(Listener(self.broker.port, topics))
            self.runtime = self._stack.enter_context(SimRuntime(self.folder / "nri.sock"))
            self._stack.callback(self._kill)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # --- the agent

    def start_agent(self) -> None:
        """Write agent.toml and start the real agent as a process of its own."""
        config = self.folder / "agent.toml"
        config.write_text(
            f"node = {json.dumps(NODE)}\n"
            f"fleet = {json.dumps(FLEET)}\n"
            'plugin_dir = "plugins"\n'
            'state_dir = "state"\n'
            'control_socket = "control.sock"\n'
            "[nri]\n"
            f"sockets = [{json.dumps(str(self.runtime.path))}]\n"
            'reconnect_min = "20ms"\n'
            "[mqtt]\n"
            f'url = "mqtt://127.0.0.1:{self.broker.port}"\n'
            'encoding = "json"\n'
            'batch = "50ms"\n'
        )
        search = os.pathsep.join(filter(None, (str(PACKAGE_ROOT), os.environ.get("PYTHONPATH"))))
        with self.log_path.open("wb") as log:
            self._agent = subprocess.Popen(
                [sys.executable, "-m", "edge_agent", "run", "-c", str(config)],
                env=os.environ | {"PYTHONPATH": search},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def stop_agent(self) -> float:
        """SIGTERM; the seconds that it took. StageError: it did not end, or badly."""
        assert self._agent is not None
        began = time.monotonic()
        self._agent.terminate()
        try:
            code = self._agent.wait(STOP_S)
        except subprocess.TimeoutExpired:
            raise StageError(
                f"the agent did not end within {STOP_S:g} s{self._log_end()}"
            ) from None
        if code:
            raise StageError(f"the agent ended with {code}{self._log_end()}")
        return time.monotonic() - began

    @property
    def log_path(self) -> Path:
        return self.folder / "agent.log"

    def _kill(self) -> None:
        if self._agent is not None and self._agent.poll() is None:
            self._agent.kill()
            self._agent.wait()

    def _log_end(self) -> str:
        lines = self.log_path.read_text(errors="replace").splitlines()[-8:]
        return "\n".join(["; the end of its log:", *lines])

    # --- plugins

    def put(self, identity: str, module: bytes, config: str = "", settings: str = "") -> None:
        """Put a plugin into the agent's folder or replace it, file by file and each at once."""
        for suffix, content in (
            (".toml", settings.encode()),
            (".conf", config.encode()),
            (".wasm", module),
        ):
            if content:
                self._place(self.plugin_dir / f"{identity}{suffix}", content)

    def take_away(self, identity: str) -> None:
        """Remove a plugin's files, the module first."""
        for suffix in (".wasm", ".conf", ".toml"):
            (self.plugin_dir / f"{identity}{suffix}").unlink(missing_ok=True)

    def _place(self, path: Path, content: bytes) -> None:
        temporary = path.with_name(f".{path.name}")
        temporary.write_bytes(content)
        temporary.rename(path)

    def wait_for_plugins(self, *names: str) -> list[Plugin]:
        """Until exactly these are served, whatever their order. StageError."""
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
                    raise StageError(f"the agent ended with {ended}{self._log_end()}") from None
                if time.monotonic() > deadline:
                    raise StageError(f"{error}{self._log_end()}") from error


def _short_place() -> str | None:
    """Where a socket's path is short enough; None: the usual place for temporary files."""
    usual = len(tempfile.gettempdir().encode()) + len("/edge-agent-demo-12345678/control.sock")
    return None if usual <= MAX_SOCKET_PATH else "/tmp"
