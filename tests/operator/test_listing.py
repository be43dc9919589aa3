"""Fleets beyond what a broker lets wait for one client are read whole.

python -m tests.operator.test_listing 20000
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import pytest

from edge_agent.config import Broker, MqttConfig
from edge_agent.operator.broker import BrokerClient
from edge_agent.operator.tool_client import Received, client_id
from edge_agent.operator.view import View, listed, read_nodes
from tests.operator.conftest import Home
from tests.support.mosquitto import Mosquitto, needs_mosquitto

pytestmark = pytest.mark.system

NODES = "edge/v1/greenhouse/nodes"
# Its limits are the defaults; only its log and its disk are left out.
QUIET = ("log_type none", "autosave_on_changes false")
COUNT = 6000  # mosquitto dropped some 1,200 of so many states


def fill(client: BrokerClient, count: int, state_bytes: int, silent: frozenset[int]) -> None:
    """So many nodes; those that are `silent` have no state."""
    sent: list[int] = []
    for number in range(count):
        node = f"{NODES}/board-{number:05}"
        sent.append(client.send(f"{node}/status", b'{"status":"online","session":1}', retain=True))
        if number not in silent:
            state = json.dumps({"session": 1, "agent": "0.1.0", "x": "y" * state_bytes})
            sent.append(client.send(f"{node}/state", state.encode(), retain=True))
        while len(sent) > 100:
            client.wait(sent.pop(0))
    for each in sent:
        client.wait(each)


def plain(port: int) -> MqttConfig:
    return MqttConfig((Broker("127.0.0.1", port, False),), client_id())


def read(port: int) -> View:
    view = View()
    with BrokerClient(plain(port)) as client:
        for topic, payload in read_nodes(client, NODES).items():
            view.feed(Received(topic, payload, True))
    return view


@needs_mosquitto
def test_a_fleet_beyond_mosquittos_queue_is_read_whole_and_who_is_silent_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine reads for minutes.
    monkeypatch.setattr("edge_agent.operator.broker_connection.ANSWER_TIMEOUT_S", 1800.0)
    monkeypatch.setattr("edge_agent.operator.broker.MARK_TIMEOUT_S", 1800.0)
    with Mosquitto(tmp_path, *QUIET) as broker:
        _read_whole(broker, Home(tmp_path / "operator", broker.port, capsys))


def _read_whole(mosquitto: Mosquitto, home: Home) -> None:
    home.fleet("keygen", "alice")
    home.fleet("init", str(home.path), "--broker", f"mqtt://127.0.0.1:{mosquitto.port}")
    with BrokerClient(plain(mosquitto.port)) as client:
        fill(client, COUNT, 1500, frozenset((17, 4711)))
        lossy = client.retained((f"{NODES}/+/state",))
        assert len(lossy) < COUNT - 2  # or this broker has become another one
        # What it dropped comes once the session is taken up again; statuses are read like this.
        assert len(listed(client.config, f"{NODES}/+/state")) == COUNT - 2
    view = read(mosquitto.port)
    assert (len(view.nodes), view.online) == (COUNT, COUNT)
    assert view.silent == ["board-00017", "board-04711"]
    code, told, errors = home.tried("nodes")
    assert (code, errors) == (1, "")
    assert "2 nodes with a status and without a state: board-00017, board-04711" in told
    assert f"{COUNT} of {COUNT} nodes online" in told


def _measured(count: int) -> None:
    """The same once, with more nodes; figures for people."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Mosquitto(Path(folder), *QUIET) as broker,
        BrokerClient(plain(broker.port)) as client,
    ):
        fill(client, count, 1500, frozenset())
        for leaf in ("status", "state"):
            print(leaf, "by one subscription:", len(client.retained((f"{NODES}/+/{leaf}",))))
        began = time.monotonic()
        view = read(broker.port)
        seconds = time.monotonic() - began
        print(f"{len(view.nodes)} nodes, {len(view.silent)} silent, {seconds:.1f} s")


if __name__ == "__main__":
    _measured(int(sys.argv[1]))
