"""The embedded broker is for the demonstration only: nothing but `sim` and its users load it."""

import re
import socket
from pathlib import Path

from edge_agent.sim.broker import Broker

PACKAGE = Path(__file__).resolve().parents[2] / "edge_agent"
USES = re.compile(r"^\s*(?:from|import) edge_agent\.sim\.(?:broker|mqttwire)\b", re.MULTILINE)


def test_only_the_simulation_and_the_demo_import_it() -> None:
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if USES.search(path.read_text())
    }
    assert users
    assert all(user.startswith(("sim/", "cli/demo")) for user in users)


def test_it_listens_on_the_loopback_only() -> None:
    with Broker() as broker:
        reached = []
        for address in ("127.0.0.1", "127.0.0.2"):  # each is this machine's own
            with socket.socket() as client:
                if client.connect_ex((address, broker.port)) == 0:
                    reached.append(address)
        assert reached == ["127.0.0.1"]
