"""A fleet of a test: a real broker, a folder made by `init`, two versions of a plugin."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from edge_agent.__main__ import main
from edge_agent.operator.broker import BrokerClient
from edge_agent.operator.fleet import Fleet
from edge_agent.operator.folder import FleetFolder
from edge_agent.operator.keyring import Keyring
from tests.operator.peer import Peer
from tests.support.mosquitto import Mosquitto

ROOT = Path(__file__).resolve().parents[2]
GUARD = ROOT / "plugins" / "resource-guard" / "resource-guard.wasm"
LOGGER = ROOT / "plugins" / "event-logger" / "event-logger.wasm"


class Home:
    """Where one operator works."""

    def __init__(self, folder: Path, port: int, capsys: pytest.CaptureFixture[str]) -> None:
        self.keys = folder / "keys"
        self.path = folder / "greenhouse"
        self.port = port
        self.first: tuple[str, ...] = (
            "--first",
        )  # said where this folder has deployed nothing yet
        self.capsys = capsys

    def fleet(self, *words: str) -> str:
        """Run a command that succeeds; what it printed."""
        code, output, errors = self.tried(*words)
        assert code == 0, output + errors
        return output

    def tried(self, *words: str) -> tuple[int, str, str]:
        """Run a command; its exit code, output and errors."""
        self.capsys.readouterr()
        folder = () if words[0] in ("keygen", "init") else ("-C", str(self.path))
        at = 2 if words[0] == "trust" else 1
        first = words[0] in ("deploy", "rollout") and "--onto" not in words
        if first and not (self.path / "deployed.toml").exists():
            words = (*words, *self.first)
        code = main(["fleet", *words[:at], *folder, "--keys", str(self.keys), *words[at:]])
        output, errors = self.capsys.readouterr()
        return code, output, errors

    @contextmanager
    def opened(self) -> Iterator[Fleet]:
        """The same as functions."""
        folder = FleetFolder(self.path)
        with BrokerClient(folder.settings().mqtt) as client:
            yield Fleet(folder, client, Keyring(self.keys))


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path) as broker:
        yield broker


@pytest.fixture
def home(tmp_path: Path, mosquitto: Mosquitto, capsys: pytest.CaptureFixture[str]) -> Home:
    """One key, one folder; nothing published."""
    made = Home(tmp_path / "operator", mosquitto.port, capsys)
    made.fleet("keygen", "alice")
    made.fleet("init", str(made.path), "--broker", f"mqtt://127.0.0.1:{mosquitto.port}")
    return made


@pytest.fixture
def published(home: Home) -> Home:
    """Two versions of a plugin are at the broker."""
    for file, version in ((GUARD, "1.0.0"), (LOGGER, "1.1.0")):
        home.fleet("publish", str(file), "--name", "guard", "--version", version)
    return home


@pytest.fixture
def peers(home: Home) -> Iterator[Callable[..., list[Peer]]]:
    """Makes nodes: `peers("a", "b", labels={...})`; they leave at the end."""
    with ExitStack() as stack:

        def make(*names: str, **changes: object) -> list[Peer]:
            trust = FleetFolder(home.path).trust_set()
            return [
                stack.enter_context(Peer(home.port, name, trust, **changes))  # type: ignore[arg-type]
                for name in names
            ]

        yield make
