"""Lines: their form, that nobody can forge them, and that nobody waits for them."""

import fcntl
import json
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edge_agent import logs
from edge_agent.config import LogConfig

log = logging.getLogger("edge_agent.some.room")


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe's two ends, closed afterwards unless the test did."""
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        for fd in (reader, writer):
            try:
                os.close(fd)
            except OSError:
                pass


def lines(config: LogConfig | None = None) -> "Lines":
    return Lines(config or LogConfig(format="json"))


class Lines:
    """Within the context the log goes to a pipe; `read` ends it and gives its lines."""

    def __init__(self, config: LogConfig) -> None:
        self._config = config

    def __enter__(self) -> "Lines":
        self._reader, self._writer = os.pipe()
        self.handler = logs.start(self._config, fd=self._writer)
        return self

    def __exit__(self, *_: object) -> None:
        logs.stop(self.handler)

    def read(self) -> list[str]:
        logs.stop(self.handler)
        os.close(self._writer)
        with os.fdopen(self._reader, encoding="utf-8") as file:
            return file.read().splitlines()


def test_a_json_line_has_time_level_logger_and_message() -> None:
    with lines() as out:
        log.info("started %d", 3)
        (line,) = out.read()
    record = json.loads(line)
    assert record.pop("time").endswith("Z")
    assert record == {"level": "info", "logger": "edge_agent.some.room", "message": "started 3"}


def test_a_human_line_is_short_and_without_colour_off_a_terminal() -> None:
    with lines(LogConfig(format="human")) as out:
        log.warning("slow")
        (line,) = out.read()
    assert line[8:] == " warning some.room: slow"


@pytest.mark.parametrize("form", ["human", "json"])
def test_the_journal_gets_each_line_with_its_level(form: str) -> None:
    reader, writer = os.pipe()
    status = os.fstat(writer)
    journal = f"{status.st_dev}:{status.st_ino}"
    config = LogConfig(format="human" if form == "human" else "json")
    handler = logs.start(config, fd=writer, journal=journal)
    log.info("well")
    log.warning("hm")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.exception("bad")
    logs.stop(handler)
    os.close(writer)
    with os.fdopen(reader) as file:
        found = [line[:3] for line in file]
    assert found[:3] == ["<6>", "<4>", "<3>"]
    assert set(found[3:]) == ({"<3>"} if form == "human" else set())


def test_another_descriptor_than_the_journals_gets_no_level() -> None:
    with pipe() as (reader, writer):
        handler = logs.start(LogConfig(format="json"), fd=writer, journal="1:2")
        log.info("well")
        logs.stop(handler)
        assert os.read(reader, 1) == b"{"


def test_a_terminal_gets_human_lines_in_colour_unless_told_otherwise() -> None:
    for no_color in (False, True):
        try:
            reader, writer = os.openpty()
        except OSError:
            pytest.skip("no pseudo-terminals here (/dev/pts is not mounted)")
        handler = logs.start(LogConfig(), fd=writer, no_color=no_color)
        log.error("hot")
        logs.stop(handler)
        line = os.read(reader, 4096)
        os.close(writer)
        os.close(reader)
        assert b"error   some.room: hot" in line
        assert (b"\x1b[31m" in line) != no_color


@pytest.mark.parametrize("form", ["human", "json"])
def test_a_plugins_line_carries_its_name(form: str) -> None:
    config = LogConfig(format="human" if form == "human" else "json")
    with lines(config) as out:
        logging.getLogger(logs.PLUGIN_LOGGER).info("hello", extra={"plugin": "10-guard"})
        logging.getLogger("edge_agent.plugin.20-other").info("there")
        first, second = out.read()
    if form == "json":
        assert [json.loads(line)["plugin"] for line in (first, second)] == ["10-guard", "20-other"]
    else:
        assert first.endswith("info    10-guard: hello")
        assert second.endswith("info    20-other: there")


def test_below_the_level_nothing_is_written_and_the_level_can_change() -> None:
    with lines(LogConfig(level="warning", format="json")) as out:
        log.info("no")
        logs.set_level(LogConfig(level="debug"))
        log.debug("yes")
        (line,) = out.read()
    assert json.loads(line)["message"] == "yes"


