import logging
import math
import os
import random
import threading
from pathlib import Path

import pytest

from edge_agent.fleet.transfer.fetch import (
    PAUSE_MAX_S,
    PAUSE_MIN_S,
    RETRY_S,
    TRIES,
    WRONG_LIMIT,
    WRONG_PAUSE_S,
    Fetch,
    FetchContext,
)
from edge_agent.fleet.transfer.parts import IDLE_S, PAUSES_S, WINDOW_PARTS
from edge_agent.fleet.transfer.web import TransferThread
from edge_agent.store import files
from edge_agent.store.digest import Digest
from tests.support.blobs import Cut, cut, module
from tests.support.shelf import Shelf
from tests.support.smalldisk import small_disk
from tests.support.wait import TIMEOUT_S, wait_until
from tests.support.webserver import Handler, WebServer

IT = cut(module(30_000))
OTHER = cut(module(30_000, seed=1))
WRONG = OTHER.data


class Lab:
    """One fetch with its peers and its clock."""

    def __init__(self, folder: Path) -> None:
        self.shelf = Shelf()
        self.folder = folder
        self.now = 0.0
        self.woken = threading.Event()
        self.thread = TransferThread()
        self.context = FetchContext(self.shelf, topic, self.thread, self.woken.set)

    def start(self, *sources: str, it: Cut = IT) -> Fetch:
        return Fetch(it.blob, sources, self.folder, self.context, self.now)

    def turn(self, fetch: Fetch) -> Path | None:
        """Let happen what can happen without time passing."""
        while True:
            path = fetch.step(self.now)
            if path or not self.shelf.delivered:
                return path
            name, payload = self.shelf.delivered.popleft()
            fetch.take(int(name.rpartition("/")[2]), payload, self.now)

    def wait(self, fetch: Fetch) -> Path | None:
        """As `turn`, once the transfer thread has something to say."""
        assert self.woken.wait(TIMEOUT_S)
        self.woken.clear()
        return self.turn(fetch)

    def until_over(self, fetch: Fetch) -> Path | None:
        """Let everything go on until the blob is here or a pause begins; how long that takes."""
        while True:
            if path := self.turn(fetch):
                return path
            waits = fetch.busy and fetch.source != "mqtt"
            if waits and (path := self.wait(fetch)):
                return path
            if not fetch.busy and fetch.due > self.now + RETRY_S:
                return None
            self.now = max(self.now, fetch.due if not fetch.busy or fetch.source == "mqtt" else 0)


def hang(server: WebServer) -> None:
    """Say nothing until the test is over."""
    server.released.wait()


def topic(digest: Digest, number: int) -> str:
    return f"blobs/{digest.hex}/{number}"


def publish(shelf: Shelf, it: Cut, under: Cut | None = None) -> None:
    for number, part in enumerate(it.parts):
        shelf.retained[topic((under or it).blob.digest, number)] = part


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "incoming")


def test_blob_comes_from_the_broker_within_the_window(lab: Lab) -> None:
    publish(lab.shelf, IT)
    path = lab.turn(lab.start("mqtt"))
    assert path is not None
    assert path.read_bytes() == IT.data
    assert lab.shelf.most <= WINDOW_PARTS
    assert not lab.shelf.subscribed
    assert len(lab.shelf.asked) == IT.blob.parts, "each part was asked for once"


def test_transfer_goes_on_after_a_restart_with_the_parts_that_are_missing(lab: Lab) -> None:
    publish(lab.shelf, IT)
    before = lab.start("mqtt")
    before.step(0.0)
    for _ in range(5):
        name, payload = lab.shelf.delivered.popleft()
        before.take(int(name.rpartition("/")[2]), payload, 0.0)
    again = Lab(lab.folder)
    publish(again.shelf, IT)
    fetch = again.start("mqtt")
    fetch.step(0.0)
    assert fetch.progress == 5 / IT.blob.parts
    path = again.turn(fetch)
    assert path is not None
    assert path.read_bytes() == IT.data
    assert len(again.shelf.asked) == IT.blob.parts - 5


def test_parts_in_another_order_and_twice_make_the_blob(lab: Lab) -> None:
    publish(lab.shelf, IT)
    fetch, order = lab.start("mqtt"), random.Random(0)
    fetch.step(0.0)
    while not (path := fetch.step(0.0)):
        waiting = list(lab.shelf.delivered) * 2
        lab.shelf.delivered.clear()
        order.shuffle(waiting)
        for name, payload in waiting:
            fetch.take(int(name.rpartition("/")[2]), payload, 0.0)
    assert path.read_bytes() == IT.data


def test_broker_that_comes_back_late_is_asked_again(lab: Lab) -> None:
    publish(lab.shelf, IT)
    lab.shelf.away = True
    fetch = lab.start("mqtt")
    lab.turn(fetch)
    assert fetch.due == IDLE_S
    lab.now = fetch.due
    lab.turn(fetch)
    assert not lab.shelf.subscribed, "or it would never be sent again"
    lab.shelf.away = False
    lab.now = fetch.due
    assert lab.turn(fetch)


