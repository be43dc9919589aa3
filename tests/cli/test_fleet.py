"""`edge-agent fleet`: what is loaded, what is said; the screens themselves at 80 columns."""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from edge_agent.__main__ import main
from edge_agent.cli import fleet_output
from edge_agent.cli.fleet_screen import Screen
from edge_agent.fleet_protocol.deployment import parse, to_payload
from edge_agent.operator.deploy import Current
from edge_agent.operator.tool_client import Received
from edge_agent.operator.view import View, read_nodes
from edge_agent.store.digest import sha256_hex
from tests.operator.conftest import GUARD, Home, home, mosquitto, peers, published
from tests.operator.peer import Peer
from tests.support.mosquitto import needs_mosquitto

__all__ = ["home", "mosquitto", "peers", "published"]  # fixtures
Peers = Callable[..., list[Peer]]
REPOSITORY = Path(__file__).parents[2]
COMMANDS = (
    *("keygen", "init", "publish", "plan", "deploy", "sign", "rollout", "rollback", "watch"),
    *("nodes", "node", "enrol", "request", "results", "gc", "trust"),
)


def python(script: str) -> str:
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return done.stdout


def test_the_parser_alone_loads_nothing_of_the_operators() -> None:
    loaded = python(
        "import sys\nfrom edge_agent.__main__ import make_parser\nmake_parser(['fleet'])\n"
        "print(*sys.modules)"
    ).split()
    roots = {name.split(".")[0] for name in loaded}
    assert not roots & {"rich", "tomlkit", "paho", "nacl", "msgpack", "google"}
    assert not [name for name in loaded if name.startswith("edge_agent.operator")]


def test_the_operators_room_needs_neither_rich_nor_the_command_line() -> None:
    loaded = python(
        "import sys\nimport edge_agent.operator.rollout_driver, edge_agent.operator.inbox\n"
        "import edge_agent.operator.rotation, edge_agent.operator.blobs\n"
        "print(*sys.modules)"
    ).split()
    assert "rich" not in loaded
    assert not [name for name in loaded if name.startswith("edge_agent.cli")]


@pytest.mark.parametrize("word", ["999999999h", "100000d", "0s", "soon"])
def test_a_validity_that_ends_in_no_calendar_is_wrong_usage(
    tmp_path: Path, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--keys", str(tmp_path), "--broker", "mqtt://127.0.0.1:1", "--valid-for", word]
    assert main(["fleet", "keygen", "alice", "--keys", str(tmp_path)]) == 0
    with pytest.raises(SystemExit) as end:
        main(["fleet", "init", str(tmp_path / "f"), *words])
    assert end.value.code == 2
    assert "at most 99999d" in capsys.readouterr().err


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["fleet", "--help"])
    told = capsys.readouterr().out
    assert end.value.code == 0
    assert all(f"    {command} " in told for command in COMMANDS)
    assert "the first time:" in told


