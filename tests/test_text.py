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
        ("a\u200bb\u00ad\ufeff", "a\\u200bb\\xad\\ufeff"),
        ("a\U000e0041\U000e007f", "a\\U000e0041\\U000e007f"),  # tags
        ("a\ufe01\U000e0101\u3164", "a\\ufe01\\U000e0101\\u3164"),  # invisible
        ("a\u00a0\u3000b", "a\\xa0\\u3000b"),
        (b"ok \xff\xfe", "ok \\xff\\xfe"),
        ("größe".encode(), "größe"),
    ],
)
def test_what_is_not_safe_is_written_out(text: str | bytes, shown: str) -> None:
    assert printable(text) == shown


def test_what_is_too_long_is_cut_and_said() -> None:
    assert printable("\x1b" * 9, most=9) == "\\x1b" * 9
    assert printable("\x1b" * 9, most=2) == "\\x1b\\x1b... (9 characters)"


@given(st.one_of(st.text(), st.binary()))
def test_anything_becomes_one_line_that_can_be_written(text: str | bytes) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert shown.isprintable()
    shown.encode()
