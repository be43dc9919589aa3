"""`scripts/nri-bench`: contestants of anybody, the table and the drawing."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from scripts.benchmarks import nribench
from scripts.benchmarks.plot import Bar, bars, marks
from tests.support.agent import guest
from tests.support.gobuild import native_plugin_binary, require_go

FIGURES = {
    "median_us": 100.0,
    "p99_us": 250.0,
    "ratio": {"median": 1.0, "low": 0.9, "high": 1.1},
    "p99_ratio": {"median": 1.0},
    "cpu_us_per_event": 42.0,
}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("agent:x.wasm", "not of the form"),
        ("a=docker:x.wasm", "not of the form"),
        ("a=native:plugin --socket /run/nri.sock", "does not say where {socket} goes"),
        ("a=agent:none.wasm", "No such file"),
        ("a=agent/v8:{file}", "v8"),
    ],
)
def test_what_is_no_contestant_is_told(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        nribench.contestant(text.replace("{file}", str(guest("bench"))), tmp_path)


@pytest.mark.system
def test_a_native_plugin_and_the_agent_are_measured_beside_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require_go()
    pytest.importorskip("wasmtime", reason="needs wasmtime: runs guests")
    native = f"{native_plugin_binary()} --socket {{socket}} --idx 10 --name n --env A=b"
    figures, drawn = tmp_path / "figures.json", tmp_path / "figures.svg"
    words = [f"Go daemon=native:{native}", f"C plugin=agent:{guest('bench')}"]
    words += ["--rounds", "2", "--events", "5", "--json", str(figures), "--plot", str(drawn)]
    assert nribench.main(words) == 0
    found = json.loads(figures.read_text())["contestants"]
    assert {name: each["samples"] for name, each in found.items()} == {
        "Go daemon": 10,
        "C plugin": 10,
    }
    assert found["Go daemon"]["ratio"]["median"] == 1
    assert "| C plugin |" in capsys.readouterr().out
    assert "C plugin" in drawn.read_text()


@pytest.mark.system
def test_a_native_plugin_that_does_not_start_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    require_go()
    assert nribench.main(["none=native:false {socket}"]) == 1
    assert "wanted a plugin" in capsys.readouterr().err


def test_the_table_has_a_row_for_each() -> None:
    head, _, row = nribench.table({"C": FIGURES}).split("\n")
    assert head.count("|") == row.count("|")
    assert row == "| C | 100 us | 250 us | 1.00 (0.90-1.10) | 1.00 | 42 us |"


def test_the_drawing_compares_lengths() -> None:
    drawn = ElementTree.fromstring(bars("t < u", [Bar("a & b", 100, 200), Bar("c", 50, 400)]))
    space = "{http://www.w3.org/2000/svg}"
    widths = [
        float(each.attrib["width"]) for each in drawn.iter(f"{space}rect") if "x" in each.attrib
    ]
    assert widths[0] == pytest.approx(2 * widths[1], rel=0.01)
    assert "a & b" in {each.text for each in drawn.iter(f"{space}text")}


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (400.0, [0, 100, 200, 300, 400]),
        (0.0041, [0, 0.001, 0.002, 0.003, 0.004]),
        (9.0, [0, 2, 4, 6, 8]),
    ],
)
def test_a_scale_has_few_round_marks(most: float, expected: list[float]) -> None:
    assert marks(most) == pytest.approx(expected)
