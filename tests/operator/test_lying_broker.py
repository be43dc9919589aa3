"""A broker that lies in every text it can: nothing of it drives the operator's terminal."""

import argparse
import base64
import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from rich.console import Console

from edge_agent.cli import fleet as commands
from edge_agent.cli.fleet_screen import Screen
from edge_agent.operator.deploy import Current
from edge_agent.operator.node_state import Node
from edge_agent.operator.overview import NOTHING, news, snapshot
from edge_agent.operator.view import View
from edge_agent.sim.broker import Broker
from edge_agent.sim.mqttwire import Message
from tests.operator import fuzz
from tests.operator.conftest import GUARD, LOGGER, Home

# A title, a colour in C1, text from right to left, a tag, a line's end, rich's markup and emoji.
LIE = "\x1b]0;owned\x07\x9b31m\u202egpj\u2066\u200f\U000e0041\u2028\nroot# \x08[bold red]:skull:[/]"
ROOT = "edge/v1/greenhouse"
NODE = f"{ROOT}/nodes/board-1"
STALE = "ab" * 32


def lied(value: Any) -> Any:
    """The same with a lie in each of its texts and names."""
    if isinstance(value, str):
        return value + LIE
    if isinstance(value, dict):
        return {key: lied(each) for key, each in value.items()} | {f"more{LIE}": LIE}
    if isinstance(value, list):
        return [lied(each) for each in value]
    return value


def packed(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def lie(broker: Broker) -> None:
    """Keep it, as if nodes and operators had published it."""
    state = lied(fuzz.STATE)
    state["plugins"].append({**fuzz.STATE["plugins"][0], "name": LIE, "error": f"\ud800{LIE}"})
    state["updates"]["generation"] = 1
    for topic, payload in {
        f"{NODE}/status": packed({"status": "online", "session": 1}),
        f"{NODE}/state": json.dumps(state).encode(),
        f"{ROOT}/nodes/board-2/status": packed({"status": f"online{LIE}", "session": 1}),
        f"{ROOT}/nodes/board-3/state": packed([LIE]),
        f"{ROOT}/nodes/board-4/state": LIE.encode(),
        f"{ROOT}/nodes/board-{LIE.replace('#', '')}/status": packed({"status": "online"}),
        f"{ROOT}/nodes/board-{LIE.replace('#', '')}/state": packed({}),
        f"{NODE}/results": packed(lied(fuzz.BATCH)),
        f"{ROOT}/nodes/board-2/results": packed({"records": LIE}),
        f"{ROOT}/blobs/{STALE}/0": b"x",
        f"{ROOT}/blobs/{STALE}/{LIE.replace('#', '')}": b"x",
        f"{ROOT}/blobs/{LIE.replace('#', '')}/0": b"x",
    }.items():
        broker.memory.retained[topic] = Message(topic, payload, True)


@contextmanager
def answering(port: int) -> Iterator[None]:
    """A node that answers each request with lies, and fails it in the end."""

    def answer(client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        request = json.loads(message.payload)
        if "payload" in request:  # signed
            request = json.loads(base64.b64decode(request["payload"]))
        verb = message.topic.rpartition("/")[2]
        told = lied(fuzz.ANSWER) | {"id": request["id"]}
        for state in (f"running{LIE}", "failed"):
            client.publish(f"{NODE}/response/{verb}", packed(told | {"state": state}))

    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="board-1")
    client.on_message = answer
    client.connect("127.0.0.1", port)
    client.subscribe(f"{NODE}/request/+")
    client.loop_start()
    yield
    client.disconnect()
    client.loop_stop()


# Every command, in an order in which each finds something to do.
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("nodes",),
    ("node", "board-1"),
    ("node", "board-2"),
    ("node", "board-3"),
    ("node", f"board{LIE}"),
    ("enrol", "board-1", "-y"),
    ("enrol", "board-3", "-y"),
    ("enrol", f"board{LIE}", "-y"),
    ("watch", "--seconds", "1"),
    ("plan",),
    ("results",),
    ("request", "board-1", "logs", "--timeout", "5"),
    ("request", "board-1", "diagnose", "--timeout", "5"),
    ("publish", str(LOGGER), "--name", "guard", "--version", "1.1.0"),
    ("rollout", "guard", "1.1.0", "--percent", "50", "-y"),
    ("deploy", "-y"),
    ("rollback", "guard", "-y"),
    ("gc", "-y"),
    ("trust", "rotate", "--threshold", "1", "--add", "bob", "-y"),
)
# As the broker, once more, with a deployment and a chain of trust that are lies.
AFTER: tuple[tuple[str, ...], ...] = (
    ("plan",),
    ("nodes",),
    ("gc", "-y"),
    ("sign", "signed.json", "-y"),
    ("doctor", "--broker"),
    ("trust", "rotate", "--remove", "bob", "-y"),
    ("deploy", "-y"),
)
ALONE = {"keygen", "init"}  # ask no broker
SERVES = {"console"}  # until interrupted: tests/console says there what nodes may invent


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


