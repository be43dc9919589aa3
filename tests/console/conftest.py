"""A console over a broker in this process; the tests publish as nodes do and ask as browsers do."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest

from edge_agent.config import MqttConfig
from edge_agent.config.model import Broker as Address
from edge_agent.console.live import LiveFleet
from edge_agent.console.web import Console, new_token
from edge_agent.operator import folder as folders
from edge_agent.operator.broker import BrokerClient
from edge_agent.operator.fleet import Fleet
from edge_agent.operator.keyring import Keyring
from edge_agent.sim.broker import Broker
from tests.support.wait import TIMEOUT_S, wait_until

FLEET = "yard"
HOST = "127.0.0.1:8480"


class Answer(NamedTuple):
    """What the console answered; names of headers in small letters."""

    status: int
    headers: Mapping[str, str]
    body: str


class Site:
    """A context manager: broker, fleet's folder, live fleet and application."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broker = Broker()
        self.keyring = Keyring(folder / "keys")
        self.token = new_token()
        self.live = LiveFleet(self._connect)
        self.app = Console(self.live).app(self.token, f"http://{HOST}")

    @contextmanager
    def _connect(self) -> Iterator[Fleet]:
        fleet = folders.find(self.folder / "fleet")
        with BrokerClient(fleet.settings().mqtt) as client:
            yield Fleet(fleet, client, self.keyring)

    def __enter__(self) -> Self:
        self.broker.__enter__()
        folders.create(
            self.folder / "fleet",
            name=FLEET,
            url=f"mqtt://127.0.0.1:{self.broker.port}",
            keys={"alice": self.keyring.generate("alice")},
            threshold=1,
        )
        address = Address("127.0.0.1", self.broker.port, False)
        self._client = BrokerClient(MqttConfig((address,), "nodes"))
        self._client.__enter__()
        self.live.__enter__()
        wait_until(lambda: not self.live.problem, "the console is connected")
        return self

    def __exit__(self, *_: object) -> None:
        self.live.__exit__()
        self._client.__exit__(None, None, None)
        self.broker.__exit__()

    def says(self, node: str, leaf: str, told: Mapping[str, Any] | bytes) -> None:
        """A retained message of a node; b"" clears it."""
        payload = told if isinstance(told, bytes) else json.dumps(told).encode()
        topic = f"edge/v1/{FLEET}/nodes/{node}/{leaf}"
        self._client.wait(self._client.send(topic, payload, retain=True))

    def reports(self, node: str, *records: Mapping[str, object]) -> None:
        """A batch of results."""
        batch = {"version": 1, "node": node, "stream": "s", "records": records}
        topic = f"edge/v1/{FLEET}/nodes/{node}/results"
        self._client.send(topic, json.dumps(batch).encode(), retain=False)

    def node(self, name: str, status: str = "online", **state: Any) -> None:
        """A node with a status and a state, which the console has taken."""
        self.says(name, "status", {"status": status, "session": 1})
        self.says(name, "state", {"session": 1, "agent": "0.1.0", **state})

        def known() -> object:
            found = self.live.node(name)
            return found and (found.node.state or found.node.unreadable)

        wait_until(known, f"{name} is known")

    def settle(self) -> None:
        """Until all that was published is counted."""
        self.node("last", agent="settled")
        wait_until(lambda: "settled" in self.live.summary.agents, "it is counted")
        self.says("last", "status", b"")
        self.says("last", "state", b"")
        wait_until(lambda: "settled" not in self.live.summary.agents, "it is counted")

    def get(
        self, path: str, signed_in: bool = True, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """GET as a browser that has the console's cookie, or not."""
        given = {"host": HOST, **(headers or {})}
        if signed_in:
            given["cookie"] = f"edge_agent_console_8480={self.token}"
        return asyncio.run(get(self.app, path, given))


async def get(app: Any, path: str, headers: Mapping[str, str]) -> Answer:
    """One GET of an ASGI application."""
    sent: list[Any] = []
    asked = False

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        nonlocal asked
        if asked:  # it stays until it has the answer
            await asyncio.Event().wait()
        asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    await asyncio.wait_for(app(scope(path, headers), receive, send), TIMEOUT_S)
    begun = sent[0]
    body = b"".join(each.get("body", b"") for each in sent[1:])
    told = {name.decode(): value.decode() for name, value in begun["headers"]}
    return Answer(begun["status"], told, body.decode())


def scope(path: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """ASGI's description of a GET."""
    path, _, query = path.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
        "server": ("127.0.0.1", 8480),
        "client": ("127.0.0.1", 50000),
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One for the tests of a module: each has nodes of its own, or says them anew."""
    with Site(tmp_path_factory.mktemp("site")) as site:
        yield site