def test_parts_that_never_come_lead_to_the_next_source(lab: Lab, server: WebServer) -> None:
    server.files["/a"] = IT.data
    path = lab.until_over(lab.start("mqtt", f"{server.url}/a"))
    assert path is not None
    assert path.read_bytes() == IT.data
    assert lab.now == (len(PAUSES_S) + 1) * IDLE_S + sum(PAUSES_S)
    assert not lab.shelf.subscribed


def test_part_of_a_wrong_size_leads_to_the_next_source_and_the_others_stay(lab: Lab) -> None:
    publish(lab.shelf, IT)
    lab.shelf.retained[topic(IT.blob.digest, 3)] += b"more"
    fetch = lab.start("mqtt")
    assert lab.until_over(fetch) is None
    assert fetch.last_error == "mqtt: part 3 of 30 has 1028 bytes, where parts have 1024"
    assert not lab.shelf.subscribed
    publish(lab.shelf, IT)
    asked = len(lab.shelf.asked)
    lab.now = fetch.due
    assert lab.turn(fetch)
    assert len(lab.shelf.asked) - asked < IT.blob.parts


def test_wrong_blob_is_deleted_told_and_fetched_elsewhere(
    lab: Lab, server: WebServer, caplog: pytest.LogCaptureFixture
) -> None:
    publish(lab.shelf, OTHER, under=IT)
    server.files["/wrong"], server.files["/right"] = WRONG, IT.data
    with caplog.at_level(logging.WARNING):
        fetch = lab.start("mqtt", f"{server.url}/wrong", f"{server.url}/right")
        path = lab.until_over(fetch)
    assert path is not None
    assert path.read_bytes() == IT.data
    assert [entry.name for entry in lab.folder.iterdir()] == [path.name]
    told = [record.message for record in caplog.records]
    assert "mqtt: its parts make" in told[0]
    assert f"{server.url}/wrong: it gave {OTHER.blob.digest}, which is another blob" in told[1]


def test_source_that_always_gives_another_blob_is_left_alone_for_a_day_each_time(
    lab: Lab, server: WebServer
) -> None:
    publish(lab.shelf, OTHER, under=IT)
    server.files["/wrong"] = WRONG
    fetch = lab.start("mqtt", f"{server.url}/wrong")
    while lab.now < WRONG_PAUSE_S:
        assert lab.until_over(fetch) is None
        assert "which is another blob" in fetch.last_error
        fetch.end_pause(lab.now)
        lab.now = max(lab.now, fetch.due)
    assert len(server.requests) == WRONG_LIMIT
    assert "left alone for a day" in fetch.last_error
    for days in (1, 2):
        assert lab.until_over(fetch) is None
        assert len(server.requests) == WRONG_LIMIT + days
        lab.now = fetch.due
    server.files["/wrong"] = IT.data
    assert lab.until_over(fetch)


def test_pauses_between_rounds_grow_to_their_limit(lab: Lab, server: WebServer) -> None:
    fetch = lab.start(f"{server.url}/nothing")
    pauses = []
    for _ in range(14):
        assert lab.until_over(fetch) is None
        pauses.append(fetch.due - lab.now)
        lab.now = fetch.due
    for number, pause in enumerate(pauses):
        longest = min(PAUSE_MAX_S, PAUSE_MIN_S * 2**number)
        assert longest / 2 <= pause <= longest
    assert len(server.requests) == 14


def test_pause_ends_when_the_network_is_back(lab: Lab, server: WebServer) -> None:
    fetch = lab.start(f"{server.url}/a")
    assert lab.until_over(fetch) is None
    lab.now = fetch.due
    assert lab.until_over(fetch) is None
    server.files["/a"] = IT.data
    fetch.end_pause(lab.now)
    assert fetch.due == lab.now + PAUSE_MIN_S, "the shortest pause is kept"
    lab.now = fetch.due
    assert lab.until_over(fetch)


def test_source_that_brings_a_bit_each_time_is_asked_so_often_in_a_round(
    lab: Lab, server: WebServer
) -> None:
    server.answers["/a"] = lambda request: request.serve_some(IT.data, 10)
    server.files["/b"] = IT.data
    fetch = lab.start(f"{server.url}/a", f"{server.url}/b")
    assert lab.until_over(fetch)
    asked = [(path, headers.get("Range")) for path, headers in server.requests]
    assert asked == [
        ("/a", None),
        *[("/a", f"bytes={10 * tries}-") for tries in range(1, TRIES)],
        ("/b", None),
    ]


def test_bytes_of_one_source_are_never_continued_with_those_of_another(
    lab: Lab, server: WebServer
) -> None:
    server.answers["/evil"] = lambda request: request.serve_some(WRONG, 20_000)
    server.files["/good"] = IT.data
    path = lab.until_over(lab.start(f"{server.url}/evil", f"{server.url}/good"))
    assert path is not None
    assert path.read_bytes() == IT.data


