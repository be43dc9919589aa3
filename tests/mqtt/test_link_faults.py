"""The link when mosquitto dies, is too slow, or says no."""

from functools import partial
from pathlib import Path

import pytest

from edge_agent.mqtt.channels import ANSWER_TRIES
from edge_agent.mqtt.link import REFUSALS_TOLD, Link
from tests.mqtt.harness import (
    FLEET,
    NODE,
    TOPIC,
    config_for,
    describe,
    running,
    wait_for_error,
    wait_until_connected,
)
from tests.mqtt.observer import Observer, deduplicated
from tests.support.mosquitto import Mosquitto, access_list, needs_mosquitto, passwords
from tests.support.rawbroker import RawBroker
from tests.support.wait import wait_until

pytestmark = [pytest.mark.system, needs_mosquitto]


def test_nothing_is_lost_or_reordered_when_the_broker_is_killed(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path) as broker,
        Observer(broker.port) as observer,
        running(config_for(broker.port, batch_records=5)) as link,
    ):
        for item in range(20):
            link.report(item)
        observer.wait_for_numbers(range(1, 21))
        broker.freeze()
        for item in range(20, 40):
            link.report(item)
        # Some of these stand in the frozen broker's socket buffer, in flight.
        wait_until(lambda: link.outbound.publisher.in_flight, "batches are in flight")
        broker.kill()
        for item in range(40, 60):
            link.report(item)
        broker.start()
        observer.wait_for_numbers(range(1, 61))
        kept = deduplicated(observer.records())
        assert [record["item"] for record in kept] == list(range(60))
        assert len({batch["stream"] for batch in observer.batches()}) == 1
        wait_until(lambda: link.status()["queued"] == 0, "all is acknowledged")
        assert link.status()["sent"] == 60
        assert link.status()["dropped"] == 0


def test_what_a_small_queue_drops_is_counted_and_told(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Observer(broker.port) as observer:
        link = Link(config_for(broker.port, queue_records=10), NODE, FLEET, describe, dict, dict)
        for item in range(100):
            link.report(item, important=item == 3)
        assert link.status()["queued"] == 10
        assert link.status()["dropped"] == 90
        link.start()
        observer.wait_for_numbers(range(1, 100))
        link.stop()
        assert observer.records()[:3] == [
            {"item": 3, "seq": 1},
            {"gap": {"from": 1, "to": 90, "count": 90}},
            {"item": 91, "seq": 91},
        ]
        assert len({batch["stream"] for batch in observer.batches()}) == 2
        assert link.status()["sent"] == 10


def test_the_link_waits_for_a_broker_that_comes_later(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path)
    with running(config_for(broker.port)) as link:
        wait_for_error(link, "nothing listens", str(broker.port))
        link.report("early")
        with broker, Observer(broker.port) as observer:
            observer.wait_for_status("online")
            wait_until_connected(link)
            wait_until(lambda: link.status()["sent"] == 1, "the early result is sent")


def test_stop_returns_when_the_broker_is_frozen(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, running(config_for(broker.port)) as link:
        wait_until_connected(link)
        broker.freeze()
        link.report("never acknowledged")
        link.stop()
        assert link.status()["state"] == "stopped"
        assert link.status()["queued"] == 1


def test_an_error_is_forgotten_once_a_connection_is_steady(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.mqtt.link.STEADY_S", 0.0)
    broker = Mosquitto(tmp_path)
    with running(config_for(broker.port)) as link:
        wait_for_error(link, "nothing listens")
        with broker:
            wait_until(lambda: link.status()["last_error"] is None, "the error is forgotten")
            wait_until_connected(link)


def test_a_wrong_password_is_told_and_tried_again(tmp_path: Path) -> None:
    settings = (
        "allow_anonymous false",
        f"password_file {passwords(tmp_path, node='right')}",
    )
    secret = tmp_path / "secret"
    secret.write_text("wrong\n")
    with Mosquitto(tmp_path, *settings) as broker:
        config = config_for(broker.port, username="node", password_file=secret)
        with running(config) as link:
            wait_for_error(link, "refuses the connection", "Not authorized", "password_file")
            assert link.status()["state"] in ("connecting", "waiting")
            secret.write_text("right\n")
            wait_until_connected(link)


def test_a_password_file_that_is_missing_is_named(tmp_path: Path) -> None:
    config = config_for(1883, username=NODE, password_file=tmp_path / "nowhere")
    with running(config) as link:
        wait_for_error(link, "password_file", "nowhere", "No such file")


def test_a_refused_topic_is_told_and_kept_while_others_go_on(tmp_path: Path) -> None:
    rules = ["user observer", "topic read #", "user node", f"topic write {TOPIC}/status"]
    settings = (
        "allow_anonymous false",
        f"password_file {passwords(tmp_path, node='n', observer='o')}",
        f"acl_file {access_list(tmp_path, rules)}",
    )
    secret = tmp_path / "secret"
    secret.write_text("n")
    with (
        Mosquitto(tmp_path, *settings) as broker,
        Observer(broker.port, user=("observer", "o")) as observer,
        running(config_for(broker.port, username="node", password_file=secret)) as link,
    ):
        link.report("refused")
        observer.wait_for_status("online")
        wait_for_error(link, f"{TOPIC}/", "Not authorized", "access list")
        wait_until_connected(link)
        assert link.status()["queued"] == 1
        assert link.status()["sent"] == 0
        assert observer.records() == []


def test_two_agents_with_one_name_are_told_of_each_other(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, running(config_for(broker.port)) as one:
        wait_until_connected(one)
        with running(config_for(broker.port)):
            wait_for_error(one, "another client uses this client_id")


def test_an_answer_for_which_the_broker_hangs_up_is_given_up() -> None:
    # AWS IoT Core ends the connection of who publishes where it may not, and whoever asks chooses
    # where the answer goes.
    with RawBroker(lambda _peer, _messages: None) as broker:
        broker.forbidden.add("answers/forbidden")
        config = config_for(broker.port, reconnect_min_s=0.01, reconnect_max_s=0.05)
        with running(config) as link:
            link.publish("answers/forbidden", b"one")
            link.publish("answers/anna", b"two")
            wait_until(lambda: "answers/anna" in broker.published, "the next answer arrives")
            assert broker.published.count("answers/forbidden") == ANSWER_TRIES
            wait_until_connected(link)


def test_refusals_in_turn_with_acknowledgements_fill_no_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with RawBroker(lambda _peer, _messages: None) as broker:
        broker.refused.add("answers/refused")
        with running(config_for(broker.port)) as link:
            for number in range(60):  # each is the first after one that was taken
                for topic in ("answers/refused", f"answers/{number}"):
                    wait_until(partial(link.publish, topic, b"x"), "there is room")
            wait_until(lambda: "answers/59" in broker.published, "all went out")
            assert broker.published.count("answers/refused") == 60
    assert 0 < sum("refuses" in each.message for each in caplog.records) <= REFUSALS_TOLD
