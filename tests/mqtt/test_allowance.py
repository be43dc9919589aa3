"""The bucket of tokens."""

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.mqtt.allowance import Allowance


def test_a_burst_passes_at_once_and_then_so_many_a_second() -> None:
    allowance = Allowance(burst=3, per_s=2.0)
    for _ in range(3):
        assert allowance.due(10.0) == 10.0
        allowance.spend()
    assert allowance.due(10.0) == 10.5
    assert allowance.due(10.5) == 10.5
    allowance.spend()
    assert allowance.due(10.5) == 11.0


def test_a_rest_fills_the_bucket_and_no_more() -> None:
    allowance = Allowance(burst=2, per_s=1.0)
    assert allowance.due(0.0) == 0.0
    assert allowance.due(1e6) == 1e6
    for _ in range(2):
        allowance.spend()
    assert allowance.due(1e6) == 1e6 + 1.0


@given(st.lists(st.floats(0, 5), max_size=200))
def test_no_more_pass_than_the_burst_and_the_rate(waits: list[float]) -> None:
    allowance, now, passed = Allowance(burst=10, per_s=4.0), 0.0, 0
    for wait in waits:
        now += wait
        if allowance.due(now) <= now:
            allowance.spend()
            passed += 1
    assert passed <= 10 + 4.0 * now + 1e-6
