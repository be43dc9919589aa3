"""The token bucket, and the wait between attempts."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.loop import Loop
from edge_agent.pacing import Backoff, TokenBucket, backoff_s


def test_a_burst_passes_at_once_and_then_so_many_a_second() -> None:
    bucket = TokenBucket(burst=3, per_s=2.0)
    for _ in range(3):
        assert bucket.due(10.0) == 10.0
        bucket.spend()
    assert bucket.due(10.0) == 10.5
    assert bucket.due(10.5) == 10.5
    bucket.spend()
    assert bucket.due(10.5) == 11.0


def test_a_rest_fills_the_bucket_and_no_more() -> None:
    bucket = TokenBucket(burst=2, per_s=1.0)
    assert bucket.due(0.0) == 0.0
    assert bucket.due(1e6) == 1e6
    for _ in range(2):
        bucket.spend()
    assert bucket.due(1e6) == 1e6 + 1.0


@given(st.lists(st.floats(0, 5), max_size=200))
def test_no_more_pass_than_the_burst_and_the_rate(waits: list[float]) -> None:
    bucket, now, passed = TokenBucket(burst=10, per_s=4.0), 0.0, 0
    for wait in waits:
        now += wait
        if bucket.due(now) <= now:
            bucket.spend()
            passed += 1
    assert passed <= 10 + 4.0 * now + 1e-6


@pytest.mark.parametrize(("failures", "full"), [(1, 1), (2, 2), (3, 4), (7, 60), (10_000, 60)])
def test_backoff_doubles_up_to_its_bound_with_jitter(failures: int, full: float) -> None:
    waits = [backoff_s(failures, 1, 60) for _ in range(200)]
    assert full / 2 <= min(waits) < max(waits) <= full


def test_a_token_is_taken_where_there_is_one() -> None:
    bucket = TokenBucket(burst=2, per_s=0.5)
    assert [bucket.take(7.0) for _ in range(3)] == [True, True, False]
    assert not bucket.take(8.9)
    assert bucket.take(9.0)


def test_one_attempt_is_planned_at_a_time_and_none_once_cancelled() -> None:
    with Loop() as loop:
        attempts: list[str] = []
        backoff = Backoff(loop, lambda: attempts.append("made"))
        for _ in range(10):
            backoff.again()
        backoff.reset()
        backoff.again()
        assert backoff.waiting
        while backoff.waiting:
            loop.turn()
        assert attempts == ["made"]
        backoff.again()
        backoff.cancel()
        assert not backoff.waiting


def test_attempts_come_later_and_later_and_a_reset_begins_anew() -> None:
    with Loop() as loop:
        ended: list[int] = []
        many, fresh = (Backoff(loop, partial(ended.append, each)) for each in (1, 2))
        for _ in range(20):
            many.again()  # half a minute at least
        fresh.again()
        loop.turn()
        while not ended:
            loop.turn()
        assert ended == [2]
        many.reset()
        many.again()
        while len(ended) == 1:
            loop.turn()
        assert ended == [2, 1]
