import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import TransferError
from edge_agent.fleet.transfer.parts import IDLE_S, PAUSES_S, WINDOW_PARTS, Window
from edge_agent.fleet_protocol.deployment import Blob
from edge_agent.store.digest import Digest

PART, LAST = 100, 40


def blob(parts: int) -> Blob:
    return Blob(Digest.of_hex("0" * 64), parts * PART, "none", parts, PART)


def size(window_parts: int, number: int) -> int:
    return LAST if number == window_parts - 1 else PART


def test_window_asks_for_the_next_few_and_for_one_more_with_each_that_comes() -> None:
    window = Window(blob(20), (), 0.0)
    assert window.ask(0.0) == list(range(WINDOW_PARTS))
    assert window.ask(0.0) == []
    assert window.wants(3, PART)
    window.stored(3, 1.0)
    assert window.ask(1.0) == [WINDOW_PARTS]


def test_window_asks_only_for_what_an_earlier_transfer_left_open() -> None:
    window = Window(blob(6), (0, 2, 5), 0.0)
    assert window.ask(0.0) == [1, 3, 4]


def test_window_with_everything_here_is_done_and_asks_for_nothing() -> None:
    window = Window(blob(2), (0, 1), 0.0)
    assert window.done
    assert window.ask(0.0) == []
    assert window.due == math.inf


@pytest.mark.parametrize(
    ("number", "length"),
    [(0, 0), (0, PART - 1), (0, PART + 1), (2, 0), (2, PART + 1), (1, 10**9)],
)
def test_part_of_a_size_that_it_cannot_have_is_refused(number: int, length: int) -> None:
    window = Window(blob(3), (), 0.0)
    window.ask(0.0)
    with pytest.raises(TransferError, match=f"part {number} of 3 has {length} bytes"):
        window.wants(number, length)


def test_part_that_came_already_or_was_not_asked_for_is_let_go() -> None:
    window = Window(blob(30), (), 0.0)
    window.ask(0.0)
    window.stored(0, 0.0)
    assert not window.wants(0, PART)
    assert not window.wants(29, 7)
    assert not window.wants(4000, 7)
    assert not window.wants(-1, 7)


def test_window_asks_again_after_growing_pauses_and_gives_up() -> None:
    window, now = Window(blob(2), (), 0.0), 0.0
    for pause in PAUSES_S:
        assert window.ask(now) == [0, 1]
        assert window.due == now + IDLE_S
        assert window.tick(now + IDLE_S - 0.1) == frozenset()
        now = window.due
        assert window.tick(now) == {0, 1}, "they are not asked for in the pause"
        assert window.ask(now) == []
        assert window.due == now + pause
        now = window.due
    assert window.ask(now) == [0, 1]
    with pytest.raises(TransferError, match="part 0 of 2 did not come"):
        window.tick(window.due)
    assert window.asked == {0, 1}


def test_part_that_comes_makes_the_pauses_short_again() -> None:
    window = Window(blob(3), (), 0.0)
    window.ask(0.0)
    window.tick(IDLE_S)
    window.ask(100.0)
    window.tick(100.0 + IDLE_S)
    now = window.due
    window.ask(now)
    window.stored(1, now)
    assert window.tick(now + IDLE_S) == {0, 2}
    assert window.due == now + IDLE_S + PAUSES_S[0]


def test_part_that_comes_in_a_pause_is_let_go() -> None:
    window = Window(blob(3), (), 0.0)
    window.ask(0.0)
    window.tick(IDLE_S)
    assert not window.wants(0, PART)


@given(
    parts=st.integers(1, 40),
    here=st.sets(st.integers(0, 39)),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("part"), st.integers(-1, 41)),
            st.tuples(st.just("wait"), st.integers(0, 200)),
        ),
        max_size=200,
    ),
)
def test_whatever_comes_each_part_is_stored_once_and_the_window_is_never_exceeded(
    parts: int, here: set[int], steps: list[tuple[str, int]]
) -> None:
    """Any order, twice, late or never: what was subscribed and what is here always add up."""
    stored = {number for number in here if number < parts}
    window, now, subscribed = Window(blob(parts), stored, 0.0), 0.0, set[int]()
    for kind, value in steps:
        if kind == "wait":
            now += value
            try:
                subscribed -= window.tick(now)
            except TransferError:
                return
        elif window.wants(value, size(parts, value)):
            assert value in subscribed
            assert value not in stored
            stored.add(value)
            window.stored(value, now)
            subscribed.discard(value)
        new = window.ask(now)
        assert not subscribed & set(new)
        assert not stored & set(new)
        subscribed |= set(new)
        assert subscribed == window.asked
        assert len(subscribed) <= WINDOW_PARTS
        assert window.done == (len(stored) == parts)
        assert window.count == len(stored)
        assert window.done or window.due < math.inf


@given(parts=st.integers(1, 200), order=st.randoms(use_true_random=False))
def test_parts_in_any_order_complete_the_blob(parts: int, order: object) -> None:
    window, open_parts = Window(blob(parts), (), 0.0), list[int]()
    while not window.done:
        open_parts += window.ask(0.0)
        order.shuffle(open_parts)  # type: ignore[attr-defined]
        number = open_parts.pop()
        assert window.wants(number, size(parts, number))
        window.stored(number, 0.0)
    assert not open_parts
