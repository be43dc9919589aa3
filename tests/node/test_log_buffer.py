"""The latest lines of the log: what is kept and what is given."""

import logging
from collections.abc import Iterator

import pytest

from edge_agent.logs import PLUGIN_LOGGER, PluginRecord
from edge_agent.node.actions import MAX_BYTES, MAX_LINE_CHARS, MAX_LINES, LogBuffer


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.Logger("edge_agent.part", logging.DEBUG)
    yield logger
    logger.handlers.clear()


@pytest.fixture
def recent(logger: logging.Logger) -> LogBuffer:
    recent = LogBuffer()
    logger.addHandler(recent)
    return recent


def texts(recent: LogBuffer, count: int = 10, **choice: str) -> list[str]:
    return [line.message for line in recent.latest(count, **choice)]  # type: ignore[arg-type]


def test_the_newest_lines_come_oldest_first(logger: logging.Logger, recent: LogBuffer) -> None:
    for number in range(5):
        logger.info("line %d", number)
    assert texts(recent, 3) == ["line 2", "line 3", "line 4"]
    (last,) = recent.latest(1)
    assert (last.level, last.source) == ("info", "part")


def test_a_level_and_a_plugin_narrow_the_choice(logger: logging.Logger, recent: LogBuffer) -> None:
    logger.debug("small talk")
    logger.error("trouble")
    logger.handle(PluginRecord("10-guard", logging.WARNING, "from the guard"))
    assert texts(recent, level="warning") == ["trouble", "from the guard"]
    assert texts(recent, plugin="10-guard") == ["from the guard"]
    assert recent.latest(1)[0].source == "10-guard"
    assert PLUGIN_LOGGER not in recent.latest(1)[0].source


def test_lines_are_safe_to_print_and_cut(logger: logging.Logger, recent: LogBuffer) -> None:
    logger.warning("a\nb\x1b[2J%s", "c" * 5000)
    (line,) = texts(recent)
    assert line.isprintable()
    assert len(line) == MAX_LINE_CHARS


def test_memory_is_bounded_in_lines_and_in_bytes(logger: logging.Logger, recent: LogBuffer) -> None:
    def both(text: str) -> None:
        logger.info(text)
        logger.handle(PluginRecord("10-guard", logging.INFO, text))

    for number in range(MAX_LINES):
        both(f"{number}")
    assert len(recent.latest(10 * MAX_LINES)) == MAX_LINES
    for _ in range(MAX_LINES):
        both("x" * MAX_LINE_CHARS)
    kept = recent.latest(10 * MAX_LINES)
    assert sum(len(line.message) for line in kept) <= MAX_BYTES
    assert len(kept) == 2 * (MAX_BYTES // 2 // MAX_LINE_CHARS)


def test_a_talkative_plugin_displaces_neither_the_agents_lines_nor_warnings(
    logger: logging.Logger, recent: LogBuffer
) -> None:
    logger.info("connected")
    logger.handle(PluginRecord("10-guard", logging.WARNING, "no such device"))
    for number in range(10 * MAX_LINES):
        logger.handle(PluginRecord("20-logger", logging.INFO, f"{number}"))
    logger.error("the disk is full")
    told = texts(recent, 10 * MAX_LINES)
    assert told[:2] == ["connected", "no such device"]
    assert told[-2:] == [f"{10 * MAX_LINES - 1}", "the disk is full"]  # in their order
    assert texts(recent, level="warning") == ["no such device", "the disk is full"]


def test_what_is_given_is_bounded_in_characters(logger: logging.Logger, recent: LogBuffer) -> None:
    for number in range(10):
        logger.info("%d%s", number, "x" * 9)
    assert [line[0] for line in (each.message for each in recent.latest(10, chars=35))] == [
        "7",
        "8",
        "9",
    ]


def test_a_line_that_was_logged_wrongly_harms_nobody(
    logger: logging.Logger, recent: LogBuffer
) -> None:
    logger.warning("%d runtimes", "no number")
    assert "is wrong" in texts(recent)[0]
