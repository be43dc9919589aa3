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


def test_init_writes_the_example_and_nothing_over_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new" / "agent.toml"
    assert main(["config", "init", "-c", str(file)]) == 0
    assert file.read_text() == EXAMPLE.read_text()
    assert file.stat().st_mode & 0o777 == 0o644
    assert main(["config", "check", "-c", str(file)]) == 0
    file.write_text("mine")
    assert main(["config", "init", "-c", str(file)]) == 1
    assert "is there already" in capsys.readouterr().err
    link = tmp_path / "link.toml"
    link.symlink_to(tmp_path / "nothing")
    assert main(["config", "init", "-c", str(link)]) == 1
    assert (file.read_text(), link.is_symlink()) == ("mine", True)


def test_init_says_why_it_cannot_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["config", "init", "-c", str(tmp_path / "file" / "agent.toml")]) == 1
    assert "cannot make this folder" in capsys.readouterr().err
