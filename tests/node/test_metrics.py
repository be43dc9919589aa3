"""What a node's metrics say, as a broker gets them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mqtt.observer import Observer
from tests.support.agent import Agent, guest
from tests.support.mosquitto import Mosquitto, needs_mosquitto
from tests.support.wait import wait_until

pytestmark = pytest.mark.system

DOCS = Path(__file__).parents[2] / "docs" / "mqtt.md"


@needs_mosquitto
def test_metrics_have_the_queues_counters_and_each_stands_on_the_page(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Observer(broker.port) as observer:
        mqtt = {"url": f"mqtt://127.0.0.1:{broker.port}", "metrics_interval": "1s"}
        plugins = {"10-bench": guest("bench")}
        with Agent(tmp_path / "a", sockets=[tmp_path / "s"], plugins=plugins, mqtt=mqtt):
            wait_until(lambda: observer.documents("metrics"), "metrics")
            metrics = observer.documents("metrics")[-1]
    counters = metrics["mqtt"]
    assert isinstance(counters, dict)
    assert {
        "queued",
        "sent",
        "dropped",
        "disk_bytes",
        "disk_limit",
        "received",
        "streams_cut",
    } <= counters.keys()
    assert counters["disk_limit"] == 16 << 20
    assert all(isinstance(each, int) for each in counters.values())
    page = DOCS.read_text()
    for name in counters:
        assert f"`mqtt.{name}`" in page
