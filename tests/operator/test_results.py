"""Results: merged, each once, with their gaps; and kept by the broker while nobody looks."""

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.fleet_protocol.packing import JsonPacking, MsgpackPacking
from edge_agent.operator.inbox import Inbox
from edge_agent.operator.results import Merger, Ranges
from tests.operator.conftest import Home
from tests.operator.peer import Peer
from tests.support.mosquitto import needs_mosquitto

Peers = Callable[..., list[Peer]]
TOPIC = "edge/v1/greenhouse/nodes/board-1/results"


def record(seq: int, **more: Any) -> dict[str, Any]:
    return {"seq": seq, "plugin": "20-guard", "event": "CreateContainer", "outcome": "ok", **more}


def gap(first: int, last: int) -> dict[str, Any]:
    return {"gap": {"from": first, "to": last, "count": last - first + 1}}


def feed(merger: Merger, *records: dict[str, Any], stream: str = "s") -> list[tuple[str, int, int]]:
    packing = MsgpackPacking()
    head = {"version": 1, "node": "board-1", "stream": stream}
    payload = packing.batch(head, [packing.pack(each) for each in records])
    return [(item.kind, item.first, item.last) for item in merger.feed(TOPIC, payload)]


def test_each_record_is_taken_once_whatever_comes_again() -> None:
    merger = Merger()
    assert feed(merger, record(1), record(2)) == [("record", 1, 1), ("record", 2, 2)]
    assert feed(merger, record(2), record(3)) == [("record", 3, 3)]
    assert feed(merger, record(1), stream="another") == [("record", 1, 1)]
    assert merger.duplicates == 1
    assert merger.take_missing() == []


def test_what_a_node_dropped_is_told_once_and_is_not_missing() -> None:
    merger = Merger()
    assert feed(merger, gap(1, 7), record(8)) == [("dropped", 1, 7), ("record", 8, 8)]
    assert feed(merger, gap(1, 7), record(8)) == []
    assert merger.take_missing() == []


def test_a_record_is_believed_before_a_gap() -> None:
    merger = Merger()
    assert feed(merger, record(3)) == [("record", 3, 3)]
    assert feed(merger, gap(1, 5)) == [("dropped", 1, 2), ("dropped", 4, 5)]
    assert feed(merger, record(4)) == [("record", 4, 4)]


def test_what_neither_record_nor_gap_stands_for_is_missing_until_it_comes() -> None:
    merger = Merger()
    feed(merger, record(5), record(9))
    feed(merger, record(7))
    again = Merger.from_json(json.loads(json.dumps(merger.as_json())))
    assert [(item.first, item.last) for item in again.take_missing()] == [(6, 6), (8, 8)]
    assert again.take_missing() == []  # told once
    assert feed(again, record(7), record(8)) == [("record", 8, 8)]


def test_streams_of_the_past_are_forgotten() -> None:
    merger = Merger()
    for start in range(200):
        feed(merger, record(1), stream=str(start))
    assert len(merger.as_json()) == 50
    assert feed(merger, record(1), stream="199") == []


def test_a_stream_that_still_speaks_is_not_of_the_past() -> None:
    merger = Merger()
    feed(merger, record(1), stream="old")
    for start in range(200):
        feed(merger, record(1), stream=str(start))
        feed(merger, record(start + 2), stream="old")
    assert feed(merger, record(1), record(100), stream="old") == []


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"\xc1",
        b"[]",
        b'{"records": 1}',
        b"\x81\xa7records\xdd\xff\xff\xff\xff",
        b"{" * 9999,
    ],
)
def test_rubbish_is_counted(payload: bytes) -> None:
    merger = Merger()
    (item,) = merger.feed(TOPIC, payload)
    assert (item.kind, item.node, merger.unreadable) == ("unreadable", "board-1", 1)
    assert item.as_json()["unreadable"]


def test_no_board_speaks_for_another() -> None:
    payload = json.dumps({"node": "b", "stream": "s", "records": [record(1, node="b", stream="t")]})
    (item,) = Merger().feed(TOPIC, payload.encode())
    assert (item.as_json()["node"], item.as_json()["stream"]) == ("board-1", "s")
    (item,) = Merger().feed(TOPIC.replace("board-1", "board\x1b"), payload.encode())
    assert (item.kind, item.node) == ("unreadable", "")


def test_records_of_a_wrong_form_are_left_out() -> None:
    payload = json.dumps(
        {"stream": 7, "records": [1, {}, {"seq": "1"}, {"seq": True}, {"gap": 3}, {"seq": -1}]}
    )
    assert list(Merger().feed(TOPIC, payload.encode())) == []


