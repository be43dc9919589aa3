"""A broker says that the canary runs the new release: in an enrolled fleet nothing goes on by that.

The board is a real agent, to which that broker brings no deployment; the operator's tools are
processes. What the broker invents is first shown to be believed where no node is enrolled.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import pytest

from tests.hostile.stage import CONFIG, PLUGIN, Board, Ran, Tools, json_lines, release
from tests.support.agent import ROOT
from tests.support.wait import wait_until

pytestmark = pytest.mark.system
FLEET, BOARD = "greenhouse", "honest"
# From the word on for as long as the test needs it.
LONG_S = 1000.0


class Stage(NamedTuple):
    """One fleet."""

    tools: Tools
    board: Board
    lying: IO[str]  # a line to it begins that

    def lie(self) -> None:
        self.lying.write("go\n")
        self.lying.flush()

    def publish(self, version: str) -> None:
        file = self.tools.folder / f"{version}.wasm"
        file.write_bytes(release(version))
        self.tools.well("publish", str(file), "--name", PLUGIN, "--version", version)

    def enrol(self) -> None:
        """By the file that the installer brings from the board."""
        public = self.board.folder / "state" / "node.pem"
        wait_until(public.exists, "the board has a key")
        self.tools.well("enrol", BOARD, "--key", str(public))

    def watched(self, version: str, timeout: str = "300s") -> tuple[Ran, dict[str, Any]]:
        """A canary by name, then all: as far as that goes. `timeout` is of each step."""
        ran = self.tools.run(
            *("rollout", PLUGIN, version, "--nodes", BOARD, "--steps", "100", "--soak", "0s"),
            *("--timeout", timeout, "--watch", "-y", "--json"),
        )
        return ran, json_lines(ran.output)[-1]

    def percent(self) -> str:
        return (self.tools.path / "deployment.toml").read_text()


@contextmanager
def staged(folder: Path) -> Iterator[Stage]:
    """The board runs 1.0.0, and everybody was honest until now."""
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    (folder / "operator").mkdir()
    command = [sys.executable, "-m", "tests.hostile.broker", str(LONG_S), "1", "invents"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as broker:
        try:
            assert broker.stdin is not None
            assert broker.stdout is not None
            url = f"mqtt://127.0.0.1:{int(broker.stdout.readline())}"
            tools = Tools(folder / "operator")
            tools.well("keygen", "alice")
            tools.well("init", str(tools.path), "--name", FLEET, "--broker", url)
            (tools.path / "guard.conf").write_text(CONFIG)
            board = Board(folder / "board", BOARD, {"url": url}, tools.path / "trust", FLEET)
            with board.there():
                stage = Stage(tools, board, broker.stdin)
                stage.publish("1.0.0")
                first = ("--config-file", "guard.conf", "--percent", "100", "--index", "20")
                tools.well("rollout", PLUGIN, "1.0.0", *first, "--first", "-y")
                board.wait_version("1.0.0")
                stage.publish("2.0.0")
                yield stage
        finally:
            broker.kill()


def test_where_no_node_is_enrolled_it_is_believed(tmp_path: Path) -> None:
    """Or the test below would prove nothing."""
    with staged(tmp_path) as stage:
        stage.lie()
        ran, last = stage.watched("2.0.0")
        assert (ran.code, last["action"], last["percent"]) == (0, "done", 100)
        assert BOARD in last["running"]
        assert stage.board.versions() == {"1.0.0"}
        assert "no node is enrolled" in stage.tools.well("rollout", *_again("2.0.0")).output


def test_in_an_enrolled_fleet_it_promotes_nothing(tmp_path: Path) -> None:
    with staged(tmp_path) as stage:
        stage.enrol()
        # Honest, it goes through: by what the board signed.
        ran, last = stage.watched("2.0.0")
        assert (ran.code, last["action"], last["running"]) == (0, "done", [BOARD])
        assert stage.board.versions() == {"2.0.0"}

        stage.publish("3.0.0")
        stage.lie()
        ran, last = stage.watched("3.0.0", "5s")
        assert (ran.code, last["action"], last["percent"]) == (1, "timeout", 0)
        assert not last["running"]
        assert BOARD in last["unproven"]
        assert not last["failed"]
        assert "proves nothing" in last["lacking"]
        assert stage.board.versions() == {"2.0.0"}
        told = stage.tools.run("nodes").output
        assert "not proven" in told

        # Nor by nodes that it made up, for all.
        stage.tools.well("rollout", PLUGIN, "3.0.0", "--resume")
        ran = stage.tools.run(
            *("rollout", PLUGIN, "3.0.0", "--percent", "50", "--watch", "--timeout", "5s"),
            *("--soak", "0s", "-y", "--json"),
        )
        last = json_lines(ran.output)[-1]
        assert (ran.code, last["action"], last["percent"]) == (1, "timeout", 50)
        assert last["uncounted"]
        assert not last["running"]
        assert "percent = 50" in stage.percent()


def _again(version: str) -> tuple[str, ...]:
    return (PLUGIN, version, "--percent", "50", "-y")
