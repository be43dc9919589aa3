"""docs/tutorial-*.md: each command of a page does what the page says, up to a running agent."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.sim.runtime import SimRuntime
from tests.support.agent import Agent
from tests.support.costly import wasmtime
from tests.support.gobuild import require_go
from tests.support.rust import require_rust
from tests.support.wait import TIMEOUT_S
from tests.support.zig import require_zig
from tests.wasm.lab import ROOT

BOARDS_FOLDER = "/etc/edge-agent"
# What a reader has: edge-agent, the board's configuration in its place, sudo.
SHELL = f"""\
set -eu
cd "$(cat "$PAGE_FOLDER/here")"
trap 'pwd >"$PAGE_FOLDER/here"' EXIT
pip() {{ :; }}
rustup() {{ :; }}
sudo() {{ "$@"; }}
edge-agent() {{
  local verb=$1
  shift
  case $verb in
  status | record) {sys.executable} -m edge_agent "$verb" -c "$BOARD/agent.toml" "$@" ;;
  *) {sys.executable} -m edge_agent "$verb" "$@" ;;
  esac
}}
"""


class Reader:
    """Does what a page says, in one folder and beside one board."""

    def __init__(self, folder: Path, board: Path) -> None:
        self._folder, self._board = folder, board
        self._here = folder / "here"
        self._here.write_text(f"{folder}\n")

    def does(self, language: str, text: str) -> str:
        """What was printed. AssertionError: it failed."""
        if language == "diff":
            words, given = ["git", "apply", "--unidiff-zero", "-"], text
        else:
            script = SHELL + text.replace(BOARDS_FOLDER, str(self._board))
            words, given = ["bash", "-c", script], ""
        done = subprocess.run(
            words,
            cwd=self._here.read_text().strip(),
            env={**os.environ, "PAGE_FOLDER": str(self._folder), "BOARD": str(self._board)},
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[SimRuntime]:
    with SimRuntime(tmp_path / "nri.sock", request_timeout_s=TIMEOUT_S) as runtime:
        yield runtime


NEEDS = {"c": require_zig, "zig": require_zig, "rust": require_rust, "go": require_go}


@pytest.mark.parametrize(
    "language",
    ["c", "zig", *(pytest.param(each, marks=pytest.mark.system) for each in ("rust", "go"))],
)
def test_a_page_leads_to_a_plugin_that_runs(
    language: str, tmp_path: Path, runtime: SimRuntime
) -> None:
    NEEDS[language]()
    page = (ROOT / "docs" / f"tutorial-{language}.md").read_text()
    blocks = re.findall(r"```(sh|diff|text)\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 10
    (plugin,) = set(re.findall(r"--plugin (\S+)", page))
    said: list[str] = []
    # Go's 10 MB are compiled by the commands already; an interpreter is ready at once.
    engine = "wasmi" if language == "go" else "auto"
    with Agent(tmp_path / "board", sockets=[Path(runtime.path)], engine=engine) as agent:
        reader = Reader(tmp_path, tmp_path / "board")
        for kind, text in blocks:
            if kind == "text":  # what the commands before print, and made
                (module,) = tmp_path.glob(f"app-label*/{plugin}.wasm")
                told, unit = re.findall(r"\.wasm`, (\d+) ([KM])B;", page)[0]
                size = int(told) * (1_000_000 if unit == "M" else 1000)
                assert 0.9 < module.stat().st_size / size < 1.1
                for line in re.sub(r" ?\(.*|,.*", "", text).splitlines():
                    assert line in said[-1]
            elif "record" in text:
                agent.wait_running(plugin)
                with Containers(runtime):
                    said.append(reader.does(kind, text))
            else:
                said.append(reader.does(kind, text))
        made = runtime.create_container(runtime.run_pod("other").pod, "app")
    assert made.ok, made.error
    assert "APP=none" in made.container.env
    assert "two cases fail, as they should" in "".join(said)


def test_the_commands_of_the_page_about_debugging_run(tmp_path: Path) -> None:
    require_zig()
    wasmtime()
    page = (ROOT / "docs" / "debugging.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 3
    reader = Reader(tmp_path, tmp_path / "board")
    reader.does("sh", "edge-agent plugin new app-label\ncd app-label\nedge-agent plugin build\n")
    for text in blocks:
        reader.does("sh", text)


class Containers:
    """A context manager: containers are created all the while."""

    def __init__(self, runtime: SimRuntime) -> None:
        self._runtime = runtime
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._create)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    def _create(self) -> None:
        pod = self._runtime.run_pod("pod", labels={"app": "web"}).pod
        while not self._enough.wait(0.2):
            self._runtime.create_container(pod, "app")
