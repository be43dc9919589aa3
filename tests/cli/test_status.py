"""`edge-agent status`: the table, and asking a real control socket."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.__main__ import main
from edge_agent.cli.status import duration, render, size, table
from edge_agent.control import ControlServer
from edge_agent.loop import Loop

NOW = 1_800_000_000.0
ANSWER: dict[str, object] = {
    "agent": "0.1.0",
    "node": "greenhouse-7",
    "uptime_s": 93_600.5,
    "engine": {"name": "wasmtime", "version": "50.0.1", "why": "wasmtime 50.0.1, as set"},
    "runtimes": [
        {
            "socket": "/var/run/nri/nri.sock",
            "state": "connected",
            "name": "containerd",
            "version": "2.1.9",
            "nri_version": "0.8",
        },
        {"socket": "/d.sock", "state": "waiting", "reason": "no socket there"},
    ],
    "plugins": [
        {
            "name": "guard",
            "index": "10",
            "version": "1.2",
            "digest": "sha256:0123456789abcdef",
            "runtime": "/var/run/nri/nri.sock",
            "status": "running",
            "since": NOW - 300,
            "events": 120,
            "failures": {"timeout": 1, "trap": 2},
            "latency_ms": {"p50": 0.214, "p99": 1},
            "memory_bytes": 600_000,
        },
        {"name": "20-odd", "status": "failed", "error": "20-odd.wasm: truncated"},
    ],
    "mqtt": {
        "state": "connected",
        "broker": "mqtt://b:1883",
        "queued": 3,
        "sent": 9,
        "dropped": 0,
        "last_error": None,
        "disk_bytes": 1_500_000,
        "disk_limit": 16 << 20,
        "disk_trouble": None,
    },
    "memory": {"rss": 40_000_000, "pss": 31_000_000},
}


def test_the_whole_answer_is_shown() -> None:
    assert [line.split() for line in render(ANSWER, NOW).splitlines()] == [
        line.split()
        for line in """\
edge-agent 0.1.0 on greenhouse-7, up 1 d 2 h
engine wasmtime 50.0.1, as set
memory 29.6 MiB proportional (PSS), 38.1 MiB resident (RSS)

RUNTIME SOCKET         STATE                      RUNTIME           NRI
/var/run/nri/nri.sock  connected                  containerd 2.1.9  0.8
/d.sock                waiting (no socket there)  -                 -

PLUGIN VERSION AT STATUS FOR EVENTS FAILURES P50 P99 MEMORY DIGEST
10-guard 1.2 /var/run/nri/nri.sock running 5 min 0 s 120 1 timeout, 2 trap 0.21 ms 1.00 ms 586 KiB \
0123456789ab
20-odd - - failed - - none - - - -

20-odd: 20-odd.wasm: truncated

