"""Numbers of connections over reboots."""

from pathlib import Path

import pytest

from edge_agent.mqtt.outbound import CONNECTIONS, MOST, next_epoch

NOW_MS = 1_790_000_000_000


def test_numbers_grow_over_starts_without_a_clock(tmp_path: Path) -> None:
    path = tmp_path / "outbox" / "session"
    numbers = [next_epoch(path, clock_ms=1000 * start) for start in range(5)]
    assert numbers == [CONNECTIONS * (start + 1) for start in range(5)]


def test_the_clock_counts_where_it_is_higher(tmp_path: Path) -> None:
    path = tmp_path / "session"
    assert next_epoch(path, NOW_MS) == NOW_MS
    assert next_epoch(path, 1000) == NOW_MS + CONNECTIONS
    assert next_epoch(path, NOW_MS + 5) == NOW_MS + 2 * CONNECTIONS


@pytest.mark.parametrize("content", [b"", b"x", b"\xff\xfe", b"9" * 65, b"-5", b"%d" % MOST])
def test_a_damaged_file_begins_anew_with_the_clock(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "session"
    path.write_bytes(content)
    assert next_epoch(path, NOW_MS) == NOW_MS


def test_where_nothing_can_be_remembered_the_clock_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    assert next_epoch(tmp_path / "file" / "session", NOW_MS) == NOW_MS
    assert "the clock's" in caplog.text
