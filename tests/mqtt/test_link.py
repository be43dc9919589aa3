"""The link against a real mosquitto, and against the small broker where there is none."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.mqtt.link import Link
from edge_agent.sim.broker import Broker
from tests.mqtt.harness import (
    FLEET,
    NODE,
    TOPIC,
    config_for,
    describe,
    running,
    wait_until_connected,
)
from tests.mqtt.observer import Observer, deduplicated
from tests.support.mosquitto import Mosquitto, needs_mosquitto
from tests.support.wait import wait_until

pytestmark = pytest.mark.system


@pytest.fixture(params=[pytest.param("mosquitto", marks=needs_mosquitto), "small broker"])
def port(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    """The port of a broker."""
    with Mosquitto(tmp_path) if request.param == "mosquitto" else Broker() as broker:
        yield broker.port


@pytest.fixture
def observer(port: int) -> Iterator[Observer]:
    """A subscriber to everything there."""
    with Observer(port) as observer:
        yield observer


def test_a_connection_begins_with_online_state_and_metrics(port: int, observer: Observer) -> None:
    with running(config_for(port)) as link:
        observer.wait_for_status("online")
        wait_until(lambda: observer.documents("state"), "the state arrives")
        wait_until(lambda: observer.documents("metrics"), "the metrics arrive")
        status, state = observer.documents("status")[0], observer.documents("state")[0]
        assert status["session"] == state["session"]
        assert state["plugins"] == []
        assert observer.documents("metrics") == [{"events": 3}]
        assert observer.messages("status")[0].topic == f"{TOPIC}/status"
        assert link.status()["state"] == "connected"
        assert link.status()["protocol"] == "5"
        assert link.status()["broker"] == f"mqtt://127.0.0.1:{port}"


def test_status_and_state_are_retained_for_who_comes_later(port: int) -> None:
    with running(config_for(port)) as link:
        wait_until_connected(link)
        with Observer(port, "early") as early:
            wait_until(lambda: early.documents("state"), "the state arrives")
        with Observer(port, "late") as late:
            wait_until(lambda: late.messages("state"), "the state arrives again")
            late.wait_for_status("online")
            assert late.messages("state")[0].retained
            assert late.messages("status")[0].retained


def test_a_changed_state_is_published(port: int, observer: Observer) -> None:
    plugins: list[str] = []
    with running(config_for(port), state=lambda: {"plugins": plugins}) as link:
        observer.wait_for_status("online")
        plugins.append("validator")
        for _ in range(100):
            link.state_changed()
        wait_until(
            lambda: (
                observer.documents("state")[-1:]
                and observer.documents("state")[-1]["plugins"] == ["validator"]
            ),
            "the new state arrives",
        )


def test_stop_says_offline_and_the_will_stays_away(port: int, observer: Observer) -> None:
    with running(config_for(port)) as link:
        observer.wait_for_status("online")
        link.report("the last word")
    observer.wait_for_status("online", "offline")
    # Sent after that, which must be said also where there is no time for all results.
    observer.wait_for_numbers([1])
    assert [record["item"] for record in observer.records()] == ["the last word"]
    assert link.status()["state"] == "stopped"
    # A second connection's birth comes after whatever the first one's end brought.
    with running(config_for(port)):
        observer.wait_for_status("online", "offline", "online")


def test_a_killed_agent_is_lost_by_its_will(port: int, observer: Observer) -> None:
    with subprocess.Popen([sys.executable, "-m", "tests.mqtt.agent", str(port)]) as agent:
        observer.wait_for_status("online")
        agent.kill()
    observer.wait_for_status("online", "lost")
    online, lost = observer.documents("status")
    assert lost["session"] == online["session"]


def test_each_connection_has_a_higher_session_number(port: int, observer: Observer) -> None:
    for _ in range(2):
        with running(config_for(port)):
            observer.wait_for_status("online")
        observer.wait_for_status("offline")
    first, _, second, _ = (document["session"] for document in observer.documents("status"))
    assert isinstance(first, int)
    assert isinstance(second, int)
    assert first < second


def test_results_arrive_numbered_in_order_in_batches(port: int, observer: Observer) -> None:
    with running(config_for(port, batch_records=10)) as link:
        wait_until_connected(link)
        for item in range(200):
            link.report(item, size=1)
        observer.wait_for_numbers(range(1, 201))
        assert [(record["seq"], record["item"]) for record in observer.records()] == [
            (item + 1, item) for item in range(200)
        ]
        assert len(observer.batches()) >= 20
        assert {batch["node"] for batch in observer.batches()} == {NODE}
        assert len({batch["stream"] for batch in observer.batches()}) == 1
        wait_until(lambda: link.status()["queued"] == 0, "all is acknowledged")
        assert link.status()["sent"] == 200
        assert link.status()["dropped"] == 0


def test_results_reported_before_the_first_connection_arrive(port: int, observer: Observer) -> None:
    link = Link(config_for(port), NODE, FLEET, describe, dict, dict)
    for item in range(5):
        link.report(item)
    link.start()
    observer.wait_for_numbers(range(1, 6))
    link.stop()
    assert [record["item"] for record in deduplicated(observer.records())] == [0, 1, 2, 3, 4]


def test_logs_have_a_stream_of_their_own(port: int, observer: Observer) -> None:
    with running(config_for(port)) as link:
        link.log({"level": "warning", "plugin": "validator", "message": "no"})
        link.report("result")
        observer.wait_for_numbers([1], "logs")
        observer.wait_for_numbers([1])
        assert observer.records("logs") == [
            {"level": "warning", "plugin": "validator", "message": "no", "seq": 1}
        ]
        assert observer.batches("logs")[0]["stream"] != observer.batches()[0]["stream"]


def test_json_encoding_is_json(port: int, observer: Observer) -> None:
    with running(config_for(port, encoding="json")) as link:
        link.report("result")
        wait_until(lambda: observer.documents("results"), "a batch arrives")
        assert observer.documents("results")[0]["records"] == [{"item": "result", "seq": 1}]


def test_a_state_that_cannot_be_made_stops_nothing_else(port: int, observer: Observer) -> None:
    def broken() -> dict[str, object]:
        raise RuntimeError("no state today")

    with running(config_for(port), state=broken) as link:
        link.report("result")
        observer.wait_for_numbers([1])
        assert observer.documents("state") == []


def test_the_next_broker_is_tried_when_one_is_away(port: int, observer: Observer) -> None:
    with Broker() as away:
        pass
    with running(config_for(away.port, port)) as link:
        observer.wait_for_status("online")
        wait_until_connected(link)
        assert link.status()["broker"] == f"mqtt://127.0.0.1:{port}"
