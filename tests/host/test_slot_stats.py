"""Counters and latencies of one plugin."""

from edge_agent.host.slot_stats import FRESH, MAX_KINDS, SAMPLES, Counters


def test_before_the_first_event_there_is_no_latency() -> None:
    assert Counters().latency_ms() is None


def test_the_first_events_count_at_once() -> None:
    stats = Counters()
    for number in range(1, 8):
        stats.answered(number * 1_000_000)
        assert stats.latency_ms() == {"p50": (number + 1) // 2, "p99": max(1, number - 1)}


def test_only_the_latest_count() -> None:
    stats = Counters()
    for _ in range(SAMPLES):
        stats.answered(9_000_000)
    assert stats.latency_ms() == {"p50": 9.0, "p99": 9.0}
    for _ in range(SAMPLES):
        stats.answered(1_000_000)
    assert stats.latency_ms() == {"p50": 1.0, "p99": 1.0}
    assert stats.events == 2 * SAMPLES


def test_a_few_newer_events_are_not_worth_sorting_again() -> None:
    stats = Counters()
    for _ in range(SAMPLES):
        stats.answered(9_000_000)
    first = stats.latency_ms()
    for _ in range(int(SAMPLES * FRESH)):
        stats.answered(1_000_000)
        assert stats.latency_ms() is first
    stats.answered(1_000_000)
    assert stats.latency_ms() is not first


def test_kinds_of_failure_are_bounded() -> None:
    stats = Counters()
    for number in range(2 * MAX_KINDS):
        stats.failed(f"kind {number}")
    stats.failed("kind 0")
    assert len(stats.failures) == MAX_KINDS
    assert stats.failures["kind 0"] == 2
