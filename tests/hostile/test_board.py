"""A board with real credentials does its worst at the broker that configs/mosquitto makes.

    python -m tests.hostile.test_board SECONDS [SEED]

Two honest boards and an operator beside it go on: no command ends otherwise than in order, nobody
else's session, deployment or results suffer, and no release passes a step that its canary did not
run.
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

from tests.hostile.stage import (
    BAD_CONFIG,
    CONFIG,
    PLUGIN,
    Board,
    Tools,
    json_lines,
    release,
)
from tests.support.agent import ROOT, guest
from tests.support.fleetbroker import FLEET, FleetBroker
from tests.support.mosquitto import needs_mosquitto, needs_openssl

NAMES = ("good-1", "good-2")
ROLLOUT = ("--soak", "0s", "--watch", "-y")


def mqtt(broker: FleetBroker, name: str) -> dict[str, Any]:
    authority, cert, key = map(str, broker.credentials(name))
    return {
        "url": f"mqtts://localhost:{broker.port}",
        "ca_file": authority,
        "cert_file": cert,
        "key_file": key,
    }


def operator(folder: Path, broker: FleetBroker) -> Tools:
    """A fleet in which 1.0.0 is published."""
    tools = Tools(folder)
    authority, cert, key = map(str, broker.credentials("operator"))
    url = f"mqtts://localhost:{broker.operators_port}"
    tools.well("keygen", "alice")
    tools.well("keygen", "bob")
    tools.well(
        *("init", str(tools.path), "--name", FLEET, "--broker", url, "--key", "alice"),
        *("--ca-file", authority, "--cert-file", cert, "--key-file", key),
    )
    (tools.path / "guard.conf").write_text(CONFIG)
    (tools.path / "bad.conf").write_text(BAD_CONFIG)
    for version, module in (("1.0.0", release("1.0.0")), ("6.6.6", guest("hostile").read_bytes())):
        file = folder / f"{version}.wasm"
        file.write_bytes(module)
        tools.well("publish", str(file), "--name", PLUGIN, "--version", version)
    return tools


def play(folder: Path, seconds: float, seed: int) -> dict[str, Any]:
    """All of it; figures for people."""
    (folder / "broker").mkdir()
    (folder / "operator").mkdir()
    with FleetBroker(folder / "broker", *NAMES, "evil") as broker:
        tools = operator(folder / "operator", broker)
        boards = [
            Board(folder / name, name, mqtt(broker, name), tools.path / "trust") for name in NAMES
        ]
        first, second = boards
        with first.there(), second.there():
            tools.well("results")  # from now on they are kept
            tools.well(
                *("rollout", PLUGIN, "1.0.0", "--index", "20", "--config-file", "guard.conf"),
                *("--percent", "100", "--first", "-y"),
            )
            for board in boards:
                board.wait_version("1.0.0")
                board.busy()
            command = [
                *(sys.executable, "-m", "tests.hostile.board", str(seconds), "localhost"),
                *(str(broker.port), FLEET, "evil", *map(str, broker.credentials("evil"))),
            ]
            with subprocess.Popen(
                [*command, str(seed)], cwd=ROOT, stdout=subprocess.PIPE, text=True
            ) as evil:
                rounds = _beside(tools, boards, evil)
                assert evil.stdout is not None
                told = evil.stdout.read().splitlines()
                assert evil.wait() == 0
            # Afterwards it is as if nothing had been.
            for board in boards:
                board.calm()
                board.agent.wait_for(
                    lambda status: status["mqtt"]["queued"] == 0, f"all of {board.name} is sent"
                )
            shown = _results(tools)
            for board in boards:
                board.check()
                connected = [m for m in board.agent.messages() if m.startswith("connected to ")]
                assert len(connected) == 1, f"{board.name} lost its session: {connected}"
    return {
        "commands": len(tools.ran),
        "rounds": rounds,
        "slowest tool, MiB": max(each.peak_bytes for each in tools.ran) >> 20,
        "boards, MiB": [board.peak_bytes >> 20 for board in boards],
        "answered": [board.answered for board in boards],
        "results": shown,
        "evil": json.loads(told[-1]),
    }


def _beside(tools: Tools, boards: list[Board], evil: subprocess.Popen[str]) -> int:
    """Every command while the board does its worst; once at least, and as long as it goes on."""
    count, version = 0, "1.0.0"
    while count == 0 or evil.poll() is None:
        tools.round(count)
        count += 1
        # A release that fails on its canary reaches nobody else, whatever the evil board claims;
        # `gc` has cleared its parts in the round.
        bad = str(tools.folder / "6.6.6.wasm")
        tools.well("publish", bad, "--name", PLUGIN, "--version", "6.6.6")
        ran = tools.run(
            *("rollout", PLUGIN, f"6.6.6+{count}", "--config-file", "bad.conf"),
            *("--nodes", "good-1", "--steps", "100", "--timeout", "60s", *ROLLOUT),
        )
        said = ran.output + ran.errors
        assert (ran.code, "taken back" in said or "held, since" in said) == (1, True), said
        assert "advanced" not in ran.output, ran.output
        assert boards[1].versions() == {version}
        if "taken back" not in ran.output:  # held: somebody has to take it back
            tools.well("rollback", PLUGIN, "-y")
        for board in boards:
            board.wait_version(version)
        # One that is good passes by its canary, and is deployed to all by hand.
        version = f"2.{count - 1}.0"
        ran = tools.well("rollout", PLUGIN, version, "--nodes", "good-1", "-y", *_config())
        boards[0].wait_version(version)
        tools.well("rollout", PLUGIN, version, "--percent", "100", "-y")
        for board in boards:
            board.wait_version(version)
        tools.run("results", "--json")
    tools.run("doctor", "--broker")
    tools.well("trust", "rotate", "--threshold", "1", "--add", "bob", "-y")
    tools.well("deploy", "-y")
    return count


def _config() -> tuple[str, ...]:
    return ("--config-file", "guard.conf")


def _results(tools: Tools) -> dict[str, int]:
    """How many records of the honest boards came; each came once, or is told to be missing."""
    tools.read_results()
    streams: dict[tuple[str, str], list[int]] = {}
    count = dict.fromkeys(NAMES, 0)
    for ran in tools.ran:
        for each in json_lines(ran.output) if ran.words[:2] == ("results", "--json") else ():
            if each["node"] not in NAMES or "unreadable" in each:
                continue
            numbers = streams.setdefault((each["node"], each["stream"]), [])
            if "gap" in each:
                numbers += range(each["gap"]["from"], each["gap"]["to"] + 1)
            else:
                numbers.append(each["seq"])
                count[each["node"]] += 1
    for stream, numbers in streams.items():
        assert len(set(numbers)) == len(numbers), f"{stream}: some came twice"
        assert max(numbers) - min(numbers) + 1 == len(numbers), f"{stream}: some are lost"
    return count


@needs_mosquitto
@needs_openssl
@pytest.mark.system
def test_a_hostile_board_ends_no_tool_and_harms_no_other_board(tmp_path: Path) -> None:
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    figures = play(tmp_path, 20.0, seed=1)
    print(figures)
    assert len(figures["evil"]) == 17, "it did not do all that it knows"


if __name__ == "__main__":
    chosen = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() & 0xFFFF_FFFF
    print(f"seed {chosen}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for what, figure in play(Path(scratch), float(sys.argv[1]), chosen).items():
            print(f"{what}: {figure}", flush=True)
