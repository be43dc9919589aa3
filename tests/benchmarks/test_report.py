from collections import defaultdict
from typing import Any

import pytest

from scripts.benchmarks import board, deadline, report, summary
from scripts.benchmarks.__main__ import join


def test_table_is_markdown_whose_columns_line_up() -> None:
    assert report.table(("host", "us"), [("native", "9"), ("c", "100")]).split("\n") == [
        "| host   |  us |",
        "| :----- | --: |",
        "| native |   9 |",
        "| c      | 100 |",
    ]


def test_memory_table_shows_processes_and_what_each_plugin_adds() -> None:
    figures = {"rss": 40e6, "pss": 20e6, "private_dirty": 18_200_000}
    text = report.part(
        "memory",
        {"events": 10, "contestants": {"agent": figures}, "increments": {"plugin": figures}},
    )
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.split("\n")[-2:]]
    assert rows == [["agent", "40.0", "20.0", "18.2"], ["+ plugin", "40.00", "20.00", "18.20"]]


def test_summary_has_a_row_for_each_way_to_run_a_plugin() -> None:
    speed = {
        "median_us": 200,
        "p99_us": 900,
        "events_per_s": 4000,
        "to_native": {"median": 0.8, "low": 0.7, "high": 0.9},
    }
    small = {"rss": 30e6, "private_dirty": 500_000}
    soon = {"median_ms": 3200}

    def anything(figures: dict[str, Any]) -> dict[str, Any]:
        return defaultdict(lambda: figures)

    found = summary.summary(
        {
            "parts": {
                "latency": {"contestants": anything(speed)},
                "memory": {"contestants": anything(small), "increments": anything(small)},
                "start": {"contestants": anything(soon)},
            }
        }
    )
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in found.split("\n")[2:]]
    assert len(rows) == 6
    assert rows[2] == [
        "edge-agent, C plugin",
        *(
            "200 us",
            "0.80 (0.70-0.90)",
            "900 us",
            "4000",
            "30.0 / 0.5 MB",
            "3.2 s, the first 3.2 s",
        ),
    ]
    assert rows[5] == ["each further Go plugin", "", "", "", "", "+30.0 / +0.5 MB", ""]


def board_figures() -> dict[str, Any]:
    """Of two engines, of which the second takes twice as much."""
    found = {}
    for number, engine in enumerate(("wasmtime", "wasmi"), 1):
        size = {"alone": 30e6 * number, "pss": 20e6 * number, "private_dirty": 10e6 * number}
        found[engine] = {
            **dict.fromkeys(("C", "further C", "Go", "further Go"), size),
            "mappings": {f"/lib/lib{at}.so": {**size, "alone": 1e6 * at} for at in range(12)},
            "update": defaultdict(lambda number=number: 2e6 * number),  # type: ignore[misc]
            "load": {"code_ms": 40 * number, "alone_ms": 70, "guest_ms": 5},
        }
    return {"events": 10_000, "rest_s": 300.0, "engines": found}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_board_has_a_column_for_each_engine_and_the_largest_mappings_first() -> None:
    lines = report.part("board", board_figures()).split("\n")
    assert cells(lines[2]) == ["after 300 s and 10000 events", "wasmtime", "wasmi"]
    assert cells(lines[4])[1:] == ["30.0 / 20.0 / 10.0", "60.0 / 40.0 / 20.0"]
    first = next(at for at, line in enumerate(lines) if "by what is mapped" in line)
    assert cells(lines[first + 2]) == ["lib11.so", "11.00", "20.00", "10.00"]
    assert cells(lines[first + 10])[:2] == ["4 more", "6.00"]


def test_the_readmes_board_table_takes_latency_from_the_right_contestant() -> None:
    speed = {"to_native": {"median": 0.5, "low": 0.4, "high": 0.6}}
    slow = {"to_native": {"median": 3.0, "low": 2.0, "high": 4.0}}
    contestants = {
        "edge-agent, C plugin": speed,
        "edge-agent, Go Wasm plugin": speed,
        "edge-agent, C plugin, on wasmi": slow,
        "edge-agent, Go Wasm plugin, on wasmi": slow,
    }
    engines = ["wasmtime", "wasmi"]
    latency = {"contestants": contestants, "engines": engines}
    found = summary.board({"parts": {"latency": latency, "board": board_figures()}})
    rows = [cells(line) for line in found.split("\n")]
    assert rows[0] == ["after 300 s and 10000 events", *engines]
    assert rows[2] == ["PSS with one C plugin, MQTT over TLS, MB", "30.0", "60.0"]
    assert rows[-1] == ["... Go plugin", "0.50 (0.40-0.60)", "3.00 (2.00-4.00)"]


