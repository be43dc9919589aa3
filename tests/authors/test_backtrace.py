"""A plugin that fails shows where: functions, and lines where debug information is there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.__main__ import main
from edge_agent.authors import backtrace
from edge_agent.authors.inspection import custom_section, sections_of
from tests.authors.test_recording import EVENT, written
from tests.support.assembler import unsigned
from tests.support.costly import wasmtime
from tests.support.rust import require_rust
from tests.support.zig import require_zig
from tests.wasm.lab import ROOT

SOURCE = """\
#include "edge_nri.h"
static bool configure(str config, buf *error) { return config.size == 0 || error == NULL; }
static volatile int zero;
__attribute__((noinline)) static int fails(int n) {
    zero = n;
    return 7 / (n - n * zero); // line 6
}
__attribute__((noinline)) static int loops(void) {
    while (!zero)
        ;
    return zero;
}
static bool create_container(str request, buf *reply) {
    (void)reply;
    return fails(request.size > 0) != 0; // line 15
}
static bool update_container(str request, buf *reply) {
    return loops() != (int)request.size && reply != NULL;
}
NRI_PLUGIN(create_container, update_container)
"""
FLAGS = (
    *("-target", "wasm32-freestanding", "-std=c23", "-Os", "-ffreestanding", "-nostdlib"),
    *("-I", str(ROOT / "plugins" / "sdk"), "-Wl,--no-entry,-z,stack-size=32768"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50-lines.wasm with debug information, 50-names.wasm with names, 50-bare.wasm with neither."""
    require_zig()
    made = tmp_path_factory.mktemp("backtrace")
    (made / "plugin.c").write_text(SOURCE)
    for name, flag in (("lines", "-g"), ("bare", "-s")):
        words = [sys.executable, "-m", "ziglang", "cc", *FLAGS, flag]
        subprocess.run([*words, "plugin.c", "-o", f"50-{name}.wasm"], cwd=made, check=True)
    lines = (made / "50-lines.wasm").read_bytes()
    (made / "50-names.wasm").write_bytes(without_debug_information(lines))
    for name in ("lines", "names", "bare"):
        (made / f"50-{name}.toml").write_text('[limits]\ndeadline = "200ms"\n')
    return made


def without_debug_information(wasm: bytes) -> bytes:
    kept = [
        bytes([number]) + unsigned(len(content)) + content
        for number, content in sections_of(wasm)
        if number != 0 or not custom_section(content)[0].startswith(".debug_")
    ]
    return wasm[:8] + b"".join(kept)


def frames(file: Path, capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    wasmtime()  # or skip: the engine that tells them
    command = ["plugin", "run", str(file), "--engine", "wasmtime", "--json", *words]
    assert main(command) == 1
    found: list[str] = json.loads(capsys.readouterr().out)["frames"]
    return found


def test_a_trap_shows_functions_and_lines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("elftools", reason="needs pyelftools: reads debug information")
    found = frames(folder / "50-lines.wasm", capsys)
    assert found[:2] == ["fails, plugin.c:6", "create_container, plugin.c:15"]


def test_without_debug_information_functions_are_shown(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = frames(folder / "50-names.wasm", capsys)
    assert found[:2] == ["fails", "create_container"]


def test_without_names_exports_and_numbers_are_shown(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = frames(folder / "50-bare.wasm", capsys)
    assert found[-1] == "plugin_create_container"
    assert found[0].startswith("function ")


def test_a_call_that_takes_too_long_shows_where(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = frames(folder / "50-names.wasm", capsys, "--event", "update_container")
    assert found[0] == "loops"


def test_counted_instructions_move_lines_so_that_none_are_shown(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = frames(folder / "50-lines.wasm", capsys, "--fuel")
    assert found[:2] == ["fails", "create_container"]


def test_a_case_that_fails_shows_where(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wasmtime()
    cases = folder / "50-names.cases.toml"
    cases.write_text('[[case]]\nname = "it answers"\n[case.expect]\nreply = {}\n')
    words = ["plugin", "test", str(folder / "50-names.wasm"), "--engine", "wasmtime"]
    assert main(words) == 1
    assert "at fails" in capsys.readouterr().out


def test_a_replay_shows_where_the_new_version_ended(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("elftools", reason="needs pyelftools: reads debug information")
    wasmtime()
    recorded = written(folder, EVENT)
    command = ["plugin", "replay", str(folder / "50-lines.wasm"), str(recorded)]
    assert main([*command, "--engine", "wasmtime"]) == 1
    assert "        at fails, plugin.c:6\n" in capsys.readouterr().out


# Language -> what it needs, its source, the line behind which the plugin traps, and how.
TRAPS = {
    "c": (
        *(require_zig, "traps.c", "    str pod = pb_bytes(request, NRI_REQ_POD);\n"),
        "    if (pod.size) __builtin_trap();\n",
    ),
    "zig": (
        *(require_zig, "main.zig", "    ) !void {\n"),
        "        if (request.get(.pod).bytes.len > 0) @trap();\n",
    ),
    "rust": (
        *(require_rust, "src/lib.rs", "    ) -> Result<CreateContainerResponse> {\n"),
        "        if request.has_pod() { core::arch::wasm32::unreachable() }\n",
    ),
}


@pytest.mark.parametrize("language", ["c", "zig", pytest.param("rust", marks=pytest.mark.system)])
def test_what_is_built_for_debugging_shows_the_line_of_a_trap(
    language: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("elftools", reason="needs pyelftools: reads debug information")
    require, source, before, trap = TRAPS[language]
    require()
    monkeypatch.chdir(tmp_path)
    assert main(["plugin", "new", "traps", "--lang", language]) == 0
    monkeypatch.chdir("traps")
    text = Path(source).read_text()
    assert text.count(before) == 1
    Path(source).write_text(text.replace(before, before + trap))
    line = text[: text.index(before) + len(before)].count("\n") + 1
    assert main(["plugin", "build", "--debug"]) == 0
    capsys.readouterr()
    found = frames(Path("50-traps.wasm"), capsys)
    assert any(frame.endswith(f", {Path(source).name}:{line}") for frame in found), found
    if language == "c":
        assert main(["plugin", "build"]) == 0
        capsys.readouterr()
        assert frames(Path("50-traps.wasm"), capsys)[-1] == "plugin_create_container"


@given(data=st.data())
def test_damaged_debug_information_shows_functions_all_the_same(
    folder: Path, data: st.DataObject
) -> None:
    pytest.importorskip("elftools", reason="needs pyelftools: reads debug information")
    wasm = bytearray((folder / "50-lines.wasm").read_bytes())
    name = data.draw(st.sampled_from([".debug_info", ".debug_abbrev", ".debug_line"]))
    (table,) = (
        custom_section(content)[1]
        for number, content in sections_of(bytes(wasm))
        if number == 0 and custom_section(content)[0] == name
    )
    begin = wasm.index(table)
    changes = data.draw(
        st.lists(st.tuples(st.integers(0, len(table) - 1), st.integers(0, 255)), min_size=1)
    )
    for at, value in changes:
        wasm[begin + at] = value
    assert len(backtrace.described(bytes(wasm), [(3, begin // 2)], lines=True)) == 1