def test_both_encodings_are_read_and_shown_as_json() -> None:
    for packing in (MsgpackPacking(), JsonPacking()):
        packed = packing.pack(record(1, reports=[{"payload": b"\x00abc"}]))
        payload = packing.batch({"node": "board-1", "stream": "s"}, [packed])
        (item,) = Merger().feed(TOPIC, payload)
        told = json.loads(json.dumps(item.as_json()))
        assert (told["node"], told["seq"]) == ("board-1", 1)
        assert told["reports"][0]["payload"] == "\x00abc"


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 9)), max_size=30))
def test_ranges_are_a_set(added: list[tuple[int, int]]) -> None:
    ranges, numbers = Ranges(), set[int]()
    for first, length in added:
        ranges.add(first, first + length)
        numbers.update(range(first, first + length + 1))
    assert {number for number in range(80) if number in ranges} == numbers
    absent = {n for first, last in ranges.absent(1, 79) for n in range(first, last + 1)}
    assert absent == set(range(1, 80)) - numbers
    pairs = ranges.ranges()
    assert all(before[1] + 1 < after[0] for before, after in pairwise(pairs))


@pytest.mark.system
@needs_mosquitto
def test_the_broker_keeps_results_while_nobody_looks(home: Home, peers: Peers) -> None:
    (node,) = peers("board-1")
    node.report("s", record(1))  # before anybody ever looked
    assert "from now on the broker keeps results" in home.fleet("results")
    node.report("s", record(2), record(3, outcome="trap", error="unreachable"))
    told = [json.loads(line) for line in home.fleet("results", "--json").splitlines()]
    assert [each["seq"] for each in told] == [2, 3]
    node.report("s", record(3), gap(4, 6), record(9))
    told = [json.loads(line) for line in home.fleet("results", "--json").splitlines()]
    assert [
        each.get("seq") or (each["why"], each["gap"]["from"], each["gap"]["to"]) for each in told
    ] == [
        ("dropped", 4, 6),
        9,
        ("missing", 7, 8),
    ]


@pytest.mark.system
@needs_mosquitto
def test_what_an_interrupted_reader_did_not_finish_comes_again(home: Home, peers: Peers) -> None:
    (node,) = peers("board-1")
    home.fleet("results")
    node.report("s", record(1), record(2))
    with home.opened() as fleet, Inbox(fleet) as inbox:
        assert next(inbox.items()).first == 1  # and the reader dies here
    with home.opened() as fleet, Inbox(fleet) as inbox:
        assert [item.first for item in inbox.items()] == [1, 2]
    with home.opened() as fleet, Inbox(fleet) as inbox:
        assert list(inbox.items()) == []


@pytest.mark.system
@needs_mosquitto
def test_a_forgotten_session_collects_nothing(home: Home, peers: Peers) -> None:
    (node,) = peers("board-1")
    home.fleet("results")
    assert json.loads(home.fleet("results", "--forget", "--json")) == {"kept": False}
    node.report("s", record(1))
    told = home.fleet("results")
    assert "from now on" in told
    assert "20-guard" not in told


@pytest.mark.system
@needs_mosquitto
def test_results_are_shown_as_lines(home: Home, peers: Peers) -> None:
    (node,) = peers("board-1")
    home.fleet("results")
    about = {
        "time": 0,
        "pod": {"namespace": "default", "name": "web", "uid": "u"},
        "container": {"name": "app", "id": "c"},
    }
    node.report(
        "s",
        record(1, **about, outcome="adjusted", adjusted=["env", "linux.resources"]),
        gap(2, 4),
        record(5, **about, outcome="error", error="no \x1b[31m such device"),
    )
    lines = home.fleet("results").splitlines()
    assert lines[0].split("  ", 1)[1] == (
        "board-1  20-guard  CreateContainer  adjusted  default/web/app  env,linux.resources"
    )
    assert lines[1] == "board-1: 3 records (2 to 4) dropped by the node's full queue"
    assert lines[2].endswith("error  default/web/app  no \\x1b[31m such device")


@pytest.mark.system
def test_reports_are_shown_and_results_are_chosen(home: Home, peers: Peers) -> None:
    first, second = peers("board-1", "board-2")
    home.fleet("results")
    head = {"time": 0, "event": "CreateContainer"}
    told = {"kind": "inventory", "content_type": "text/plain", "payload": b"two cameras"}
    first.report("s1", {"seq": 1, "plugin": "20-guard", "outcome": "ok", "reports": [told], **head})
    first.report("s1", {"seq": 3, "plugin": "20-guard", "outcome": "error", **head})
    raw = {**told, "payload": b"\xff\xfe"}
    second.report("s2", {"seq": 1, "plugin": "30-log", "outcome": "ok", "reports": [raw], **head})
    lines = home.fleet("results", "--plugin", "guard", "--outcome", "ok").splitlines()
    assert [line.split("  ")[1:] for line in lines if "guard" in line] == [
        ["board-1", "20-guard", "CreateContainer", "ok", "inventory: two cameras"]
    ]
    assert any("missing, or not here yet" in line for line in lines)  # whose plugin nobody knows
    assert not any("30-log" in line for line in lines)
    second.report("s2", {"seq": 2, "plugin": "30-log", "outcome": "ok", "reports": [raw], **head})
    first.report("s1", {"seq": 4, "plugin": "30-log", "outcome": "ok", **head})
    (line,) = home.fleet("results", "--node", "board-2", "--plugin", "30-log").splitlines()
    assert line.endswith("inventory: //4=")
    assert home.fleet("results") == ""  # what was not shown was read all the same
