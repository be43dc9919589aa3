"""The loop: what runs when, what no longer does, and what it survives."""

from __future__ import annotations

import gc
import logging
import math
import selectors
import socket
import threading
import time
import weakref
from collections.abc import Iterator

import pytest

from edge_agent.loop import Loop
from tests.support.turning import turn_until


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    pairs = [socket.socketpair() for _ in range(3)]
    yield pairs
    for pair in pairs:
        for each in pair:
            each.close()


Pairs = list[tuple[socket.socket, socket.socket]]


def turn_once(loop: Loop) -> None:
    """One turn that does not wait."""
    loop.call_later(0, lambda: None)
    loop.turn()


# --- timers


def test_timers_run_in_the_order_of_their_times_and_else_as_they_came(loop: Loop) -> None:
    ran: list[str] = []
    for name, seconds in (("late", 0.02), ("soon", 0.0), ("sooner", -1.0), ("as soon", 0.0)):
        loop.call_later(seconds, lambda name=name: ran.append(name))  # type: ignore[misc]
    turn_until(loop, lambda: len(ran) == 4, "all timers")
    assert ran == ["sooner", "soon", "as soon", "late"]


def test_a_cancelled_timer_never_runs_and_keeps_nothing_alive(loop: Loop) -> None:
    class Owner:
        def callback(self) -> None:
            raise AssertionError("it was cancelled")

    owner = Owner()
    timer = loop.call_later(3600.0, owner.callback)
    assert timer.pending
    timer.cancel()
    timer.cancel()
    assert not timer.pending
    gone = weakref.ref(owner)
    del owner
    gc.collect()
    assert gone() is None
    turn_once(loop)


def test_a_turn_waits_no_longer_than_it_is_told(loop: Loop) -> None:
    timer = loop.call_later(1e6, lambda: None)
    loop.turn(time.monotonic() + 0.01)  # else this would wait for ever
    assert timer.pending
    loop.turn(-math.inf)


def test_a_timer_may_cancel_another_that_is_due_in_the_same_turn(loop: Loop) -> None:
    ran: list[str] = []

    def first() -> None:
        ran.append("first")
        second.cancel()

    loop.call_later(0, first)
    second = loop.call_later(0, lambda: ran.append("second"))
    turn_once(loop)
    assert ran == ["first"]


def test_a_timer_is_not_pending_while_it_runs(loop: Loop) -> None:
    """So that a callback may ask for its own repetition."""
    seen: list[bool] = []
    timer = loop.call_later(0, lambda: seen.append(timer.pending))
    turn_once(loop)
    assert seen == [False]


def test_a_timer_that_renews_itself_at_once_does_not_hold_the_loop(loop: Loop) -> None:
    ran: list[int] = []

    def again() -> None:
        ran.append(1)
        loop.call_later(0, again)

    again()
    for _ in range(10):
        loop.turn()
    assert len(ran) <= 1 + 10 * 2  # a coarse clock may let it run twice


# --- files


def test_a_file_is_called_while_it_is_ready_and_watched(loop: Loop, pairs: Pairs) -> None:
    [(here, there), *_] = pairs
    events: list[int] = []
    loop.watch(here, selectors.EVENT_READ, events.append)
    turn_once(loop)
    assert not events
    there.send(b"x")
    turn_once(loop)
    turn_once(loop)
    assert events == [selectors.EVENT_READ] * 2  # by level: it was not read
    loop.watch(here, selectors.EVENT_READ | selectors.EVENT_WRITE, events.append)
    turn_once(loop)
    assert events[-1] == selectors.EVENT_READ | selectors.EVENT_WRITE
    loop.unwatch(here)
    loop.unwatch(here)
    turn_once(loop)
    assert len(events) == 3


def test_a_file_that_was_closed_can_still_be_unwatched(loop: Loop, pairs: Pairs) -> None:
    [(here, _), *_] = pairs
    loop.watch(here, selectors.EVENT_READ, lambda _: None)
    here.close()
    loop.unwatch(here)
    turn_once(loop)


@pytest.mark.parametrize("close", [False, True])
def test_an_unwatched_file_is_not_called_even_in_the_same_turn(
    loop: Loop, pairs: Pairs, close: bool
) -> None:
    """One session may end another, whose bytes came at the same moment."""
    called: list[int] = []

    def first_ends_the_others(at: int) -> None:
        called.append(at)
        for other, (here, _) in enumerate(pairs):
            if other != at:
                loop.unwatch(here)
                if close:
                    here.close()

    for at, (here, there) in enumerate(pairs):
        loop.watch(here, selectors.EVENT_READ, lambda _, at=at: first_ends_the_others(at))  # type: ignore[misc]
        there.send(b"x")
    turn_once(loop)
    assert len(called) == 1


# --- other threads


def test_other_threads_wake_the_loop(loop: Loop) -> None:
    ran: list[threading.Thread] = []

    def hand_over() -> None:
        for _ in range(5000):
            loop.call_soon(lambda: ran.append(threading.current_thread()))

    threads = [threading.Thread(target=hand_over) for _ in range(3)]
    for thread in threads:
        thread.start()
    turn_until(loop, lambda: len(ran) == 15_000, "what three threads handed over")
    assert set(ran) == {threading.current_thread()}
    for thread in threads:
        thread.join()


def test_what_is_handed_over_runs_in_order_and_what_that_adds_a_turn_later(loop: Loop) -> None:
    ran: list[str] = []

    def first() -> None:
        ran.append("first")
        loop.call_soon(lambda: ran.append("third"))

    loop.call_soon(first)
    loop.call_soon(lambda: ran.append("second"))
    turn_once(loop)
    assert ran == ["first", "second"]
    turn_once(loop)
    assert ran == ["first", "second", "third"]


def test_handing_over_after_the_end_is_harmless() -> None:
    with Loop() as loop:
        pass
    loop.call_soon(lambda: None)


def test_a_byte_on_the_wake_descriptor_turns_the_loop(loop: Loop) -> None:
    """As `signal.set_wakeup_fd` writes it."""
    turns = loop.turns
    with socket.socket(fileno=socket.dup(loop.wake_fd)) as waker:
        waker.send(b"\x0f")
    loop.turn()  # would wait for ever
    assert loop.turns == turns + 1


# --- the run


def test_an_exception_is_told_and_the_loop_goes_on(
    loop: Loop, pairs: Pairs, caplog: pytest.LogCaptureFixture
) -> None:
    [(here, there), *_] = pairs

    def fails(*_: int) -> None:
        raise ZeroDivisionError

    there.send(b"x")
    loop.watch(here, selectors.EVENT_READ, fails)
    loop.call_soon(fails)
    loop.call_soon(lambda: loop.unwatch(here))
    loop.call_later(0, fails)
    loop.call_later(0.01, loop.stop)
    with caplog.at_level(logging.ERROR):
        loop.run()
    assert sum("ZeroDivisionError" in str(each.exc_text) for each in caplog.records) >= 3


def test_stop_ends_the_run_after_the_present_turn(loop: Loop) -> None:
    ran: list[str] = []
    loop.call_soon(loop.stop)
    loop.call_soon(lambda: ran.append("the same turn"))
    loop.run()
    assert ran == ["the same turn"]
