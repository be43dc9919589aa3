"""The fleet part under every interruption: killed, without power, on a disk that fails.

After each a node that is started again, first without a broker, runs the old set or the new one,
never a mixture and never nothing; what it had accepted it has not forgotten; and with the broker
it arrives at the new set.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent import strictjson
from edge_agent.store import catalogue_store
from edge_agent.store.catalogue import Known
from tests.support.blobs import Cut
from tests.support.faults import Counts, survives
from tests.support.fleetnode import KEYS, TOPICS, Board, Operator, plugin, release, trust_set, wasm
from tests.support.mosquitto import Certificates
from tests.support.shelf import Shelf
from tests.support.wait import TIMEOUT_S
from tests.support.webserver import WebServer

A, B, C, D = (wasm(number, 1500) for number in range(1, 5))
OLD = {"10-guard": "1", "20-logger": "1"}
NEW = {"10-guard": "2", "20-logger": "2"}
# Long enough for whatever is tried again, the disk among it.
LATER = 4000.0


def plugins(version: str, guard: Cut, logger: Cut, *sources: str) -> list[dict[str, object]]:
    return [
        plugin("guard", release(version, guard, *sources)),
        plugin("logger", release(version, logger, *sources), index="20"),
    ]


class Story:
    """A broker's content, first with the old deployment and then with the new one."""

    def __init__(self, told: Path) -> None:
        self.shelf = Shelf()
        self.operator = Operator(self.shelf)
        for it in (A, B, C, D):
            self.operator.upload(it)
        self.old = self.operator.deploy(*plugins("1", A, B))
        self._told = told  # written by processes that are killed
        self._here = os.getpid()

    def prepare(self, root: Path) -> None:
        """A node that runs the old set, proven."""
        board = Board(root, self.fresh(TOPICS.deployment, self.old)).start()
        for identity in OLD:
            board.keep(identity)
        assert board.running() == OLD

    def fresh(self, topic: str = "", payload: bytes = b"") -> Shelf:
        """What a new connection finds."""
        shelf = Shelf()
        shelf.retained = dict(self.shelf.retained)
        if topic:
            shelf.retained[topic] = payload
        return shelf

    def act(self, root: Path, allowed: tuple[dict[str, str], ...] = (OLD, NEW)) -> None:
        """A node that finds the new deployment. It tells elsewhere what it has said."""
        board = Board(root, self.fresh())
        if os.getpid() != self._here:
            self._told.write_text("0")
            board.changed = lambda: self._tell(board)
        board.start()
        self.arrive(board)
        for plan in board.plans:
            assert {each.identity: each.version for each in plan.releases} in allowed
        self._told.unlink(missing_ok=True)  # nothing killed this process

    def arrive(self, board: Board) -> None:
        """Go on until the new set runs: time passes once no source that blocks is at work."""
        end = board.now + LATER
        while _second(board) != NEW:
            assert board.now < end, f"the new set does not run: {board.status()}"
            for thread in threading.enumerate():
                if thread.name == "transfer":  # there only while there is something to do
                    thread.join(TIMEOUT_S)

    def _tell(self, board: Board) -> None:
        self._told.write_text(str(board.status()["accepted"]))

    def offline(self, root: Path) -> Board:
        """The node after the fault, without a broker."""
        shelf = self.fresh()
        shelf.away = True
        board = Board(root, shelf)
        board.updater.start()
        return board

    def done(self, root: Path) -> None:
        """The power was lost when all was over."""
        assert self.offline(root).running() == NEW

    def judge(self, root: Path) -> None:
        board = self.offline(root)
        assert board.running() in (OLD, NEW)
        accepted = board.status()["accepted"]
        assert accepted in (1, 2)
        if board.running() == NEW:
            assert accepted == 2
        if self._told.exists():
            assert accepted >= int(self._told.read_text() or 0)
            self._told.unlink()
        for each in board.plans[-1].releases:
            data = {"1": {A.data, B.data}, "2": {C.data, D.data}}[each.version]
            assert each.path.read_bytes() in data
        again = Board(root, self.fresh()).start()
        self.arrive(again)
        assert {each.on_probation for each in again.plans[-1].releases} == {True}
        assert again.layout.check() == []
        assert not again.layout.transfers()
        replayed = Board(root, self.fresh(TOPICS.deployment, self.old)).start()
        assert replayed.status()["refused"]["reason"] == "rollback"
        assert replayed.running() == NEW


def _enough(counts: Counts, **wanted: int) -> bool:
    """Whether the faults really came."""
    return all(counts[kind] >= count for kind, count in wanted.items())


def _second(board: Board) -> dict[str, str]:
    """What runs after another second."""
    board.wait(1)
    return board.running()


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path / "told")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of runs log what they should."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.system
def test_fetching_and_switching_is_all_or_nothing(tmp_path: Path, story: Story) -> None:
    story.operator.deploy(*plugins("2", C, D))
    counts = survives(tmp_path, story.prepare, story.act, story.judge, done=story.done)
    assert _enough(counts, kill=120, power=140, error=100)


def test_rotation_and_the_deployment_of_the_new_keys_are_never_forgotten(
    tmp_path: Path, story: Story
) -> None:
    story.operator.rotate(trust_set(KEYS[1], version=2))
    story.operator.deploy(*plugins("2", A, B))
    counts = survives(tmp_path, story.prepare, story.act, lambda root: _rotated(story, root))
    assert _enough(counts, kill=25, power=20, error=20)