mqtt connected, mqtt://b:1883; 3 queued, 9 sent, 0 dropped
results wait on disk: 1.4 MiB of 16.0 MiB
""".splitlines()
    ]


def test_columns_are_aligned() -> None:
    assert table(("a", "long"), [("wide", "x"), ("", "y")]) == "A     LONG\nwide  x\n      y"


def test_why_results_are_not_on_disk_is_shown() -> None:
    mqtt = {"state": "connected", "disk_bytes": 0, "disk_trouble": "/s: the disk is full"}
    assert render({"mqtt": mqtt}, NOW).endswith(
        "\nresults wait in memory only: /s: the disk is full"
    )


def test_results_that_a_killed_agent_may_have_lost_are_shown() -> None:
    mqtt = {"state": "connected", "streams_cut": 1}
    assert "the agent before this one was cut short" in render({"mqtt": mqtt}, NOW)
    assert "cut short" not in render({"mqtt": {**mqtt, "streams_cut": 0}}, NOW)


def test_why_the_broker_is_away_is_shown() -> None:
    mqtt = {"state": "waiting", "broker": None, "last_error": "connection refused"}
    assert render({"mqtt": mqtt}, NOW).endswith(
        "mqtt waiting, -; - queued, - sent, - dropped; connection refused"
    )


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"plugins": 3, "runtimes": [1, None], "engine": [], "memory": "x", "mqtt": 1},
        {"plugins": [{}], "runtimes": [{}], "uptime_s": "long", "memory": {"rss": None}},
        {"plugins": [{"since": "2026-11-23T18:00:00Z", "failures": [], "latency_ms": 1}]},
        {"uptime_s": float("nan")},
        {"uptime_s": -1},
    ],
)
def test_what_is_absent_or_odd_is_shown_as_a_dash(answer: dict[str, object]) -> None:
    assert render(answer, NOW).startswith("edge-agent - on -, up -\n")


def test_what_a_plugin_is_called_cannot_drive_the_terminal() -> None:
    shown = render({"plugins": [{"name": "\x1b[2J\n", "failures": {"\x1b": 1}}]}, NOW)
    assert "\x1b" not in shown
    assert len(shown.splitlines()) == 8


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min 0 s"), (3600, "1 h 0 min"), (90_000, "1 d 1 h")],
)
def test_durations_have_two_units(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_sizes_have_the_unit_that_fits() -> None:
    assert [size(1024), size(5 << 20), size("x")] == ["1 KiB", "5.0 MiB", "-"]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Path]:
    """The configuration of an agent that answers on its control socket."""
    config = tmp_path / "agent.toml"
    config.write_text('control_socket = "control.sock"\n')
    loop = Loop()
    server = ControlServer(loop, tmp_path / "control.sock", {"status": lambda _: ANSWER})
    server.open()
    thread = threading.Thread(target=loop.run)
    thread.start()
    yield config
    loop.call_soon(server.close)
    loop.call_soon(loop.stop)
    thread.join(120)
    loop.close()


def test_the_running_agent_is_asked(running: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "-c", str(running)]) == 0
    assert "edge-agent 0.1.0 on greenhouse-7" in capsys.readouterr().out


def test_json_is_the_answer_itself(running: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--json", "-c", str(running)]) == 0
    assert json.loads(capsys.readouterr().out) == ANSWER


def test_no_running_agent_is_a_problem_with_advice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "agent.toml"
    config.write_text('control_socket = "control.sock"\n')
    assert main(["status", "-c", str(config)]) == 1
    assert capsys.readouterr().err == (
        f"no agent listens on {tmp_path}/control.sock; start it (`edge-agent run`), or name the"
        " configuration that it runs with (-c)\n"
    )


def test_what_the_fleet_deploys_is_told() -> None:
    assert "generation" not in render(ANSWER, NOW)
    told: dict[str, object] = {
        "generation": 3,
        "pending": 4,
        "fetching": [{"digest": "sha256:" + "b" * 64, "progress": 0.25, "trouble": "no answer"}],
        "refused": {"text": "it is older"},
        "trust": {"refused": None},
        "rejected": {"sha256:" + "c" * 64: "it\x1bloops"},
        "trouble": "the disk is full",
    }
    text = render({**ANSWER, "updates": told}, NOW)
    for line in (
        "runs generation 3 of the fleet; fetches generation 4",
        "  bbbbbbbbbbbb 25 % (no answer)",
        "refuses the broker's deployment: it is older",
        "rejects cccccccccccc: it\\x1bloops",
        "updates: the disk is full",
    ):
        assert line in text.splitlines()
    assert "nothing is deployed" in render({**ANSWER, "updates": {"generation": 0}}, NOW)


def test_what_a_runtime_drops_is_shown() -> None:
    plugin = {"index": "10", "name": "guard", "not_carried": ["linux.resources.pids", "args\x1b"]}
    said = (
        "10-guard: the runtime does not carry linux.resources.pids, args\\x1b, which it may touch"
    )
    assert said in render({"plugins": [plugin]}, NOW).splitlines()


def test_a_monitored_plugin_is_told_with_what_it_would_have_done() -> None:
    plugins = ANSWER["plugins"]
    assert isinstance(plugins, list)
    watched = {**plugins[0], "mode": "monitor", "would_adjust": 7, "would_reject": 2}
    text = render({**ANSWER, "plugins": [watched]}, NOW)
    assert "running, monitored" in text
    assert "10-guard: only monitored: would have adjusted 7 and rejected 2" in text
    assert "updates not sent" not in text
    more = {**watched, "updates_withheld": 3}
    assert "rejected 2; updates not sent: 3" in render({**ANSWER, "plugins": [more]}, NOW)
    assert "monitored" not in render(ANSWER, NOW)


def test_a_one_shot_plugin_and_readings_that_there_are_not_are_told() -> None:
    plugins = ANSWER["plugins"]
    assert isinstance(plugins, list)
    plugin = {**plugins[0], "instance": "per-event", "unread": ["io: no PSI\x1b"]}
    text = render({**ANSWER, "plugins": [plugin]}, NOW)
    assert "running, one-shot" in text
    assert "10-guard: [pressure] io: no PSI\\x1b" in text
    assert "one-shot" not in render(ANSWER, NOW)
