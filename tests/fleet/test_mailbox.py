import math

from edge_agent.fleet.documents import LOOK_PAUSE_S, Mailbox


def test_latest_of_each_kind_is_taken_once() -> None:
    box = Mailbox(("a", "b"), 10)
    box.put("a", b"1")
    box.put("a", b"2")
    box.put("b", b"3")
    assert (box.take("a", 0.0), box.take("a", 0.0), box.take("b", 0.0)) == (b"2", b"", b"3")
    assert box.due == math.inf


def test_next_one_waits() -> None:
    box = Mailbox(("a",), 10)
    box.put("a", b"1")
    box.take("a", 5.0)
    box.put("a", b"2")
    assert box.take("a", 5.0) == b""
    assert box.due == 5.0 + LOOK_PAUSE_S
    assert box.take("a", box.due) == b"2"


def test_empty_one_is_no_news_and_takes_nothing_away() -> None:
    box = Mailbox(("a",), 10)
    box.put("a", b"1")
    box.put("a", b"")
    assert box.take("a", 0.0) == b"1"


def test_one_that_is_too_long_takes_one_byte_more_than_allowed() -> None:
    box = Mailbox(("a",), 10)
    box.put("a", bytes(1000))
    assert box.take("a", 0.0) == bytes(11)


def test_one_that_is_put_back_gives_way_to_a_later_one() -> None:
    box = Mailbox(("a",), 10)
    box.put_back("a", b"old", 30.0)
    assert (box.take("a", 29.0), box.due) == (b"", 30.0)
    box.put("a", b"new")
    box.put_back("a", b"old", 30.0)
    assert box.take("a", 30.0) == b"new"
