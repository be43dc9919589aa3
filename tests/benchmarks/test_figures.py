from scripts.benchmarks.figures import Aim, latency, p99_ratio, percentile, ratio


def test_latency_is_of_all_rounds_together() -> None:
    found = latency([[1000, 2000], [3000, 4000, 90_000]])
    assert (found.median_us, found.max_us, found.samples) == (3.0, 90.0, 5)
    assert found.events_per_s == 5 / 100e-6


def test_percentile_is_a_measured_value() -> None:
    assert percentile(list(range(1, 101)), 99) == 100
    assert percentile([7.0], 99) == 7.0


def test_ratio_compares_within_rounds_so_that_a_slow_round_does_not_count() -> None:
    found = ratio([[10, 10], [100, 100], [20, 20]], [[20, 20], [200, 200], [20, 20]])
    assert (found.median, found.low, found.high) == (0.5, 0.5, 1.0)
    assert str(found) == "0.50 (0.50-1.00)"
    assert p99_ratio([[1, 30]], [[1, 10]]).median == 3.0


def test_aim_says_by_how_much_it_is_missed() -> None:
    assert str(Aim("start", 600, 500, "ms")) == "start: 600.00 ms, aim 500 ms: MISSED by 20 %"
    assert str(Aim("ratio", 0.9, 1.0, "")) == "ratio: 0.90, aim 1: met, 10 % below"
    assert Aim("ratio", 1.0, 1.0, "").met
