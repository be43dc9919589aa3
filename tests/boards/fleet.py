"""The fleet's side, on the host: a mosquitto with TLS and an operator at his commands."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from tests.support.fleetbroker import FLEET, FleetBroker

NODE = "board-7"
COMMAND_TIMEOUT_S = 600.0


class FleetError(AssertionError):
    """A command of the operator failed."""


class FleetSide:
    """A context manager. `folder` is the operator's home and the broker's."""

    def __init__(self, folder: Path) -> None:
        (folder / "broker").mkdir()
        self.broker = FleetBroker(folder / "broker", NODE)
        self.folder = folder / FLEET
        self.folder.mkdir()
        self._keys = ("--keys", str(folder / "keys"))

    def __enter__(self) -> FleetSide:
        self.broker.__enter__()
        self.fleet("keygen", "grower")
        authority, cert, key = map(str, self.broker.credentials("operator"))
        url = f"mqtts://localhost:{self.broker.operators_port}"
        tls = ("--ca-file", authority, "--cert-file", cert, "--key-file", key)
        self.fleet("init", ".", "--name", FLEET, "--broker", url, *tls)
        return self

    def __exit__(self, *_: object) -> None:
        self.broker.__exit__()

    def fleet(self, *words: str) -> str:
        """Run `edge-agent fleet ...`; what it printed. FleetError."""
        done = subprocess.run(
            [sys.executable, "-m", "edge_agent", "fleet", words[0], *self._keys, *words[1:]],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise FleetError(f"fleet {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def release(self, name: str, version: str, module: Path, config: str) -> tuple[str, ...]:
        """Publish a version; the words that roll it out with this configuration.

        Each version is a file of its own, which boards fetch, keep and compile.
        """
        named = b"\1v" + version.encode()
        file = self.folder / f"{name}-{version}.wasm"
        file.write_bytes(module.read_bytes() + bytes([0, len(named)]) + named)  # a custom section
        self.fleet("publish", file.name, "--name", name, "--version", version)
        file = self.folder / f"{name}-{version}.conf"
        file.write_text(config)
        return ("rollout", name, version, "--config-file", file.name, "--percent", "100", "--yes")

    def node(self) -> dict[str, Any]:
        """What the operator is told of the board; empty before it reported."""
        for line in self.fleet("nodes", "--json").splitlines():
            found: dict[str, Any] = json.loads(line)
            if found["node"] == NODE:
                return found
        return {}

    def deployed(self) -> int:
        """The newest generation."""
        values = tomllib.loads((self.folder / "deployed.toml").read_text())
        return int(values["generation"])

    def results(self) -> list[dict[str, Any]]:
        """What plugins reported since the last call."""
        lines = self.fleet("results", "--json", "--node", NODE).splitlines()
        return [json.loads(line) for line in lines]

    def trust(self) -> dict[str, bytes]:
        """The files of the fleet's folder `trust/`, by name."""
        return {path.name: path.read_bytes() for path in sorted((self.folder / "trust").iterdir())}
