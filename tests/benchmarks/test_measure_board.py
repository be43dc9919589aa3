"""`scripts/measure-board`, which is to run alone on somebody's board."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.errors import EngineError
from edge_agent.wasm.engine_selection import select_engine

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "measure-board"


@pytest.mark.system
def test_it_measures_with_nothing_beside_it(tmp_path: Path) -> None:
    try:
        engine, _ = select_engine("auto")
    except EngineError as error:
        pytest.skip(str(error))
    alone = shutil.copy(SCRIPT, tmp_path)
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, alone, "--events=50", f"--json={figures}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(figures.read_text())
    assert found["engine"]["name"] == engine.name
    assert found["answer_us"]["count"] == 50
    assert found["start_s"] > 0
    assert found["empty"]["pss"] < found["one_plugin"]["pss"]
    for words in ("start ", "CreateContainer ", "memory, one plugin ", "MiB PSS"):
        assert words in done.stdout
