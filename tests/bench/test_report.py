from collections import defaultdict
from typing import Any

from tests.bench import report, summary


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
