"""`edge-agent plugin bench`: what is counted, and plugins that cannot be measured."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.__main__ import main
from edge_agent.authors.bench import Measured
from tests.support.assembler import FOREVER
from tests.wasm.lab import GUESTS, ROOT
from tests.wasm.plugins import ECHO, NOTHING, plugin

GUARD = ROOT / "plugins" / "resource-guard" / "resource-guard.wasm"
LOGGER = ROOT / "plugins" / "event-logger" / "event-logger.wasm"
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `edge-agent plugin bench ...`: the exit code and all that was printed."""

    def call(*words: object) -> tuple[int, str]:
        code = main(["plugin", "bench", *map(str, words)])
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


def test_the_fuel_is_that_of_plugin_run(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = run(GUARD, "--engine", "all", "--calls", 10, "--json")
    assert code == 0
    measured = json.loads(said)
    assert len(measured) >= 2
    assert main(["plugin", "run", str(GUARD), "--fuel", "--json"]) == 0
    fuel = json.loads(capsys.readouterr().out)["fuel"]["plugin_create_container"]
    for each in measured:
        assert (each["event"], each["calls"], each["fuel"]) == ("CreateContainer", 10, fuel)
        assert 0 < each["median_us"] <= each["p90_us"] <= each["p99_us"] <= each["max_us"]


def test_two_versions_are_shown_beside_each_other(run: Run, tmp_path: Path) -> None:
    short, long = tmp_path / "10-short.wasm", tmp_path / "10-long.wasm"
    short.write_bytes(plugin({"create_container": NOTHING}))
    long.write_bytes(plugin({"create_container": b"\x01" * 1000 + NOTHING}))  # 1000 times nop
    code, said = run(long, "--against", short, "--calls", 15)
    assert code == 0
    lines = said.splitlines()
    assert lines[1].endswith("10-long.wasm")
    assert lines[2].endswith("10-short.wasm")
    long_fuel, short_fuel = (int(line.split()[5]) for line in lines[1:3])
    assert long_fuel == short_fuel + 1000
    assert f"fuel {long_fuel / short_fuel:.2f}" in lines[3]
    assert sum(int(line.split(" us")[1].split()[0]) for line in lines[4:] if " us" in line) == 15


def test_several_events_with_files(run: Run, tmp_path: Path) -> None:
    request = tmp_path / "request.json"
    request.write_text('{"pod": {"name": "other"}}')
    code, said = run(
        LOGGER, "--event", "run_pod_sandbox", "--event", f"create_container={request}", "--json"
    )
    assert code == 0
    assert [each["event"] for each in json.loads(said)] == ["RunPodSandbox", "CreateContainer"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--calls", "0"], "between 1 and"),
        (["--event", "none"], "no such event: none"),
        (["--event", "create_container=none.json"], "none.json: no such file"),
        (["--event", "run_pod_sandbox"], "does not take RunPodSandbox"),
        (["--engine", "none"], "no adapter"),
        (["--against", "none.wasm"], "none.wasm: no such file"),
    ],
)
def test_wrong_words_are_told(words: list[str], told: str, run: Run) -> None:
    code, said = run(GUARD, *words)
    assert code == 1
    assert told in said


def test_a_plugin_that_fails_is_not_measured(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "10-x.wasm"
    path.write_bytes(plugin({"create_container": FOREVER + ECHO}))
    path.with_suffix(".toml").write_text('[limits]\ndeadline = "50ms"\n')
    code, said = run(path)
    assert code == 1
    assert "timeout" in said
    assert "nothing is measured" in said
    path.write_bytes((GUESTS / "hostile.wasm").read_bytes())
    path.with_suffix(".conf").write_text("configure:trap")
    code, said = run(path)
    assert code == 1
    assert "Configure: trap" in said
    path.with_suffix(".conf").write_text("configure:error")
    code, said = run(path)
    assert (code, "nothing is measured" in said) == (1, True), said


def test_an_error_reply_is_a_reply(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "10-x.wasm"
    path.write_bytes((GUESTS / "hostile.wasm").read_bytes())
    path.with_suffix(".conf").write_text("create_container:error")
    code, said = run(path, "--calls", 5, "--json")
    assert (code, json.loads(said)[0]["calls"]) == (0, 5)


def test_parts_and_histogram_of_known_times() -> None:
    times = tuple(sorted([500] * 50 + [3000] * 49 + [70_000]))
    measured = Measured("x", "wasmi", "CreateContainer", times, 1, 1)
    assert [measured.at(part) for part in (0, 0.5, 0.98, 0.99, 1)] == [
        *(500, 3000, 3000, 70_000),
        70_000,
    ]
    counts = [int(line.split("us")[1].split()[0]) for line in measured.histogram()]
    assert counts == [50, 49, 0, 0, 0, 0, 1]
