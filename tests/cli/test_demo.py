"""The demonstration: played whole, on screens of any width, and with checks that fail."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.__main__ import main
from edge_agent.cli.demo import SCENES
from edge_agent.sim import board, board_demo, fleet_demo
from edge_agent.wasm.module import inspect

ROOT = Path(__file__).parents[2]
PLUGINS = ROOT / "plugins"

pytest.importorskip("wasmtime", reason="no Wasm engine is installed that runs the plugins here")


@pytest.fixture
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the demonstration makes its temporary folder."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def demo(*words: str) -> list[str]:
    return [sys.executable, "-m", "edge_agent", "demo", *words]


def on_a_terminal(columns: int, *words: str) -> tuple[int, list[str]]:
    """Exit code and screen lines of the demonstration on a terminal so wide."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "LINES": "50", "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        demo("--seconds", "0", *words),
        cwd=ROOT,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = b""
    with os.fdopen(ours, "rb", buffering=0) as screen:
        while True:
            try:
                chunk = screen.read(4096)
            except OSError:
                break  # nobody has the terminal open any more
            if not chunk:
                break
            written += chunk
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.decode())
    return process.wait(), [
        line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").split("\n")
    ]


@pytest.mark.system
def test_every_check_holds_and_nothing_is_left_behind(somewhere: Path) -> None:
    done = subprocess.run(
        demo("--plain", "--seconds", "0"), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    scenes = [*board_demo.SCENES, *fleet_demo.SCENES]
    assert len(scenes) == SCENES
    for number, scene in enumerate(scenes, 1):
        assert f"\n{number}. " in done.stdout, scene.__name__
    said = " ".join(done.stdout.split())  # lines are wrapped
    for text in (
        "+ device /dev/i2c-1: c 89:1",
        "~ memory limit: 4GiB -> 512MiB",
        "line 3: major is ten",
        "0 without a limit",
        "cut off",
        "0 missing",
        "three boards run what was signed",
        "went back to 1.0.0 and reports why; two boards never ran 1.1.0",
        "no agent was restarted",
        "nothing was lost",
    ):
        assert text in said
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "\x1b" not in done.stdout
    assert list(somewhere.iterdir()) == []


@pytest.mark.system
@pytest.mark.parametrize("columns", [80, 120])
def test_on_a_terminal_three_columns_stand_side_by_side(columns: int) -> None:
    code, lines = on_a_terminal(columns, "--act", "1")
    assert code == 0, "\n".join(lines)
    assert max(map(len, lines)) <= columns
    [first, *_] = [line for line in lines if "pod garden/sensor" in line]
    assert re.search(
        r"pod garden/sensor +10-device-injector +[\d.]+ ms +#\d+ 10-device-injector", first
    )


@pytest.mark.system
def test_a_fleet_on_a_terminal_fits_its_width() -> None:
    pytest.importorskip("tomlkit", reason="the extra `demo` is not installed")
    code, lines = on_a_terminal(80, "--act", "2")
    assert code == 0, "\n".join(lines)
    assert max(map(len, lines)) <= 80
    assert any(re.search(r"the operator +the boards +over MQTT", line) for line in lines)


def test_without_its_extra_the_second_act_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(board_demo, "SCENES", ())
    monkeypatch.setitem(sys.modules, "tomlkit", None)
    assert main(["demo", "--plain", "--seconds", "0"]) == 0
    assert "needs tomlkit: pip install 'edge-agent[demo]'" in capsys.readouterr().out


def test_a_check_that_fails_is_shown_and_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    smaller = {**board_demo.CONFIGS, board.GUARD: "[default]\nmemory.maximum = 256Mi\n"}
    monkeypatch.setattr(board_demo, "CONFIGS", smaller)
    scenes = (board_demo.the_board_starts, board_demo.a_greedy_pod)
    monkeypatch.setattr(board_demo, "SCENES", scenes)
    assert main(["demo", "--plain", "--seconds", "0", "--act", "1"]) == 1
    said = capsys.readouterr().out
    assert "CHECK FAILED: it has 512 MiB; found 268435456" in said
    assert "CHECK FAILED: it has 128 processes; found 0" in said
    assert "Checks failed in 1 of the scenes" in said


def test_an_agent_that_does_not_start_ends_the_demonstration_with_its_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], somewhere: Path
) -> None:
    python = somewhere / "python"
    python.write_text("#!/bin/sh\necho no engine anywhere\nexit 7\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    assert main(["demo", "--plain", "--seconds", "0", "--act", "1"]) == 1
    said = capsys.readouterr().err
    assert "the agent ended with 7; the end of its log (greenhouse-7):\nno engine anywhere" in said
    assert list(somewhere.iterdir()) == [python]


@pytest.mark.parametrize("seconds", ["-1", "soon", "nan", "1e9"])
def test_an_impossible_length_is_wrong_usage(
    seconds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["demo", "--seconds", seconds])
    assert "--seconds" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(board_demo.IDENTITIES))
def test_the_package_has_the_projects_own_plugins(name: str) -> None:
    assert board.module(name) == (PLUGINS / name / f"{name}.wasm").read_bytes(), (
        "run scripts/build-plugins"
    )


def test_the_package_has_no_other_modules_than_the_demonstration_needs() -> None:
    assert {path.stem for path in board.MODULES.glob("*.wasm")} == {
        *board_demo.IDENTITIES,
        board.STUCK,
    }


def test_another_build_is_the_same_plugin_with_other_bytes() -> None:
    before = board.module(board.GUARD)
    after = board.another_build(before, "2")
    assert after != before
    assert inspect(after).functions == inspect(before).functions
