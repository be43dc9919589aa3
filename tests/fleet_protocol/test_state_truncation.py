"""A state too large for a message loses what can be done without, in a given order."""

from typing import Any

import pytest

from edge_agent.fleet_protocol.packing import pack_json
from edge_agent.fleet_protocol.reported_state import (
    ERROR_CHARS,
    METRICS,
    STATE,
    condensed,
)
from edge_agent.fleet_protocol.topics import CUT_DIGEST_CHARS, MAX_MESSAGE_BYTES
from edge_agent.host.supervisor import MAX_ERROR_CHARS


def entry(number: int, runtime: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": f"a-plugin-with-a-name-{number}",
        "index": f"{number % 100:02}",
        "version": "1.20.3",
        "digest": f"sha256:{number:064x}",
        "status": "backoff",
        "since": 1_700_000_000.123,
        "runtime": runtime,
        "events": 1_000_000,
        "failures": {"trap": 12345, "timeout": 12345, "denied": 1},
        "restarts": 12345,
        "latency_ms": {"p50": 0.123, "p99": 12.345},
        "memory_bytes": 123_456_789,
        "error": f"{number}: " + "e" * (MAX_ERROR_CHARS - 5),
        **changes,
    }


def document(plugins: int, *runtimes: str, **changes: Any) -> dict[str, Any]:
    return {
        "agent": "0.1.0",
        "node": "n" * 63,
        "labels": {"board": "rpi4"},
        "plugins": [
            entry(number, runtime, **changes) for number in range(plugins) for runtime in runtimes
        ],
        "uptime_s": 1,
    }


BOTH = ("/var/run/nri/nri.sock", "/var/run/docker/nri.sock")


def size(document: Any) -> int:
    return len(pack_json(document))


def test_what_fits_is_left_alone() -> None:
    small = document(20, *BOTH)
    assert condensed(small, MAX_MESSAGE_BYTES, STATE) is small


@pytest.mark.parametrize("steps", [STATE, METRICS])
def test_99_failing_plugins_at_two_runtimes_fit(steps: Any) -> None:
    large = document(99, *BOTH)
    assert size(large) > MAX_MESSAGE_BYTES
    short = condensed(large, MAX_MESSAGE_BYTES, steps)
    assert size(short) <= MAX_MESSAGE_BYTES
    assert "plugins_left_out" not in short
    names = {each["name"] for each in short["plugins"]}
    assert len(names) == 99
    assert all(each["status"] == "backoff" for each in short["plugins"])
    assert short["condensed"]
    assert {key: short[key] for key in ("agent", "node", "labels", "uptime_s")} == {
        key: large[key] for key in ("agent", "node", "labels", "uptime_s")
    }


def test_the_state_loses_figures_first_and_says_so() -> None:
    large = document(99, *BOTH)
    short = condensed(large, size(large) - 100, STATE)
    assert short["condensed"] == ["no figures"]
    assert len(short["plugins"]) == 198
    first = short["plugins"][0]
    assert first["error"] == large["plugins"][0]["error"]
    assert not first.keys() & {"latency_ms", "memory_bytes", "restarts"}


def test_metrics_keep_figures_as_long_as_they_can() -> None:
    large = document(99, *BOTH)
    short = condensed(large, MAX_MESSAGE_BYTES, METRICS)
    assert short["plugins"][0]["latency_ms"] == {"p50": 0.123, "p99": 12.345}


def test_each_step_takes_a_little_more() -> None:
    large = document(99, *BOTH)
    seen = []
    for max_bytes in range(size(large), 0, -500):
        short = condensed(large, max_bytes, STATE)
        if short is not large and short["condensed"] not in seen:
            seen.append(short["condensed"])
    assert seen == [[name for name, _ in STATE[: at + 1]] for at in range(len(STATE))]


def test_one_entry_for_all_runtimes_tells_the_worst() -> None:
    large = document(99, BOTH[0], status="running", error="")
    large["plugins"] += [
        entry(number, BOTH[1], status="quarantined", error="bad") for number in range(99)
    ]
    short = condensed(large, 50_000, STATE)
    assert "one entry for all runtimes" in short["condensed"]
    first = short["plugins"][0]
    assert (first["status"], first["error"], first["runtimes"]) == ("quarantined", "bad", 2)
    assert first["events"] == 2_000_000
    assert first["failures"] == {"trap": 24690, "timeout": 24690, "denied": 2}
    assert "runtime" not in first


def test_what_was_withheld_in_monitor_mode_is_summed_and_stays_longest() -> None:
    counts = {"mode": "monitor", "would_adjust": 12_345, "would_reject": 7, "updates_withheld": 1}
    short = condensed(document(99, *BOTH, **counts), 40_000, STATE)
    assert "one entry for all runtimes" in short["condensed"]
    first = short["plugins"][0]
    found = {key: first[key] for key in counts}
    assert found == {
        "mode": "monitor",
        "would_adjust": 24_690,
        "would_reject": 14,
        "updates_withheld": 2,
    }
    assert not counts.keys() & condensed(document(99, *BOTH), 40_000, STATE)["plugins"][0].keys()


def test_cut_texts_keep_their_beginning() -> None:
    merged = condensed(document(99, *BOTH), 40_000, STATE)
    assert merged["condensed"][-1] == "one entry for all runtimes"
    short = condensed(merged, size(merged) - 100, STATE)
    assert short["condensed"][-1] == "no errors"
    shorter = condensed(short, size(short) - 100, STATE)
    assert shorter["condensed"][-1] == "digests cut"
    assert shorter["plugins"][0]["digest"] == f"sha256:{0:064x}"[:CUT_DIGEST_CHARS]
    assert merged["plugins"][0]["error"] == f"0: {'e' * 200}"[:ERROR_CHARS]


def test_what_never_fits_is_left_out_and_counted() -> None:
    short = condensed(document(3000, *BOTH, status="running"), MAX_MESSAGE_BYTES, STATE)
    assert size(short) <= MAX_MESSAGE_BYTES
    assert short["plugins_left_out"] == 3000 - len(short["plugins"])
    assert len(short["plugins"]) > 100


def test_files_that_are_no_plugins_are_entries_too() -> None:
    large = document(99, *BOTH)
    large["plugins"] += [{"name": f"x{at}", "status": "failed", "error": "e"} for at in range(21)]
    short = condensed(large, 20_000, STATE)
    assert size(short) <= 20_000
