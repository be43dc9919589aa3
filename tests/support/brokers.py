"""Brokers of other makers on a free loopback port, open to anybody; tests/peers starts them.

Each is built once into the user's cache; where its tools are missing the calling test is skipped.
"""

import fcntl
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Self

import pytest

from tests.support import gobuild
from tests.support.gobuild import ROOT
from tests.support.mosquitto import MOSQUITTO, Mosquitto
from tests.support.ports import free_port
from tests.support.wait import TIMEOUT_S, wait_until

PEERS = ROOT / "tests" / "peers"
BUILD_TIMEOUT_S = 900
END_S = 60.0
LOG_CHARACTERS = 40_000

_NATS = """\
server_name: edge
listen: "127.0.0.1:{client_port}"
jetstream {{ store_dir: "{folder}/jetstream" }}
mqtt {{ listen: "127.0.0.1:{port}" }}
"""
_HIVEMQ = """\
<?xml version="1.0"?>
<hivemq>
  <listeners>
    <tcp-listener><port>{port}</port><bind-address>127.0.0.1</bind-address></tcp-listener>
  </listeners>
  <anonymous-usage-statistics><enabled>false</enabled></anonymous-usage-statistics>
</hivemq>
"""


_CLUSTER = """\
http: "127.0.0.1:{http}"
cluster {{ name: "edge", listen: "127.0.0.1:{own}", routes: [{routes}] }}
"""


class BrokerHangs(AssertionError):
    """A broker does not end when it is told to."""


class Foreign:
    """One broker as a process; a context manager. Started again it keeps port and files."""

    def __init__(self, folder: Path, command: Callable[[Path, int], Sequence[str | Path]]) -> None:
        self.port = free_port()
        self.log_file = folder / "broker.log"
        self._command = command(folder, self.port)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def start(self) -> None:
        """Start it and wait until it listens."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        wait_until(self._listens, "the broker listens")

    def stop(self) -> None:
        """In order. BrokerHangs, with what its threads are at: it does not end."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)  # Go and Java tell their threads
            time.sleep(1)
            process.kill()
            process.wait()
            said = self.log_file.read_text(errors="replace")[-LOG_CHARACTERS:]
            raise BrokerHangs(f"the broker did not end in {END_S} s: {said}") from None

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log_file.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def mosquitto(folder: Path) -> Mosquitto:
    """Debian's, as far as it is installed."""
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    return Mosquitto(folder, "max_queued_messages 1000", "max_inflight_messages 20")


def nats(folder: Path) -> Foreign:
    """One NATS server with JetStream on the disk."""
    gobuild.require_go()
    binary = gobuild.broker_binary("nats")

    def command(folder: Path, port: int) -> Sequence[str | Path]:
        file = folder / "nats.conf"
        file.write_text(_NATS.format(client_port=free_port(), folder=folder, port=port))
        return binary, file

    return Foreign(folder, command)