@pytest.fixture
def fleet(tmp_path: Path, broker: Broker, capsys: pytest.CaptureFixture[str]) -> Home:
    """Deployed; then the broker begins to lie."""
    home = Home(tmp_path / "operator", broker.port, capsys)
    home.fleet("keygen", "alice")
    home.fleet("init", str(home.path), "--broker", f"mqtt://127.0.0.1:{broker.port}")
    home.fleet("publish", str(GUARD), "--name", "guard", "--version", "1.0.0")
    home.fleet("rollout", "guard", "1.0.0", "--percent", "100", "--index", "20", "-y")
    home.fleet("keygen", "bob")
    lie(broker)
    return home


def harmless(text: str) -> bool:
    return all(each.isprintable() for each in text.split("\n"))


def run(home: Home, *words: str) -> None:
    for more in ((), ("--json",)):
        code, output, errors = home.tried(*words, *more)
        assert harmless(output), ascii(output)
        assert harmless(errors), ascii(errors)
        assert "root# " not in (line[:6] for line in (output + errors).split("\n"))
        assert code in (0, 1, 2)


def test_no_lie_of_a_broker_drives_the_terminal_of_any_command(fleet: Home, broker: Broker) -> None:
    with answering(broker.port):
        for words in COMMANDS:
            run(fleet, *words)
    run(fleet, "enrol", "board-1", "--key", str(fleet.keys / "bob.pem"), "-y")
    run(fleet, "node", "board-1")
    document = packed({"payloadType": LIE, "payload": "", "signatures": [{"keyid": LIE}]})
    for topic, payload in ((f"{ROOT}/deployment", document), (f"{ROOT}/trust", packed([LIE]))):
        broker.memory.retained[topic] = Message(topic, payload, True)
    file = fleet.path / "signed.json"
    file.write_bytes(document)
    for words in AFTER:
        run(fleet, *(str(file) if word == file.name else word for word in words))


def test_every_command_is_tried() -> None:
    assert commands_of_fleet() == {words[0] for words in (*COMMANDS, *AFTER)} | ALONE | SERVES


def commands_of_fleet() -> set[str]:
    subparsers = argparse.ArgumentParser().add_subparsers()
    commands.add_parser(subparsers)
    return {
        name
        for action in subparsers.choices["fleet"]._actions  # noqa: SLF001 - argparse has no other list
        if isinstance(action, argparse._SubParsersAction)  # noqa: SLF001
        for name in action.choices
    }


@pytest.mark.parametrize("words", [("nodes",), ("node", "board-1"), ("watch", "--seconds", "1")])
def test_no_lie_drives_a_real_terminal(fleet: Home, words: tuple[str, ...]) -> None:
    """Where rich draws, with escapes of its own."""
    shown = in_terminal(
        *(sys.executable, "-m", "edge_agent", "fleet", words[0]),
        *("-C", str(fleet.path), "--keys", str(fleet.keys), *words[1:]),
    )
    assert "board-1" in shown
    for part in ("\x1b]", "\x07", "\x9b", "\u202e", "\u2066", "\u200f", "\U000e0041", "\u2028"):
        assert part not in shown
    assert "\u2620" not in shown  # the emoji
    assert "\x1b[1;31m:skull:" not in shown
    assert "[bold red]:skull:" in shown.replace("\r\n", "") or words[0] != "node"


def test_the_screen_makes_all_that_it_draws_harmless() -> None:
    """Also what no `View` lets in today, such as a node with this name."""
    view = View()
    found = view.nodes[LIE] = Node(LIE, "lost", 1, lied(fuzz.STATE))
    output = StringIO()
    console = Console(file=output, width=400, height=60)
    screen = Screen(console, "f", f"mqtt://{LIE}", {fuzz.TWO: f"guard {LIE}"}, 7)
    for each in news(LIE, NOTHING, snapshot(found), {}):
        screen.say(f"{each.node}  {each.text}", "red")
    current = Current(b"", fuzz.a_deployment(), "")
    console.print(screen.content(view, current, LIE, LIE))
    assert harmless(output.getvalue())
    assert "lost: its connection ended without an offline message" in output.getvalue()


def in_terminal(*command: str) -> str:
    """What a command writes to a terminal."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "400", "LINES": "60"}
    process = subprocess.Popen(command, stdout=slave, stderr=slave, stdin=slave, env=environment)
    os.close(slave)
    shown = bytearray()
    while True:
        ready, _, _ = select.select([master], [], [], 60)
        assert ready, "the command says nothing"
        try:
            data = os.read(master, 65536)
        except OSError:
            break
        if not data:
            break
        shown += data
    os.close(master)
    process.wait()
    return shown.decode("utf-8", "replace")