def _rotated(story: Story, root: Path) -> None:
    board = story.offline(root)
    assert board.running() in (OLD, NEW)
    version = board.status()["trust"]["version"]
    assert version == 2 if board.running() == NEW else version in (1, 2)
    again = Board(root, story.fresh()).start()
    story.arrive(again)
    assert again.status()["trust"]["version"] == 2


def test_a_new_epoch_after_numbers_that_were_driven_up_is_never_forgotten(
    tmp_path: Path, story: Story
) -> None:
    """The old number is the highest that there is; what was signed with it may be played again."""
    driven = story.operator.deploy(*plugins("1", A, B), generation=strictjson.MAX_INTEGER)
    story.operator.rotate(trust_set(*KEYS[:2], version=2))
    story.operator.deploy(*plugins("2", A, B), generation=1, epoch=2)

    def prepare(root: Path) -> None:
        story.prepare(root)
        path = root / "store" / "catalogue.json"
        known = Known(strictjson.MAX_INTEGER, "of an agent of 0.1.0")
        catalogue_store.save(path, replace(catalogue_store.load(path), known=known))

    def judge(root: Path) -> None:
        board = story.offline(root)
        assert board.running() in (OLD, NEW)
        status = board.status()
        place = status["epoch"], status["accepted"]
        assert place in ((0, strictjson.MAX_INTEGER), (2, 1))
        if board.running() == NEW:
            assert place == (2, 1)
        again = Board(root, story.fresh()).start()
        story.arrive(again)
        assert (again.status()["epoch"], again.status()["accepted"]) == (2, 1)
        replayed = Board(root, story.fresh(TOPICS.deployment, driven)).start()
        assert replayed.status()["refused"]["reason"] == "rollback"
        assert replayed.running() == NEW

    counts = survives(tmp_path, prepare, story.act, judge)
    assert _enough(counts, kill=25, power=20, error=20)


def _on_probation(story: Story) -> Callable[[Path], None]:
    def prepare(root: Path) -> None:
        story.prepare(root)
        board = Board(root, story.fresh()).start()
        assert board.running() == NEW

    return prepare


def test_going_back_is_all_or_nothing(tmp_path: Path, story: Story) -> None:
    story.operator.deploy(*plugins("2", C, D))
    back = {"10-guard": "1", "20-logger": "2"}

    def act(root: Path) -> None:
        board = Board(root, story.fresh()).start()
        board.reject("10-guard")
        assert board.running() == back, "whether or not the disk takes it"
        board.wait(LATER)

    def judge(root: Path) -> None:
        board = story.offline(root)
        assert board.running() in (NEW, back)
        rejected = C.blob.digest in board.status()["rejected"]
        assert rejected == (board.running() == back)
        if board.running() == NEW:
            board.reject("10-guard")
        assert board.running() == back
        assert Board(root, story.fresh()).start().running() == back

    counts = survives(tmp_path, _on_probation(story), act, judge)
    assert _enough(counts, kill=12, power=10, error=10)


def test_keeping_and_removing_what_is_older_is_all_or_nothing(tmp_path: Path, story: Story) -> None:
    story.operator.deploy(*plugins("2", C, D))

    def act(root: Path) -> None:
        board = Board(root, story.fresh()).start()
        for identity in NEW:
            board.keep(identity)
        board.wait(LATER)

    def judge(root: Path) -> None:
        board = story.offline(root)
        assert board.running() == NEW
        last = board.plans[-1].releases
        on_probation: list[str] = [each.identity for each in last if each.on_probation]
        for identity in on_probation:
            board.reject(identity, "to see whether the one before is there")
        assert board.running() == {**NEW, **dict.fromkeys(on_probation, "1")}
        for each in board.plans[-1].releases:
            assert board.layout.good(each.digest)

    counts = survives(tmp_path, _on_probation(story), act, judge)
    assert _enough(counts, kill=25, power=20, error=20)


def test_repair_of_a_damaged_module_is_all_or_nothing(tmp_path: Path, story: Story) -> None:
    story.operator.deploy(*plugins("2", C, D))

    def prepare(root: Path) -> None:
        _on_probation(story)(root)
        board = Board(root, story.fresh()).start()
        for identity in NEW:
            board.keep(identity)
        path = board.layout.blob(C.blob.digest)
        path.write_bytes(C.data[:-1])

    def judge(root: Path) -> None:
        board = story.offline(root)
        assert board.running() in ({"10-guard": "1", "20-logger": "2"}, NEW)
        for each in board.plans[-1].releases:
            assert board.layout.good(each.digest)
        story.arrive(Board(root, story.fresh()).start())

    def act(root: Path) -> None:
        story.act(root, ({"10-guard": "1", "20-logger": "2"}, NEW))

    counts = survives(tmp_path, prepare, act, judge)
    assert _enough(counts, kill=40, power=50, error=35)


@pytest.mark.system
def test_transfer_by_https_is_all_or_nothing(
    tmp_path: Path, story: Story, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    with WebServer(certificates) as server:
        server.files = {"/guard": C.data, "/logger": D.data}
        story.operator.deploy(
            plugin("guard", release("2", C, f"{server.url}/guard")),
            plugin("logger", release("2", D, f"{server.url}/logger"), index="20"),
        )
        counts = survives(tmp_path, story.prepare, story.act, story.judge, done=story.done)
    assert _enough(counts, kill=85, power=90, error=75)
