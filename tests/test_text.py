"""Text of others made safe to print."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("größe 温度 🌡", "größe 温度 🌡"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x7f\x9b", "\\x7f\\x9b"),
        ("\u2028\u202e\u2066", "\\u2028\\u202e\\u2066"),
        ("\udcff", "\\udcff"),
        (b"ok \xff\xfe", "ok \\xff\\xfe"),
        ("größe".encode(), "größe"),
    ],
)
def test_what_is_not_safe_is_written_out(text: str | bytes, shown: str) -> None:
    assert printable(text) == shown


@given(st.one_of(st.text(), st.binary()))
def test_anything_becomes_one_line_that_can_be_written(text: str | bytes) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert "\x1b" not in shown
    shown.encode()
