"""What `edge-agent fleet doctor --broker` says of brokers that do one thing wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_agent.sim.broker import Broker
from edge_agent.sim.mqttwire import SUBACK, publish_packet, read_filters
from tests.operator.conftest import Home


class NoFlag(Broker):
    """Clears RETAIN on what it kept, as Moquette."""

    def _subscribe(self, client: Any, received: Any) -> None:
        packet_id, filters = read_filters(received, client.version, with_options=True)
        client.filters |= set(filters)
        client.acknowledge(SUBACK, packet_id, len(filters))
        for topic, message in list(self._retained.items()):
            if topic in filters:
                client.send(publish_packet(message, client.version, retained=False))


class NoSession(Broker):
    """Forgets who is gone."""

    def _keep_session(self, client: Any) -> None:
        del client


class NoWill(Broker):
    """Loses the wills of those whose session it keeps, as Artemis."""

    def _drop(self, client: Any) -> None:
        if client.wants_session:
            client.will = None
        super()._drop(client)


class Forgets(Broker):
    """Keeps nothing that is retained."""

    def _publish(self, message: Any) -> None:
        super()._publish(message._replace(retain=False))


@pytest.mark.parametrize(
    ("broker", "fails"),
    [
        (NoFlag, {"RETAIN flag": "3.8.3.1", "wildcards": "MQTT-3.3.1-9, 4.7.1.3"}),
        (NoSession, {"session": "MQTT-3.1.2-23, MQTT-4.5.0-1"}),
        (NoWill, {"will, session kept": "MQTT-3.1.2-8"}),
        (
            Forgets,
            {
                "retained": "MQTT-3.3.1-9",
                "wildcards": "MQTT-3.3.1-9, 4.7.1.3",
                "64 KiB": "3.2.2.3.6",
                "retained on disk": "4.1.0",
            },
        ),
    ],
)
def test_what_fails_is_named_with_its_place_in_the_specification(
    broker: type[Broker],
    fails: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edge_agent.operator.broker_check.WAIT_S", 3.0)
    monkeypatch.setattr("edge_agent.operator.broker_check.WAITS_S", (1.0, 3.0))
    with broker() as running:
        home = Home(tmp_path, running.port, capsys)
        home.fleet("keygen", "alice")
        home.fleet("init", str(home.path), "--broker", f"mqtt://127.0.0.1:{running.port}")
        home.tried("doctor", "--broker")
        code, output, _ = home.tried("doctor", "--broker", "--restarted", "--json")
        found = [json.loads(line) for line in output.splitlines()]
        failed = {each["subject"]: each["demand"] for each in found if each["level"] == "fail"}
        assert (code, failed) == (1, fails)


class Late(Broker):
    """Does not show what it keeps to the first who subscribes, as a cluster of NATS under load."""

    def __init__(self) -> None:
        super().__init__()
        self._asked: set[str] = set()

    def _subscribe(self, client: Any, received: Any) -> None:
        packet_id, filters = read_filters(received, client.version, with_options=True)
        if self._asked.issuperset(filters):
            super()._subscribe(client, received)
            return
        self._asked.update(filters)
        client.filters |= set(filters)
        client.acknowledge(SUBACK, packet_id, len(filters))


class Rubbish(Broker):
    """Sends a topic that is no text to who subscribes."""

    def _subscribe(self, client: Any, received: Any) -> None:
        super()._subscribe(client, received)
        client.send(b"\x30\x05\x00\x02\xff\xfe\x00")


@pytest.mark.parametrize("broker", [Late, Rubbish])
def test_what_a_broker_may_do_is_no_failure(
    broker: type[Broker], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with broker() as running:
        home = Home(tmp_path, running.port, capsys)
        home.fleet("keygen", "alice")
        home.fleet("init", str(home.path), "--broker", f"mqtt://127.0.0.1:{running.port}")
        code, output, errors = home.tried("doctor", "--broker", "--json")
        failed = [each for each in output.splitlines() if json.loads(each)["level"] == "fail"]
        assert (code, failed) == (0, []), errors


def test_a_broker_that_is_away_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = Home(tmp_path, 1, capsys)
    home.fleet("keygen", "alice")
    home.fleet("init", str(home.path), "--broker", "mqtt://127.0.0.1:1")
    code, _, errors = home.tried("doctor", "--broker")
    assert (code, "mqtt://127.0.0.1:1: " in errors) == (1, True)
