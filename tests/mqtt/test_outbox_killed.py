"""The outbox when its process is really killed: at every file operation, and at any moment."""

import os
import random
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from tests.mqtt.harness import config_for, running, wait_until_connected
from tests.mqtt.observer import Observer, accounted
from tests.support.mosquitto import Mosquitto, needs_mosquitto
from tests.support.wait import wait_until


@pytest.mark.system
@pytest.mark.parametrize("hold_s", ["0", "2"])
def test_killed_at_any_file_operation_nothing_kept_is_lost_or_counted_twice(hold_s: str) -> None:
    # In memory, where there is such a place: what is synced makes no difference here.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with TemporaryDirectory(dir=memory) as folder:
        done = subprocess.run(
            [sys.executable, "-m", "tests.mqtt.killedoutbox", f"{folder}/outbox", hold_s],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    points, twice = map(int, done.stdout.split())
    assert points > 200
    assert 0 < twice < 100  # what was sent and its acknowledgement not written down


class Agent:
    """A process with a link that reports without pause (tests/mqtt/streamer.py)."""

    def __init__(self, port: int, state_dir: Path, first: int, *settings: str) -> None:
        """`settings`: MQTT's version, and `durability`."""
        self.kept = first - 1  # the last item that must arrive
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.mqtt.streamer",
                str(port),
                state_dir,
                str(first),
                *settings,
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_for(self, item: int) -> None:
        """Until it is kept."""
        wait_until(lambda: self.kept >= item, f"{item} is kept")

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.kept = int(line)


@pytest.mark.system
@needs_mosquitto
@pytest.mark.parametrize(
    ("version", "durability"), [("5", "always"), ("3.1.1", "always"), ("5", "delayed")]
)
def test_killed_agents_and_a_killed_broker_lose_nothing_that_was_kept(
    tmp_path: Path, version: str, durability: str
) -> None:
    """Kept is what is on disk or, with the durability "delayed", acknowledged."""
    chance = random.Random(version)
    state_dir, first = tmp_path / "state", 0
    must: set[int] = set()
    with Mosquitto(tmp_path) as broker, Observer(broker.port) as observer:
        for life in range(6):
            agent = Agent(broker.port, state_dir, first, version, durability)
            agent.wait_for(first + chance.randrange(500, 3000))
            if life % 2:
                broker.kill()
                agent.wait_for(agent.kept + chance.randrange(500, 2000))
                broker.start()
            agent.kill()
            must |= set(range(first, agent.kept + 1))
            first += 1_000_000  # so that an item that was lost is not mistaken for a later one
        with running(config_for(broker.port), state_dir=state_dir) as link:
            link.report(-1)
            wait_until(lambda: link.status()["sent"] > 0, "the rest is sent")
            wait_until(lambda: link.status()["queued"] == 0, "all is sent")
            assert link.status()["streams_cut"] == (2 if durability == "delayed" else 0)
        wait_until(
            lambda: must <= {record["item"] for record in observer.records() if "item" in record},
            "all that was kept arrives",
        )
        by_number: dict[tuple[object, object], object] = {}
        numbers: dict[object, set[int]] = {}
        for batch in observer.batches():
            records = batch["records"]
            assert isinstance(records, list)
            numbers.setdefault(batch["stream"], set()).update(accounted(records))
            for record in records:
                assert "gap" not in record
                key = (batch["stream"], record["seq"])
                assert by_number.setdefault(key, record["item"]) == record["item"]
        assert len(by_number) == len(set(by_number.values())), "an item has two numbers"
        if durability == "always":
            assert len(numbers) == 2, "streams go on over all lives"
        for found in numbers.values():
            assert found == set(range(1, max(found) + 1))


@pytest.mark.system
@needs_mosquitto
@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_results_wait_on_disk_over_restarts_while_the_broker_is_away(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if version == "3.1.1":
        monkeypatch.setattr("edge_agent.mqtt.connection.VERSIONS", (MQTTProtocolVersion.MQTTv311,))
    broker = Mosquitto(tmp_path)
    state_dir = tmp_path / "state"
    for life in range(3):
        with running(config_for(broker.port), state_dir=state_dir) as link:
            for item in range(100):
                link.report([life, item], important=item == 50)
    with (
        broker,
        Observer(broker.port) as observer,
        running(config_for(broker.port), state_dir=state_dir) as link,
    ):
        wait_until_connected(link)
        wait_until(lambda: link.status()["sent"] == 300, "all is sent")
        wait_until(lambda: len(observer.records()) >= 300, "all arrives")
        items = [record["item"] for record in observer.records()]
        important = [[life, 50] for life in range(3)]
        assert items[:3] == important
        assert items[3:] == [[life, item] for life in range(3) for item in range(100) if item != 50]
        assert link.status()["queued"] == 0