def test_no_command_is_wrong_usage_and_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fleet"]) == 2
    assert "the first time:" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself_and_speaks_json(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["trust", "rotate"] if command == "trust" else [command]
    with pytest.raises(SystemExit) as end:
        main(["fleet", *words, "--help"])
    assert end.value.code == 0
    assert "--json" in capsys.readouterr().out


def test_outside_a_folder_the_way_to_one_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fleet", "nodes", "-C", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert "no fleet.toml there or above" in told
    assert "edge-agent fleet init" in told


@pytest.mark.system
@needs_mosquitto
def test_the_tables_of_nodes(published: Home, peers: Peers) -> None:
    good, bad = (
        *peers("board-1", labels={"board": "rpi4"}),
        *peers("board-2", dislikes=frozenset(["1.1.0"])),
    )
    published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    told = published.fleet("rollout", "guard", "1.1.0", "--percent", "100", "-y")
    assert told.splitlines()[:3] == [
        "generation 2 for the fleet greenhouse, over generation 1",
        "PLUGIN    CHANGE   FROM   TO     NODES",
        "20-guard  replace  1.0.0  1.1.0  2: board-1, board-2",
    ]
    for node in (good, bad):
        node.wait_for(2)
    assert published.fleet("nodes").splitlines() == [
        "NODE     STATUS  GEN  AGENT  PLUGINS",
        "board-1  online  2    0.1.0  20-guard 1.1.0",
        "board-2  online  2    0.1.0  20-guard 1.0.0, 1 rejected",
        "2 of 2 nodes online",
    ]
    first, second = map(json.loads, published.fleet("nodes", "--json").splitlines())
    assert (first["node"], first["labels"], first["rejected"]) == (
        "board-1",
        {"board": "rpi4"},
        {},
    )
    assert list(second["rejected"].values()) == ["trap: unreachable"]
    assert published.fleet("node", "board-2").splitlines() == [
        "board-2 is online",
        "  agent       0.1.0 aarch64",
        "  engine      wasmtime 50.0.1",
        "  labels      -",
        "  generation  2",
        "",
        "PLUGIN    VERSION  STATUS   EVENTS  DIGEST        REMARKS",
        f"20-guard  1.0.0    running  3       {sha256_hex(GUARD.read_bytes())[:12]}",
        "rejected guard 1.1.0: trap: unreachable",
    ]
    code, _, errors = published.tried("node", "board-3")
    assert (code, "known are board-1, board-2" in errors) == (1, True)


@pytest.mark.system
@needs_mosquitto
def test_watch_without_a_terminal_tells_changes_line_by_line(published: Home, peers: Peers) -> None:
    (node,) = peers("board-1")
    published.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    node.wait_for(1)
    told = [
        line.split("  ", 1)[1] for line in published.fleet("watch", "--seconds", "3").splitlines()
    ]
    assert told == ["board-1  is online", "board-1  20-guard 1.0.0 running"]
    facts = [
        json.loads(line)
        for line in published.fleet("watch", "--seconds", "1", "--json").splitlines()
    ]
    assert facts[-1] == {"node": "board-1", "change": "20-guard 1.0.0 running"}


@pytest.mark.system
@needs_mosquitto
def test_reading_the_fleet_takes_nothing_from_the_seconds_of_a_watch(
    published: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a slow broker would leave nothing to be seen."""
    record = {"seq": 1, "plugin": "20-guard", "event": "CreateContainer", "outcome": "ok"}
    batch = json.dumps({"stream": "s", "records": [record]}).encode()
    with published.opened() as fleet:
        fleet.client.publish(f"{fleet.nodes_topic}/board-1/results", batch, retain=True)

    def slowly(*arguments: Any, **more: Any) -> dict[str, bytes]:
        time.sleep(3.5)
        return read_nodes(*arguments, **more)

    monkeypatch.setattr("edge_agent.cli.fleet_watch.read_nodes", slowly)
    assert "board-1  20-guard" in published.fleet("watch", "--seconds", "3")


def _deployment() -> Current:
    def release(version: str, digit: str) -> dict[str, object]:
        blob = {"digest": f"sha256:{digit * 64}", "size": 5000, "encoding": "zlib"}
        return {"version": version, "blob": {**blob, "parts": 1, "part_size": 65536}}

    new = {**release("1.1.0", "2"), "rollout": {"percent": 30, "seed": "s"}}
    plugin = {"name": "guard", "index": "20", "releases": [new, release("1.0.0", "1")]}
    document = {"kind": "edge-agent.deployment", "fleet": "f", "generation": 4, "plugins": [plugin]}
    times = {"issued": "2026-11-25T00:00:00Z", "expires": "2026-12-25T00:00:00Z"}
    deployment = parse(to_payload({**document, **times}), fleet="f")
    return Current(b"", deployment, "")


def _view(count: int) -> View:
    view = View()
    for number in range(count):
        name = f"board-{number:02}"
        plugin = {"name": "guard", "index": "20", "status": "running"}
        plugin |= {"version": "1.0.0", "digest": f"sha256:{'1' * 64}"}
        updates = {"generation": 4, "rejected": {f"sha256:{'2' * 64}": "trap: " + "very " * 40}}
        state = {"plugins": [plugin], "updates": updates if number < 9 else {"generation": 4}}
        for leaf, document in (("status", {"status": "online", "session": 1}), ("state", state)):
            topic = f"edge/v1/f/nodes/{name}/{leaf}"
            view.feed(Received(topic, json.dumps(document).encode(), True))
    return view


def test_the_screen_fits_80_columns_and_24_lines() -> None:
    console = Console(file=StringIO(), width=80, height=24, force_terminal=True)
    screen = Screen(
        console, "f", "mqtts://broker.example:8883", {f"sha256:{'2' * 64}": "guard 1.1.0"}
    )
    for number in range(60):
        screen.say(f"line {number} " + "x" * 200, "")
    content = screen.content(_view(20), _deployment(), "", "guard 1.1.0 at 30 %")
    drawn = console.render_lines(content, console.options.update(width=80))
    lines = ["".join(segment.text for segment in line).rstrip() for line in drawn]
    assert len(lines) == 23  # and the cursor's
    assert max(map(len, lines)) <= 80
    assert lines[:2] == [
        "f  generation 4  20 of 20 nodes online  mqtts://broker.example:8883",
        "guard 1.1.0 at 30 %",
    ]
    assert re.fullmatch(r"20-guard  1\.1\.0 30 %  .{16}  +0/3  3 to come, 4 failed", lines[3])
    assert re.fullmatch(r"          1\.0\.0       .{16}  17/17  17 run it", lines[4])
    assert lines[6].startswith("board-00  rejected guard 1.1.0: trap: very very")
    assert lines[11] == "and 4 more"
    assert "line 59 xxx" in lines[22]


def test_questions_are_not_asked_where_nobody_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", StringIO("y\n"))
    asked = argparse.Namespace(yes=False, json=False)
    with pytest.raises(Exception, match="without a terminal to ask at, give --yes"):
        fleet_output.confirm("deploy it?", asked)
    fleet_output.confirm("deploy it?", argparse.Namespace(yes=True, json=False))


def test_a_program_is_not_asked_on_a_terminal_either(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = StringIO("y\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    with pytest.raises(Exception, match="without a terminal to ask at, give --yes"):
        fleet_output.confirm("deploy it?", argparse.Namespace(yes=False, json=True))
    assert capsys.readouterr().out == ""
