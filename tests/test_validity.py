"""What ends, in words for people."""

import pytest

from edge_agent.config.units import Validity, parse_validity

DAY = 86_400
MONTHS_3 = Validity(0, 90 * DAY)


@pytest.mark.parametrize(
    ("now", "told"),
    [
        *((0, ""), (60 * DAY, ""), (60 * DAY + 1, "expires in 30 days")),
        *((88 * DAY, "expires in 2 days"), (88 * DAY + 1, "expires in 48 hours")),
        (90 * DAY - 1, "expires in 0 hours"),
        (90 * DAY, "expired on 1970-04-01T00:00:00Z"),
        (900 * DAY, "expired on 1970-04-01T00:00:00Z"),
    ],
)
def test_the_end_is_told_from_the_last_third_on(now: float, told: str) -> None:
    assert MONTHS_3.ending(now) == told
    assert MONTHS_3.over(now) == told.startswith("expired")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("730d", 730 * DAY), ("12h", 43_200), ("1 d", DAY), ("90s", 90)],
)
def test_days_are_a_unit_where_something_expires(text: str, seconds: float) -> None:
    assert parse_validity(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "0d", "0s", "-1d", "1", "99999999d", "d", "1y", None, 5, "999999999h", "2400000h"],
)
def test_what_is_no_time_is_none(text: object) -> None:
    assert parse_validity(text) is None