def test_the_readmes_fleet_table_has_a_row_for_each_size_and_for_what_waits() -> None:
    marks = [{"queued": 10}, {"queued": 1000}]
    queue = {"marks": marks, "more_pss": 1.5e6, "bytes_each": 400.4, "sent_per_s": 5000.0}
    swapped = {"replaced": 25, "unanswered": 0, "twice": 1}
    parts: dict[str, Any] = {
        "fleet": {"fleets": [{"nodes": 100, "seconds": 2.71, "half_s": 2.0}]},
        "outbox": {"queue": queue, "writes": {"away": {"device_per_1000": 415e3}}},
        "swap": {"asked_per_s": 500, "contestants": {"while replaced": swapped}},
    }
    rows = [cells(line) for line in summary.fleet({"parts": parts}).split("\n")[2:]]
    assert rows == [
        ["100 nodes run a new plugin after", "2.7 s, half of them after 2.0 s"],
        ["memory of 1000 waiting results beyond 10", "1.5 MB"],
        ["disk for each", "400 bytes"],
        ["sent after the outage", "5000 a second"],
        ["written for 1,000: away", "415 KB"],
        [
            "25 replacements under 500 creations a second: unanswered / answered twice",
            "0 / 1",
        ],
    ]


def test_aims_of_the_board_are_those_of_each_engine() -> None:
    aims = board.aims(board_figures())
    assert [aim.limit for aim in aims if "one C plugin" in aim.name] == [32.0, 25.0]
    assert [aim.met for aim in aims if "one C plugin" in aim.name] == [True, False]
    go = [aim for aim in aims if "further Go plugin, private dirty" in aim.name]
    assert [aim.limit for aim in go] == [11.0, 40.0]


def test_deadline_table_has_a_row_for_each_engine_and_kind_of_call() -> None:
    kind = {"calls": 33, "median_s": 1.0, "p99_s": 1.01, "longest_s": 1.02, "ends": {"timeout": 33}}
    result = {
        "deadline_s": 1.0,
        "calls": 100,
        "busy": 8,
        "engines": {"wasmtime": {"endless loop": kind}, "wasmer": {"endless loop": kind}},
    }
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in report.part("deadline", result).split("\n")[4:]
    ]
    assert rows == [
        [f"{name}: endless loop", "33", "1000.00", "1010.00", "1020.00", "timeout 33"]
        for name in ("wasmtime", "wasmer")
    ]
    assert [aim.met for aim in deadline.aims(result)] == [True, True]
    kind["longest_s"] = 1.21
    assert [aim.met for aim in deadline.aims(result)] == [False, False]


def run(load: float, *parts: str) -> dict[str, Any]:
    return {
        "quick": False,
        "machine": {"cpu": "one", "load": [load], "load_after": [load + 1]},
        "versions": {"edge-agent": "1"},
        "seconds": 60,
        "parts": {part: {"of": load} for part in parts},
    }


def test_a_run_takes_from_another_the_parts_that_it_lacks() -> None:
    result = run(0.5, "swap", "engine")
    join(result, run(0.25, "swap", "latency"))
    assert list(result["parts"].items()) == [
        ("latency", {"of": 0.25}),
        ("engine", {"of": 0.5}),
        ("swap", {"of": 0.5}),
    ]
    assert (result["machine"]["load"], result["machine"]["load_after"]) == ([0.5], [1.5])
    assert result["seconds"] == 120


@pytest.mark.parametrize(
    ("key", "other"),
    [("quick", True), ("machine", {"cpu": "another"}), ("versions", {"edge-agent": "2"})],
)
def test_runs_of_another_kind_are_not_joined(key: str, other: object) -> None:
    with pytest.raises(ValueError, match="differ"):
        join(run(1.0), {**run(1.0), key: other})
