"""A broker does its worst: an agent goes on answering its runtime, and every tool ends in order.

    python -m tests.hostile.test_broker SECONDS [SEED]      with the tools' own times of waiting

Nothing runs on the board that was not signed, no older deployment follows a later one, and no
release is promoted that the board, which is enrolled, did not run. Once the broker is honest again,
all goes on.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.stage import CONFIG, PLUGIN, Board, Ran, Tools, release
from tests.support.agent import ROOT
from tests.support.wait import wait_until

FLEET = "greenhouse"


def play(folder: Path, seconds: float, seed: int, module: str = "edge_agent") -> dict[str, Any]:
    """All of it; figures for people. `module`: what the tools are while the broker does its worst,
    `tests.hostile.hurried` for instance; an honest one may be slow."""
    (folder / "operator").mkdir()
    command = [sys.executable, "-m", "tests.hostile.broker", str(seconds), str(seed)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as broker:
        try:
            assert broker.stdin is not None
            assert broker.stdout is not None
            url = f"mqtt://127.0.0.1:{int(broker.stdout.readline())}"
            tools = Tools(folder / "operator")
            _prepare(tools, url)
            board = Board(folder / "board", "honest", {"url": url}, tools.path / "trust", FLEET)
            with board.there():
                public = board.folder / "state" / "node.pem"
                wait_until(public.exists, "the board has a key")
                tools.well("enrol", "honest", "--key", str(public))
                _publish(tools, "1.0.0")
                tools.well("results")
                tools.well(*_rollout("1.0.0"), "--index", "20", "--first")
                board.wait_version("1.0.0")
                board.busy()
                tools.well("rollout", PLUGIN, "1.0.0", "--watch", "--soak", "0s")
                broker.stdin.write("go\n")
                broker.stdin.flush()
                tools.module = module
                until = time.monotonic() + seconds
                before, rounds = board.answered, 0
                while rounds == 0 or time.monotonic() < until:
                    rounds += 1
                    _round(tools, board, f"2.{rounds}.0")
                done = json.loads(broker.stdout.readline())
                answered = board.answered - before
                assert answered > 0
                tools.module = "edge_agent"
                _afterwards(tools, board)
                board.check()
        finally:
            broker.kill()
    return {
        "commands": len(tools.ran),
        "rounds": rounds,
        "ended with": {code: sum(each.code == code for each in tools.ran) for code in (0, 1, 2)},
        "largest tool, MiB": max(each.peak_bytes for each in tools.ran) >> 20,
        "board, MiB": board.peak_bytes >> 20,
        "answered meanwhile": answered,
        "broker": done,
    }


def _prepare(tools: Tools, url: str) -> None:
    tools.well("keygen", "alice")
    tools.well("keygen", "bob")
    words = ("--name", FLEET, "--broker", url, "--key", "alice")
    tools.well("init", str(tools.path), *words)
    (tools.path / "guard.conf").write_text(CONFIG)


def _publish(tools: Tools, version: str) -> Ran:
    file = tools.folder / f"{version}.wasm"
    file.write_bytes(release(version))
    return tools.run("publish", str(file), "--name", PLUGIN, "--version", version)


def _rollout(version: str) -> tuple[str, ...]:
    return (
        *("rollout", PLUGIN, version, "--config-file", "guard.conf"),
        *("--percent", "100", "-y"),
    )


def _round(tools: Tools, board: Board, version: str) -> None:
    """Each command; any end but a wrong one will do."""
    order: list[tuple[int, int]] = []
    for words in (
        *(("nodes",), ("nodes", "--json"), ("node", "honest"), ("plan",), ("results", "--json")),
        *(("watch", "--seconds", "1"), ("gc", "-y"), ("deploy", "-y"), ("doctor", "--broker")),
        ("request", "honest", "diagnose", "--timeout", "5"),
        (*_rollout(version), "--watch", "--soak", "0s", "--timeout", "5s"),
        *(
            ("rollback", PLUGIN, "-y"),
            ("trust", "rotate", "--threshold", "1", "--add", "bob", "-y"),
        ),
    ):
        if words[0] == "rollout":
            _publish(tools, version)
        ran = tools.run(*words)
        told = board.agent.status()
        order.append((told["updates"]["epoch"], told["updates"]["generation"]))
        assert order == sorted(order), "an older deployment follows a later one"
        running = {each.get("version") for each in told["plugins"]}
        # A release that is said to have reached all was run, by the word of the board alone.
        assert words[0] != "rollout" or ran.code or version in running, ran.output
        assert running <= {"1.0.0", *(f"2.{each}.0" for each in range(1000))}, running


def _afterwards(tools: Tools, board: Board) -> None:
    """The broker is honest: what the folder says is brought there, and runs."""
    board.agent.wait_for(
        lambda status: status["mqtt"]["state"] == "connected", "the agent is connected", 400.0
    )
    for file in sorted(tools.folder.glob("*.wasm")):
        if (tools.path / "releases" / PLUGIN / f"{file.stem}.toml").exists():
            tools.well("publish", str(file), "--name", PLUGIN, "--version", file.stem)
    assert _publish(tools, "3.0.0").code == 0
    over = json.loads(tools.well("plan", "--json").output)["over"]
    onto = ("--onto", str(over)) if over else ("--first",)
    if tools.run(*_rollout("3.0.0")).code != 0:
        tools.well(*_rollout("3.0.0"), *onto)
    board.wait_version("3.0.0")
    board.calm()
    tools.well("request", "honest", "sync", "--timeout", "120")
    tools.read_results()


@pytest.mark.system
def test_a_hostile_broker_ends_neither_agent_nor_tool(tmp_path: Path) -> None:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    print(play(tmp_path, 20.0, 1, "tests.hostile.hurried"))


if __name__ == "__main__":
    chosen = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() & 0xFFFF_FFFF
    print(f"seed {chosen}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for what, figure in play(Path(scratch), float(sys.argv[1]), chosen).items():
            print(f"{what}: {figure}", flush=True)