@pytest.mark.parametrize("form", ["human", "json"])
def test_a_plugin_cannot_forge_a_line_or_drive_the_terminal(form: str) -> None:
    hostile = "\x1b[2J\r\n12:00:00 error agent: forged\u2028\u202e\x9b\x00"
    config = LogConfig(format="human" if form == "human" else "json")
    with lines(config) as out:
        logger = logging.getLogger(logs.PLUGIN_LOGGER)
        logger.info("%s", hostile, extra={"plugin": f"10-{hostile}"})
        (line,) = out.read()
    assert line.isprintable()
    if form == "json":
        assert json.loads(line)["message"].startswith("\\x1b[2J\\r\\n12:00:00")


def test_a_lone_surrogate_can_be_written() -> None:
    with lines(LogConfig(format="human")) as out:
        log.info("%s", b"\xff".decode("utf-8", "surrogateescape"))
        (line,) = out.read()
    assert line.endswith("\\udcff")


def test_a_traceback_stays_within_its_record() -> None:
    def fail() -> None:
        raise ValueError("bad\n12:00:00 error agent: forged")

    for form in ("human", "json"):
        with lines(LogConfig(format="human" if form == "human" else "json")) as out:
            try:
                fail()
            except ValueError:
                log.exception("failed")
            written = out.read()
        if form == "json":
            (line,) = written
            assert "ValueError: bad" in json.loads(line)["traceback"]
        else:
            assert all(line.startswith("    ") for line in written[1:])


def test_a_huge_message_is_cut() -> None:
    with lines() as out:
        log.info("x" * 1_000_000)
        (line,) = out.read()
    assert len(line) < logs.MAX_MESSAGE_CHARS + 500
    assert "(1000000 characters)" in line


def test_a_wrong_record_is_reported_and_harms_nothing() -> None:
    with lines() as out:
        wrong = log.makeRecord(log.name, logging.INFO, __file__, 1, "%d", ("no number",), None)
        out.handler.handle(wrong)
        log.info("next")
        first, second = out.read()
    assert "a log record of edge_agent.some.room" in first
    assert "next" in second


def test_a_reader_that_is_stuck_costs_lines_which_are_counted() -> None:
    with pipe() as (reader, writer):
        handler = logs.start(LogConfig(format="json"), fd=writer)
        for number in range(2000):  # far more than pipe and queue hold
            log.info("%06d %s", number, "x" * 1000)
        log.error("still heard")
        assert handler.dropped > 0
        assert handler.queued_bytes <= logs.MAX_QUEUED_BYTES

        written: list[bytes] = []
        drain = threading.Thread(
            target=lambda: written.extend(iter(lambda: os.read(reader, 65536), b""))
        )
        drain.start()
        handler.flush()
        log.info("after")
        logs.stop(handler)
        os.close(writer)
        drain.join()
    messages = [json.loads(line)["message"] for line in b"".join(written).splitlines()]
    assert messages[0].startswith("000000 ")
    assert f"{handler.dropped} log lines were dropped: nobody read them in time" in messages
    assert "still heard" in messages
    assert messages[-1] == "after"
    assert len(messages) == 2000 - handler.dropped + 3


def test_a_reader_that_is_gone_harms_nothing() -> None:
    with pipe() as (reader, writer):
        os.close(reader)
        handler = logs.start(LogConfig(), fd=writer)
        log.info("one")
        handler.flush()
        for _ in range(100):
            log.info("more")
        logs.stop(handler)


def test_a_descriptor_that_does_not_block_still_gets_all() -> None:
    with pipe() as (reader, writer):
        os.set_blocking(writer, False)
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        handler = logs.start(LogConfig(format="json"), fd=writer)
        for _ in range(50):
            log.info("x" * 1000)
        written: list[bytes] = []
        drain = threading.Thread(
            target=lambda: written.extend(iter(lambda: os.read(reader, 4096), b""))
        )
        drain.start()
        logs.stop(handler)
        os.close(writer)
        drain.join()
    assert len(b"".join(written).splitlines()) == 50
    assert handler.dropped == 0


def test_other_handlers_see_the_record_as_it_was_made(caplog: pytest.LogCaptureFixture) -> None:
    with lines() as out:
        log.warning("a\n%s", "b")
        assert [json.loads(line)["message"] for line in out.read()] == ["a\\nb"]
    assert caplog.records[-1].getMessage() == "a\nb"