def test_transfer_goes_on_over_the_web_after_a_restart(lab: Lab, server: WebServer) -> None:
    server.answers["/a"] = lambda request: request.serve_some(IT.data, 20_000)
    fetch = lab.start(f"{server.url}/a")
    fetch.step(lab.now)
    assert lab.wait(fetch) is None
    fetch.close()
    again = Lab(lab.folder)
    assert again.until_over(again.start(f"{server.url}/a"))
    assert server.requests[-1][1]["Range"] == "bytes=20000-"


def test_server_that_is_too_slow_is_left_for_the_next_source(lab: Lab, server: WebServer) -> None:
    server.answers["/slow"] = lambda _: hang(server)
    server.files["/b"] = IT.data
    fetch = lab.start(f"{server.url}/slow", f"{server.url}/b")
    fetch.step(lab.now)
    wait_until(lambda: server.requests, "the slow server is asked")
    lab.now = fetch.due
    fetch.step(lab.now)
    assert fetch.last_error == f"{server.url}/slow: it is too slow: given up"
    assert lab.until_over(fetch), "the thread was free for it"


def test_closed_fetch_asks_for_nothing_more(lab: Lab) -> None:
    publish(lab.shelf, IT)
    fetch = lab.start("mqtt")
    fetch.step(0.0)
    assert lab.shelf.subscribed
    fetch.close()
    assert not lab.shelf.subscribed
    fetch.take(0, IT.parts[0], 0.0)
    assert list(lab.folder.iterdir()) == []


def test_fetch_without_sources_rests(lab: Lab) -> None:
    fetch = lab.start()
    assert fetch.step(0.0) is None
    assert fetch.due == math.inf


@pytest.mark.system
def test_full_disk_is_told_before_the_first_byte_and_tried_again_later(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8 * 1024 + 48) as folder:
        lab = Lab(folder / "incoming")
        publish(lab.shelf, IT)
        fetch = lab.start("mqtt")
        assert lab.turn(fetch) is None
        assert "the disk is full" in fetch.last_error
        assert not lab.shelf.asked
        assert 0 < fetch.due < math.inf
    lab.now = fetch.due
    assert lab.turn(fetch)


@pytest.mark.system
def test_what_other_sources_left_is_no_room_for_the_next_one(
    tmp_path: Path, server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each may leave nearly all of the blob. The last bytes of a disk are for the rest of the node.
    reserve = 256 * 1024
    monkeypatch.setattr(files, "RESERVED_BYTES", reserve)
    it = cut(module(1 << 20))
    free: list[int] = []

    def break_off(request: Handler) -> None:
        if request.range_start():
            request.send_error(500)
        else:
            request.serve_some(it.data, 700_000)

    with small_disk(tmp_path / "disk", 1024 + 300) as folder:

        def measure(request: Handler) -> None:
            request.serve(it.data)
            disk = os.statvfs(folder)
            free.append(disk.f_bavail * disk.f_frsize)

        server.answers = {"/a": break_off, "/b": break_off, "/c": measure}
        lab = Lab(folder / "incoming")
        fetch = lab.start(*(f"{server.url}/{name}" for name in "abc"), it=it)
        path = lab.until_over(fetch)
        assert path is not None, fetch.last_error
        assert path.read_bytes() == it.data
        disk = os.statvfs(folder)
        assert min(*free, disk.f_bavail * disk.f_frsize) >= reserve


@pytest.mark.system
def test_disk_that_fills_up_on_the_way_stops_the_transfer_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "RESERVED_BYTES", 0)
    with small_disk(tmp_path / "disk", 240) as folder:
        lab = Lab(folder / "incoming")
        publish(lab.shelf, IT)
        fetch = lab.start("mqtt")
        fetch.step(0.0)
        (folder / "other").write_bytes(bytes(180 * 1024))
        assert lab.turn(fetch) is None
        assert "No space left on device" in fetch.last_error
        assert not lab.shelf.subscribed
        (folder / "other").unlink()
        lab.now = fetch.due
        assert lab.turn(fetch)


def test_same_trouble_is_logged_once(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    fetch = lab.start("https://localhost:1/a")
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            assert lab.until_over(fetch) is None
            lab.now = fetch.due
    assert len(caplog.records) == 1


def test_there_is_one_thread_and_none_when_nothing_is_to_do() -> None:
    transfers, threads, gate = TransferThread(), set[int](), threading.Event()

    def job() -> None:
        gate.wait()
        threads.add(threading.get_ident())

    def alive() -> int:
        return sum(thread.name == "transfer" for thread in threading.enumerate())

    wait_until(lambda: not alive(), "other tests' transfers have ended")
    for _ in range(50):
        transfers.run(job)
    assert alive() == 1
    gate.set()
    wait_until(lambda: not alive(), "the thread ends")
    assert len(threads) == 1
