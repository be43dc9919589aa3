"""The thread that runs the updater: its inbox, its end, and what waits while it is busy."""

import logging
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from edge_agent.config import AgentConfig, UpdatesConfig
from edge_agent.fleet.plan import Node
from edge_agent.fleet.updater import Updater
from edge_agent.fleet_protocol.topics import DocumentOf, PartOf
from edge_agent.loop import Loop
from edge_agent.node import updates
from edge_agent.node.updates import MAX_ASKED, MAX_PARTS, Updates, Worker
from edge_agent.store.release import PluginId
from tests.support.fleetnode import (
    FLEET,
    NOW,
    ROUTER,
    TOPICS,
    Board,
    Operator,
    plugin,
    release,
    wasm,
)
from tests.support.shelf import Shelf
from tests.support.wait import TIMEOUT_S, wait_until

IT = wasm(1, 40_000)


class _Noting(Updater):
    """Notes what the worker hands over."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.messages: list[tuple[DocumentOf | PartOf, bytes]] = []

    def received(self, what: DocumentOf | PartOf, payload: bytes) -> None:
        self.messages.append((what, payload))
        super().received(what, payload)


class Place:
    """A worker with the updater of a board."""

    def __init__(self, folder: Path) -> None:
        self.shelf = Shelf()
        self.operator = Operator(self.shelf)
        self.board = Board(folder, self.shelf)
        self.made_on: list[str] = []
        self.worker = Worker(self._make)
        self.updater: _Noting | None = None

    def _make(self, wake: Any) -> Updater:
        self.made_on.append(threading.current_thread().name)
        self.updater = _Noting(
            node=Node("board", FLEET, {}),
            config=UpdatesConfig(trust_dir=self.board.folder / "trust"),
            layout=self.board.layout,
            catalogue_path=self.board.folder / "store" / "catalogue.json",
            topics=TOPICS,
            broker=self.shelf,
            activate=self.board.plans.append,
            changed=lambda: None,
            wake=wake,
            clock=lambda: NOW,
            monotonic=time.monotonic,
        )
        return self.updater

    def messages(self) -> list[tuple[DocumentOf | PartOf, bytes]]:
        """What the worker handed to the updater."""
        return list(self.updater.messages) if self.updater is not None else []

    def pump(self) -> None:
        """Hand on what the shelf delivers."""
        while self.shelf.delivered:
            topic, payload = self.shelf.delivered.popleft()
            what = ROUTER.route(topic)
            assert isinstance(what, DocumentOf | PartOf)
            self.worker.received(what, payload)


@pytest.fixture
def place(tmp_path: Path) -> Any:
    place = Place(tmp_path / "board")
    yield place
    place.worker.stop()


def test_deployment_runs_through_the_thread(place: Place) -> None:
    place.operator.upload(IT)
    place.operator.deploy(plugin("guard", release("1", IT)))
    place.worker.start()

    def done() -> bool:
        place.pump()
        # The status follows the plan, on the worker's thread.
        told = place.worker.status().get("generation")
        return (place.board.running(), told) == ({"10-guard": "1"}, 1)

    wait_until(done, "it runs, and is told")
    assert place.made_on == ["fleet"]


def test_call_answers_on_the_thread(place: Place) -> None:
    answers: list[tuple[int, str]] = []
    place.worker.start()
    place.worker.call(
        lambda updater: updater.unquarantine(PluginId("10-guard")),
        lambda count: answers.append((count, threading.current_thread().name)),
    )
    wait_until(lambda: answers, "an answer")
    assert answers == [(0, "fleet")]


def test_inbox_keeps_the_latest_documents_and_as_many_parts_as_were_asked_for(
    place: Place,
) -> None:
    """Nothing is taken out before the thread has been started."""
    for number in range(1000):
        place.worker.received(DocumentOf("deployment"), b"%d" % number)
        place.worker.received(DocumentOf("trust"), b"%d" % number)
        place.worker.received(PartOf(IT.blob.digest, number), bytes(65_536))
    assert place.worker.dropped == 1000 - MAX_PARTS
    place.worker.start()
    wait_until(place.messages, "what has come is handed over")
    documents = [each for each in place.messages() if isinstance(each[0], DocumentOf)]
    assert sorted(documents) == [
        (DocumentOf("deployment"), b"999"),
        (DocumentOf("trust"), b"999"),
    ]
    parts = [what for what, _ in place.messages() if isinstance(what, PartOf)]
    assert parts == [PartOf(IT.blob.digest, number) for number in range(MAX_PARTS)]


def test_error_of_ours_is_logged_and_the_thread_goes_on(
    place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updates, "ERROR_PAUSE_S", 0.01)
    place.worker.start()
    wait_until(place.worker.status, "it has begun")
    with caplog.at_level(logging.ERROR):
        place.worker.call(lambda _: 1 // 0)
        wait_until(lambda: "ZeroDivisionError" in caplog.text, "the error is logged")
    answers: list[int] = []
    place.worker.call(lambda _: 5, answers.append)
    wait_until(lambda: answers == [5], "an answer")


def test_error_in_one_call_costs_none_of_those_that_came_with_it(place: Place) -> None:
    answers: list[int] = []
    place.worker.call(lambda _: 1 // 0)
    place.worker.call(lambda _: 5, answers.append)
    place.worker.start()
    wait_until(lambda: answers == [5], "an answer")


def test_updater_that_cannot_begin_is_tried_again_after_a_rest_and_holds_nobody_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tried: list[int] = []
    attempted = threading.Event()

    def make(_wake: Any) -> Updater:
        tried.append(1)
        raise OSError(5, "Input/output error")

    worker = Worker(make, attempted.set)
    worker.start()
    assert attempted.wait(TIMEOUT_S)
    wait_until(lambda: "Input/output error" in caplog.text, "the error is logged")
    for number in range(100):  # whatever comes meanwhile
        worker.received(DocumentOf("deployment"), b"%d" % number)
        time.sleep(0.001)
    worker.stop()
    assert len(tried) == 1


def test_stop_ends_the_thread_and_leaves_the_sources(place: Place) -> None:
    place.operator.deploy(plugin("guard", release("1", IT)))
    place.worker.start()

    def asks() -> bool:
        place.pump()
        return any("/blobs/" in topic for topic in place.shelf.subscribed)

    wait_until(asks, "it asks for parts")
    place.worker.stop(60)
    assert not any(thread.name == "fleet" for thread in threading.enumerate())
    assert not any("/blobs/" in topic for topic in place.shelf.subscribed)


def test_stop_before_start_is_nothing(place: Place) -> None:
    place.worker.stop()
    assert place.worker.status() == {}


LOADED = """
import sys
import edge_agent.node.updates, edge_agent.fleet.updater
print(*sys.modules)
"""
# With what each would cost; they are loaded when a source or a signature needs them.
HEAVY = {"ssl", "_hashlib", "http", "http.client", "urllib.request", "email", "nacl", "paho"}


def test_nothing_heavy_is_loaded_before_it_is_needed() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, check=True)
    assert not HEAVY & set(done.stdout.decode().split())


def test_what_is_asked_for_again_and_again_waits_once_and_does_not_fill_memory(
    tmp_path: Path,
) -> None:
    config = AgentConfig(
        node="board", state_dir=tmp_path, updates=UpdatesConfig(trust_dir=tmp_path)
    )
    with Loop() as loop:
        # Not started, it is as one whose disk hangs.
        busy = Updates(loop, config, None, lambda *_: None, lambda: None, lambda: None)
        assert all(busy.sync() for _ in range(1000))
        taken = [
            busy.unquarantine(PluginId(f"10-{number}"), lambda _: None) for number in range(1000)
        ]
        assert taken.count(True) == MAX_ASKED - 1  # one place is taken by `sync`
        assert busy.sync()
