"""`edge-agent plugin dev`: each change is built and tested, and what fails is told."""

import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.__main__ import main
from tests.support.zig import require_zig

WAIT_S = 120.0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    require_zig()
    monkeypatch.chdir(tmp_path)
    assert main(["plugin", "new", "hello"]) == 0
    return tmp_path / "hello"


class Watched:
    """A running `plugin dev`, whose lines are read as they come."""

    def __init__(self, *words: str) -> None:
        command = [sys.executable, "-m", "edge_agent", "plugin", "dev", *words]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)

    def round(self, last: str) -> str:
        """The lines up to the one with `last` in it."""
        said = ""
        while last not in said:
            said += self._lines.get(timeout=WAIT_S)
        return said

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()


@pytest.fixture
def watched(folder: Path) -> Iterator[Watched]:
    into = folder.parent / "plugins"
    into.mkdir()
    process = Watched(str(folder), "--into", str(into))
    yield process
    process.end()


def test_each_change_is_built_tested_and_installed(folder: Path, watched: Watched) -> None:
    installed = folder.parent / "plugins" / "50-hello.wasm"
    said = watched.round("installed")
    assert "3 passed, 0 failed" in said
    assert installed.read_bytes() == (folder / "50-hello.wasm").read_bytes()
    assert installed.with_suffix(".toml").exists()
    first = installed.read_bytes()
    source = folder / "hello.c"
    good = source.read_text()
    # A case that fails: told, and what runs stays.
    source.write_text(good.replace('STR("APP")', 'STR("APPLICATION")'))
    said = watched.round("1 failed")
    assert '"key": "APPLICATION"' in said
    assert installed.read_bytes() == first
    # What does not compile.
    source.write_text(good.replace("static bool", "static bol", 1))
    assert "the compiler failed" in watched.round("unknown type name")
    assert installed.read_bytes() == first
    # As before; another file changes too.
    source.write_text(good + "\n// changed\n")
    assert "3 passed" in watched.round("installed")
    cases = folder / "50-hello.cases.toml"
    cases.write_text(cases.read_text() + '[[case]]\nname = "more"\nexpect = {}\n')
    assert "4 passed" in watched.round("installed")


def test_once_says_by_its_exit_code(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugin", "dev", "hello", "--once"]) == 0
    (folder / "50-hello.cases.toml").unlink()
    assert main(["plugin", "dev", "hello", "--once"]) == 0
    assert "no cases: write 50-hello.cases.toml" in capsys.readouterr().out
    (folder / "hello.c").write_text("no C")
    assert main(["plugin", "dev", "hello", "--once"]) == 1
    assert main(["plugin", "dev", "hello", "--once", "--engine", "none"]) == 1


def test_a_folder_that_is_no_plugins_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plugin", "dev", str(tmp_path)]) == 1
    assert "plugin.toml" in capsys.readouterr().err