class NatsCluster:
    """Three NATS servers; clients come to the first. A context manager."""

    def __init__(self, folder: Path) -> None:
        gobuild.require_go()
        binary = gobuild.broker_binary("nats")
        ports = [free_port() for _ in range(3)]
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
        self.members: list[Foreign] = []
        self._monitors = [free_port() for _ in ports]
        for number, own in enumerate(ports):
            place = folder / f"{number}"
            place.mkdir()

            def command(
                folder: Path, port: int, own: int = own, number: int = number
            ) -> Sequence[str | Path]:
                file = folder / "nats.conf"
                text = _NATS.format(client_port=free_port(), folder=folder, port=port)
                text = text.replace("server_name: edge", f"server_name: edge-{number}")
                http = self._monitors[number]
                file.write_text(text + _CLUSTER.format(own=own, routes=routes, http=http))
                return binary, file

            self.members.append(Foreign(place, command))
        self.port = self.members[0].port

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.members:
            each.__exit__()

    def start(self) -> None:
        """Start all, and wait until they accept a client and have a leader for all they keep."""
        for each in self.members:
            each.start()
        wait_until(self._accepts, "the cluster accepts a client")
        for number in range(len(self.members)):
            wait_until(partial(self._is_well, number), f"member {number} is well")

    def stop(self) -> None:
        """All of them."""
        for each in self.members:
            each.stop()

    def feeder(self) -> int:
        """The member whose consumer tells the first what is retained.

        It lives on one member only (nats-server 2.15.3, `createEphemeralConsumer`): while that is
        away, the first member shows no retained message that came since.
        """
        found: list[int] = []

        def told() -> bool:
            found[:] = [number for number in range(len(self.members)) if self._feeds(number)]
            return len(found) == 1

        wait_until(told, "one member has the consumer of what is retained")
        return found[0]

    def _is_well(self, number: int) -> bool:
        try:
            return bool(json.loads(self._ask(number, "healthz"))["status"] == "ok")
        except urllib.error.HTTPError:  # 503, with what is not ready yet
            return False

    def _feeds(self, number: int) -> bool:
        told = json.loads(self._ask(number, "jsz?accounts=1&streams=1&consumers=1"))
        accounts = told.get("account_details") or []
        streams = [each for account in accounts for each in account.get("stream_detail") or []]
        return any(
            each["name"] == "$MQTT_rmsgs" and each.get("consumer_detail") for each in streams
        )

    def _ask(self, number: int, what: str) -> bytes:
        """NATS' own monitoring."""
        place = f"http://127.0.0.1:{self._monitors[number]}/{what}"
        with urllib.request.urlopen(place, timeout=TIMEOUT_S) as answer:
            content: bytes = answer.read()
            return content

    def _accepts(self) -> bool:
        connect = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x0a\x00\x04look"
        with socket.create_connection(("127.0.0.1", self.port), 10) as probe:
            probe.settimeout(10)
            probe.sendall(connect)
            try:
                return probe.recv(4) == b"\x20\x02\x00\x00"
            except OSError:  # no answer, or it hung up: not yet
                return False


def mochi(folder: Path) -> Foreign:
    """mochi-mqtt, in memory."""
    gobuild.require_go()
    binary = gobuild.broker_binary("mochi")
    return Foreign(folder, lambda _folder, port: (binary, f"127.0.0.1:{port}"))


def aedes(folder: Path) -> Foreign:
    """Aedes, in memory."""
    tools = _tools("node", "npm")
    made = _built("aedes", (tools["npm"], "install", "--no-audit", "--no-fund"))
    return Foreign(folder, lambda _folder, port: (tools["node"], made / "main.cjs", str(port)))


def hivemq(folder: Path) -> Foreign:
    """HiveMQ's community edition."""
    tools = _tools("java", "mvn")
    made = _built("hivemq", (tools["mvn"], "-q", "-B", "package"))

    def command(folder: Path, port: int) -> Sequence[str | Path]:
        folders = [folder / name for name in ("conf", "data", "extensions")]
        for each in folders:
            each.mkdir(exist_ok=True)
        (folders[0] / "config.xml").write_text(_HIVEMQ.format(port=port))
        jars = f"{made}/target/*:{made}/target/dependency/*"
        return (tools["java"], "-Xmx512m", "-cp", jars, "Main", *folders)

    return Foreign(folder, command)


def _tools(*names: str) -> dict[str, str]:
    found = {name: shutil.which(name) for name in names}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
    return {name: str(path) for name, path in found.items()}


def _built(name: str, command: Sequence[str]) -> Path:
    """A copy of tests/peers/NAME in the cache in which `command` was run; once for each content."""
    source = PEERS / name
    digest = hashlib.sha256()
    for file in sorted(each for each in source.rglob("*") if each.is_file()):
        digest.update(f"{file.relative_to(source)}\0".encode() + file.read_bytes())
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "edge-agent" / "brokers" / f"{name}-{digest.hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            shutil.copytree(source, folder, dirs_exist_ok=True)
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S
            )
            assert done.returncode == 0, f"{done.stdout}{done.stderr}"
            (folder / "ready").touch()
    return folder


BROKERS: dict[str, Callable[[Path], Mosquitto | Foreign | NatsCluster]] = {
    "mosquitto": mosquitto,
    "nats": nats,
    "nats cluster": NatsCluster,
    "hivemq": hivemq,
    "mochi": mochi,
    "aedes": aedes,
}
