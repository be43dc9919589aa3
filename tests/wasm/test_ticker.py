import itertools
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.wasm.engines.wasmtime import TICK_S, Ticker, until_next_tick
from tests.support.wait import wait_until


class Counter:
    """What the ticker moves."""

    def __init__(self) -> None:
        self.ticks = 0

    def __call__(self) -> None:
        self.ticks += 1


def enter(ticker: Ticker, who: int) -> None:
    """Begin a call that may last."""
    now = time.monotonic()
    ticker.enter(who, now, now + 1000)


def more_ticks(counter: Counter, count: int) -> None:
    """Wait for so many."""
    before = counter.ticks
    wait_until(lambda: counter.ticks >= before + count, f"{count} ticks while a call runs")


def quiet(counter: Counter) -> bool:
    """No tick for as long as several would take."""
    before = counter.ticks
    time.sleep(6 * TICK_S)
    return counter.ticks == before


TIMES = st.floats(min_value=0, max_value=1e9)


@given(TIMES, st.lists(TIMES, max_size=5))
def test_a_tick_comes_at_the_next_deadline_and_never_late(now: float, due: list[float]) -> None:
    pause = until_next_tick(now, due)
    assert 0 < pause <= TICK_S
    for each in due:
        if each > now:
            assert pause <= max(each - now, 0.001)


@pytest.mark.parametrize(
    ("due", "pause"),
    [
        ([], TICK_S),
        ([10.01], 0.01),
        ([10.02, 10.01, 11.0], 0.01),
        ([10.0], TICK_S),  # it is over: who is late sees any tick
        ([9.0, 3.0], TICK_S),
        ([9.0, 10.02], 0.02),
        ([12.0], TICK_S),
        ([10.00001], 0.001),
    ],
)
def test_a_tick_comes_at_the_first_deadline_ahead(due: list[float], pause: float) -> None:
    assert until_next_tick(10.0, due) == pytest.approx(pause)


def test_time_stands_still_until_somebody_calls() -> None:
    counter = Counter()
    ticker = Ticker(counter)
    assert quiet(counter)
    assert counter.ticks == 0
    enter(ticker, 1)
    more_ticks(counter, 4)
    ticker.leave(1)
    wait_until(lambda: quiet(counter), "the ticker to rest")


def test_time_goes_on_while_any_call_runs() -> None:
    counter = Counter()
    ticker = Ticker(counter)
    enter(ticker, 1)
    enter(ticker, 2)
    ticker.leave(1)
    assert (ticker.within(1), ticker.within(2)) == (False, True)
    for _ in range(3):
        more_ticks(counter, 5)
    ticker.leave(2)
    ticker.leave(2)
    wait_until(lambda: quiet(counter), "the ticker to rest")


def test_time_starts_again_after_every_rest() -> None:
    counter = Counter()
    ticker = Ticker(counter)
    for turn in range(4):
        enter(ticker, turn)
        more_ticks(counter, 3)
        ticker.leave(turn)
        wait_until(lambda: quiet(counter), "the ticker to rest")


def test_ticks_are_never_closer_together_than_a_tick() -> None:
    times: list[float] = []
    ticker = Ticker(lambda: times.append(time.monotonic()))
    callers = [threading.Thread(target=enter, args=(ticker, who)) for who in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    wait_until(lambda: len(times) > 20, "ticks")
    for who in range(8):
        ticker.leave(who)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert min(gaps) >= TICK_S * 0.9  # two clocks would halve some


@pytest.mark.parametrize("threads", [1, 4])
def test_calls_that_come_and_go_never_leave_one_without_time(threads: int) -> None:
    counter = Counter()
    ticker = Ticker(counter)
    for turn in range(3):
        callers = [
            threading.Thread(target=_short_calls, args=(ticker, 100 * turn + who))
            for who in range(threads)
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        enter(ticker, 9999)
        more_ticks(counter, 1)
        ticker.leave(9999)
        time.sleep(0.3)  # around the moment at which the ticker goes to rest


def _short_calls(ticker: Ticker, who: int) -> None:
    for _ in range(2000):
        enter(ticker, who)
        ticker.leave(who)
