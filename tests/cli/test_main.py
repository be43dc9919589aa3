"""The command line as a whole: exit codes, and what a command loads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent import __version__
from edge_agent.__main__ import COMMANDS, main

REPOSITORY = Path(__file__).parents[2]


def edge_agent(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_agent", *words]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_no_command_shows_the_help_and_is_wrong_usage() -> None:
    done = edge_agent()
    assert done.returncode == 2
    assert all(f"    {name} " in done.stderr for name in COMMANDS)


def test_help_shows_every_command() -> None:
    done = edge_agent("--help")
    assert done.returncode == 0
    assert all(f"    {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize(
    "words", [("bogus",), ("config",), ("status", "--bogus"), ("doctor", "-c"), ("-c", "x", "run")]
)
def test_wrong_usage_is_2(words: tuple[str, ...]) -> None:
    done = edge_agent(*words)
    assert done.returncode == 2
    assert "usage: edge-agent" in done.stderr


def test_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out.startswith(f"edge-agent {__version__}, Python 3.")
    assert edge_agent("--version").stdout == f"edge-agent {__version__}\n"


@pytest.mark.parametrize("command", ["run", "status"])
def test_a_missing_configuration_is_a_problem(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "agent.toml"
    assert main([command, "-c", str(file)]) == 1
    assert capsys.readouterr().err == f"{file}: cannot be read: No such file or directory\n"


def test_a_reader_that_leaves_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "edge_agent", "version"]
    done = subprocess.run(
        command, cwd=REPOSITORY, stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_the_parser_of_run_loads_no_other_command() -> None:
    program = (
        "import sys; from edge_agent.__main__ import make_parser;"
        "make_parser(['run']).parse_args(['run']);"
        "print(*sorted(name for name in sys.modules if name.startswith('edge_agent.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [
        "edge_agent.__main__",
        "edge_agent.cli",
        "edge_agent.cli.run",
        "edge_agent.errors",
        "edge_agent.lazy_import",
        "edge_agent.text",
    ]


def test_parsers_load_nothing_heavy() -> None:
    program = (
        "import sys; from edge_agent.__main__ import make_parser; make_parser([]);"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    heavy = {"asyncio", "google", "grpc", "msgpack", "paho", "rich", "ssl", "tomllib", "wasmtime"}
    assert not heavy & set(done.stdout.split())
