"""Settings that every test shares."""

import gc
import os
import shutil
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support import tiers

# No test is judged by the clock; a board or a busy build machine takes its time.
settings.register_profile(
    "edge-agent",
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# For what runs a second time on something else: --hypothesis-profile=again
settings.register_profile("again", settings.get_profile("edge-agent"), max_examples=10)
settings.load_profile("edge-agent")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-skips",
        action="store_true",
        help="fail instead of skipping: for machines that have all that the tests need",
    )
    parser.addoption(
        "--emulated",
        action="store_true",
        help="skip what an emulated processor cannot do: what is marked not_emulated(reason)",
    )


# The tests' files lie in memory where there is room: most tests write and sync small files, which
# takes ten times as long on a disk. Which writes were synced is for tests/support/faults.py to say.
MEMORY = Path("/dev/shm")
ROOM_BYTES = 4 << 30  # more than all parts of .ci/run take together


def pytest_configure(config: pytest.Config) -> None:
    wanted = config.option.basetemp or os.environ.get("PYTEST_DEBUG_TEMPROOT")
    if not wanted and MEMORY.is_mount() and os.access(MEMORY, os.W_OK):
        programs_run = not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC
        if programs_run and shutil.disk_usage(MEMORY).free >= ROOM_BYTES:
            os.environ["PYTEST_DEBUG_TEMPROOT"] = str(MEMORY)


# What these folders test is there only with root, containers, other makers' programs or Go.
SYSTEM_FOLDERS = frozenset(("arch", "brokers", "containerd", "fleetbroker", "install", "peers"))


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if SYSTEM_FOLDERS.intersection(item.nodeid.split("/")):
            item.add_marker(pytest.mark.system)
    if config.getoption("emulated"):
        for item in items:
            for mark in item.iter_markers("not_emulated"):
                item.add_marker(pytest.mark.skip(reason=f"emulated: {mark.args[0]}"))


def pytest_collection_finish() -> None:
    """The garbage collector need not look through 8,000 tests each time: they stay to the end."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)  # before the fixtures are made
def pytest_runtest_setup(item: pytest.Item) -> None:
    # A missing mark is an error only where -m relies on it.
    tiers.begin(not item.config.getoption("markexpr") or bool(item.get_closest_marker("system")))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Under the emulator much is skipped: each reason once, and not where it was."""
    if terminalreporter.config.getoption("emulated"):
        skipped = terminalreporter.stats.get("skipped", [])
        reasons = Counter(each.longrepr[2].removeprefix("Skipped: ") for each in skipped)
        for reason, count in reasons.most_common():
            terminalreporter.write_line(f"{count} skipped: {reason}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _forbid_skip(report, item.config)
    # pytest-xdist ends the whole run for a lone surrogate, which a test may well have logged.
    report.sections = [
        (title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections
    ]
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _forbid_skip(report, collector.config)
    return report


def _forbid_skip(report: Any, config: pytest.Config) -> None:
    if report.skipped and not hasattr(report, "wasxfail") and config.getoption("no_skips"):
        where, line, reason = report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{where}:{line}: {reason} (and --no-skips was given)"
