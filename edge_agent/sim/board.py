"""A simulated board: a folder, a container runtime, and the real agent as a process of its own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from edge_agent.errors import EdgeAgentError
from edge_agent.sim.asking import Plugin
from edge_agent.sim.runtime import SimRuntime

PACKAGE_ROOT = Path(__file__).parents[2]
WAIT_S = 60.0  # for what takes a moment; a small board compiles for a while
LOOK_S = 0.5  # how often the agent is looked after meanwhile
STOP_S = 10.0


class StageError(EdgeAgentError):
    """The demonstration cannot go on; the message has the end of the agent's log."""


class Board:
    """A context manager: the runtime listens from entering to leaving, no agent outlives it."""

    def __init__(self, folder: Path, node: str, fleet: str, broker_port: int) -> None:
        """The short path `folder` is made; the broker is one on this machine."""
        self.folder = folder
        self.node = node
        self.plugin_dir = folder / "plugins"
        self.plugin_dir.mkdir(parents=True)
        self.runtime = SimRuntime(folder / "nri.sock")
        self._fleet = fleet
        self._broker_port = broker_port
        self._agent: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Board":
        self.runtime.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._agent is not None and self._agent.poll() is None:
            self._agent.kill()
            self._agent.wait()
        self.runtime.__exit__(None, None, None)

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
        """SIGTERM; the seconds that it took. StageError: it did not end, or badly."""
        assert self._agent is not None
        began = time.monotonic()
        self._agent.terminate()
        try:
            code = self._agent.wait(STOP_S)
        except subprocess.TimeoutExpired:
            raise StageError(f"the agent did not end within {STOP_S:g} s{self.log_end()}") from None
        if code:
            raise StageError(f"the agent ended with {code}{self.log_end()}")
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
                    raise StageError(f"the agent ended with {ended}{self.log_end()}") from None
                if time.monotonic() > deadline:
                    raise StageError(f"{error}{self.log_end()}") from error
