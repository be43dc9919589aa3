"""A node through lives that nobody would think of: any order of documents, verdicts and faults."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge_agent.fleet_protocol import deployment
from tests.support.fleetnode import FLEET, TOPICS, Board, Operator, plugin, release, wasm
from tests.support.shelf import Shelf

BLOBS = tuple(wasm(number, 1500) for number in range(4))
DATA = {it.blob.digest: it.data for it in BLOBS}
PLUGINS = {"10-guard": ("guard", "10"), "20-logger": ("logger", "20")}
# More than an hour: every pause is over.
LATER = 5000.0

identities = st.sampled_from(sorted(PLUGINS))
numbers = st.integers(0, len(BLOBS) - 1)
entries = st.dictionaries(
    identities,
    st.tuples(
        st.lists(numbers, min_size=1, max_size=3, unique=True),
        st.sampled_from(["", "a", "b"]),
        st.sampled_from([None, 0, 50, 100]),
    ),
    max_size=2,
)


class Life(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(dir=memory, prefix="edge-agent-"))
        self.shelf = Shelf()
        self.operator = Operator(self.shelf)
        self.accepted = 0
        self.damaged: set[str] = set()  # since the last look at the disk
        self.document: deployment.Deployment | None = None
        self.board: Any = None

    @initialize()
    def begin(self) -> None:
        self.restart()

    def teardown(self) -> None:
        try:
            if self.board is not None:
                self.settle()
        finally:
            shutil.rmtree(self.folder)

    @rule(plugins=entries)
    def deploy(self, plugins: dict[str, tuple[list[int], str, int | None]]) -> None:
        values = []
        for identity, (found, config, percent) in plugins.items():
            name, index = PLUGINS[identity]
            rollout = {} if percent is None else {"rollout": {"percent": percent, "seed": "s"}}
            releases = [
                release(f"{number}", BLOBS[number], **(rollout if at == 0 else {}))
                for at, number in enumerate(found)
            ]
            values.append(plugin(name, *releases, index=index, config=config))
        self.operator.deploy(*values)
        payload = deployment.to_payload(self.operator.document(*values))
        self.document = deployment.parse(payload, fleet=FLEET)
        self.board.turn()

    @rule(number=numbers)
    def upload(self, number: int) -> None:
        self.operator.upload(BLOBS[number])
        self.board.turn()

    @rule(number=numbers, rotten=st.booleans())
    def spoil_at_the_broker(self, number: int, rotten: bool) -> None:
        it = BLOBS[number].blob
        for part in range(it.parts):
            topic = TOPICS.blob_part(it.digest, part)
            if rotten and topic in self.shelf.retained:
                self.shelf.retained[topic] = bytes(len(self.shelf.retained[topic]))
            else:
                self.shelf.retained.pop(topic, None)

    @rule(seconds=st.sampled_from([1.0, 20.0, 100.0, LATER]))
    def wait(self, seconds: float) -> None:
        self.board.wait(seconds)

    @rule()
    def restart(self) -> None:
        self.shelf.subscribed.clear()
        self.shelf.delivered.clear()
        self.damaged.clear()
        self.board = Board(self.folder, self.shelf).start()

    @rule()
    def restart_offline(self) -> None:
        self.shelf.away = True
        self.restart()
        self.shelf.away = False

    @rule()
    def sync(self) -> None:
        self.damaged.clear()
        self.board.updater.sync()
        self.board.turn()

    @rule(identity=identities)
    def keep(self, identity: str) -> None:
        if identity in self.board.running():
            self.board.keep(identity)

    @rule(identity=identities)
    def reject(self, identity: str) -> None:
        if identity in self.board.running():
            self.board.reject(identity)

    @rule(number=numbers)
    def quarantine(self, number: int) -> None:
        self.board.updater.quarantine(BLOBS[number].blob.digest, "died")
        self.board.turn()

    @rule(identity=identities)
    def lift(self, identity: str) -> None:
        self.board.updater.unquarantine(identity)
        self.board.turn()

    @rule(number=numbers)
    def damage(self, number: int) -> None:
        path = self.board.layout.blob(BLOBS[number].blob.digest)
        if path.exists():
            path.write_bytes(b"rotten")
            self.damaged.add(BLOBS[number].blob.digest)

    @rule(size=st.sampled_from([0, 1, 70_000]))
    def rubbish(self, size: int) -> None:
        for topic in (TOPICS.deployment, TOPICS.trust, f"{TOPICS.blobs}/x/0"):
            self.board.receive(topic, bytes(size))
        self.board.turn()

    @precondition(lambda self: self.board is not None)
    @invariant()
    def what_runs_is_whole_and_nothing_is_held_against_it(self) -> None:
        status = self.board.status()
        held = status["rejected"].keys() | status["quarantined"].keys()
        for each in self.board.plans[-1].releases:
            if each.unusable:  # named for the placeholder alone: nothing of it runs
                assert each.digest in held or not each.path.exists()
                continue
            assert each.digest not in held
            if each.digest not in self.damaged:
                assert each.path.read_bytes() == DATA[each.digest]

    @precondition(lambda self: self.board is not None)
    @invariant()
    def no_accepted_generation_is_forgotten(self) -> None:
        accepted = self.board.status()["accepted"]
        assert accepted >= self.accepted
        self.accepted = accepted

    @precondition(lambda self: self.board is not None)
    @invariant()
    def no_more_is_asked_for_than_the_window_holds(self) -> None:
        assert len(self.shelf.subscribed) <= 2 + 8

    def settle(self) -> None:
        """With a good broker and time, it runs what the last document says."""
        for it in BLOBS:
            self.operator.upload(it)
        self.sync()
        self.board.wait(LATER)
        status = self.board.status()
        assert status["accepted"] == self.operator.generation
        assert status["pending"] is None
        assert status["fetching"] == []
        if self.document is None:
            return
        held = status["rejected"].keys() | status["quarantined"].keys()
        wanted = deployment.wanted(self.document, "board", {}, held)
        running = {each.identity: each for each in self.board.plans[-1].releases}
        for identity, chosen in wanted.items():
            assert running[identity].digest == chosen.release.digest
            assert running[identity].config == chosen.release.config
        deployed = {entry.identity for entry in self.document.plugins}
        assert running.keys() <= deployed


@pytest.fixture(autouse=True)
def quiet() -> Any:
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
