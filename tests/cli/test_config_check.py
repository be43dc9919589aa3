"""`edge-agent config check`."""

from pathlib import Path

import pytest

from edge_agent.__main__ import main

EXAMPLE = Path(__file__).parents[2] / "configs" / "agent.toml"


def test_the_example_is_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "-c", str(EXAMPLE)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{EXAMPLE}: in order\n")
    assert "32MiB and 1000 ms a call" in said
    assert "none, alone" in said


def test_the_meaning_names_node_and_brokers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('node = "n-7"\nfleet = "f"\n[mqtt]\nurl = "mqtts://broker"\n')
    assert main(["config", "check", "-c", str(file)]) == 0
    said = capsys.readouterr().out
    assert "n-7 of the fleet f" in said
    assert "mqtts://broker:8883" in said


def test_every_problem_is_printed_and_the_exit_code_is_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('engin = "auto"\n[log]\nlevel = "loud"\n')
    assert main(["config", "check", "-c", str(file)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"{file}:1: engin: unknown key; did you mean engine?",
        f'{file}:3: log.level: must be one of "debug", "info", "warning", "error", not "loud"',
    ]
