"""`edge-agent plugin inspect`, and what `plugin check` says of typical mistakes."""

import json
import random
from pathlib import Path

import pytest

from edge_agent.__main__ import main
from edge_agent.authors.inspection import Size, anatomy
from edge_agent.errors import ModuleError
from edge_agent.wasm.metering import read_u32
from tests.support.costly import wasmtime
from tests.support.wat import MEMORY, constant, module

BENCH = Path(__file__).parents[1] / "guests" / "bench.wasm"


def custom(title: str, content: bytes) -> bytes:
    """A custom section; everything shorter than 128 bytes."""
    name = bytes([len(title)]) + title.encode()
    assert len(name + content) < 128
    return bytes([0, len(name + content)]) + name + content


def text(value: str) -> bytes:
    raw = value.encode()
    return bytes([len(raw)]) + raw


def named(functions: dict[int, str]) -> bytes:
    entries = b"".join(bytes([number]) + text(name) for number, name in functions.items())
    names = bytes([len(functions)]) + entries
    return custom("name", bytes([1, len(names)]) + names)


def test_the_sections_are_the_whole_file() -> None:
    wasm = BENCH.read_bytes()
    found = anatomy(wasm)
    heads = sum(1 + (2 if each.bytes > 127 else 1) for each in found.sections)
    assert 8 + heads + sum(each.bytes for each in found.sections) == len(wasm)
    code = next(each.bytes for each in found.sections if each.name == "code")
    assert code * 0.9 < sum(each.bytes for each in found.functions) < code


def test_functions_have_their_names_or_those_of_their_exports() -> None:
    plain = anatomy(BENCH.read_bytes())
    assert "plugin_create_container" in {each.name for each in plain.functions}
    size = plain.functions[0].bytes
    both = anatomy(BENCH.read_bytes() + named({1: "first", 2: "second"}))
    assert {"first", "second"} < {each.name for each in both.functions}
    assert "plugin_create_container" not in {each.name for each in both.functions}
    assert both.functions[0].bytes == size
    assert Size("custom name", len(named({1: "first", 2: "second"})) - 2) in both.sections


def test_it_tells_what_made_the_module() -> None:
    language = text("language") + b"\x01" + text("C11") + text("")
    tool = text("processed-by") + b"\x01" + text("clang") + text("21.1")
    found = anatomy(BENCH.read_bytes() + custom("producers", b"\x02" + language + tool))
    assert found.producers == {"language": ["C11"], "processed-by": ["clang 21.1"]}


@pytest.mark.parametrize(
    "section",
    [
        custom("name", b"\x01\x7f"),  # longer than it is
        custom("name", b"\x01\x05\xff\xff\xff\xff\x0f"),  # 4 G names
        custom("name", b"\x01\x06\xff\xff\xff\xff\xff\x0f"),  # more than 32 bits
        custom("producers", b"\xff\xff\xff\xff\x0f"),
        custom("producers", b"\x01" + text("language") + b"\x60" + (text("") + text("")) * 50),
    ],
)
def test_a_damaged_custom_section_is_named_and_nothing_else(section: bytes) -> None:
    title = section[3 : 3 + section[2]].decode()
    found = anatomy(BENCH.read_bytes() + section)
    assert f"custom {title} (damaged)" in {each.name for each in found.sections}
    assert len(found.functions) == len(anatomy(BENCH.read_bytes()).functions)
    assert found.producers == {}


def test_a_damaged_module_is_an_error_or_a_module() -> None:
    whole = BENCH.read_bytes() + named({1: "first"})
    for size in range(len(whole)):
        try:
            anatomy(whole[:size])
        except ModuleError:
            continue
        assert read_u32(whole, 9)[1] <= size or size == 8  # it ends where a section ends
    chance = random.Random(1)
    taken = 0
    for _ in range(3000):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            damaged[chance.randrange(8, len(damaged))] = chance.randrange(256)
        try:
            anatomy(bytes(damaged))
        except ModuleError:
            continue
        taken += 1
    assert 0 < taken < 3000


def test_as_text_and_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "10-bench.wasm"
    largest = int(anatomy(BENCH.read_bytes() + named({})).functions[0].name.removeprefix("#"))
    file.write_bytes(BENCH.read_bytes() + named({largest: "\x1b[31mred"}))
    assert main(["plugin", "inspect", str(file)]) == 0
    said = capsys.readouterr().out
    assert "methods       Configure, CreateContainer\n" in said
    assert "imports       env: log\n" in said
    assert "\x1b" not in said
    assert "[31mred" in said
    assert main(["plugin", "inspect", str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["size"] == file.stat().st_size
    assert told["memory"]["start"] % 65536 == 0
    assert told["functions"]["count"] == len(anatomy(file.read_bytes()).functions)


def test_what_is_no_plugin_is_told_with_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "10-text.wasm"
    file.write_text("(module)")
    assert main(["plugin", "inspect", str(file)]) != 0
    assert f"{file}: not a Wasm module" in capsys.readouterr().err


def test_check_says_what_a_misspelled_export_was_meant_to_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wasmtime()
    file = tmp_path / "10-test.wasm"
    exports = ("plugin_createcontainer", "plugin_stop_containers", "plugin_teleport")
    file.write_bytes(constant(dict.fromkeys(exports, b"")))
    main(["plugin", "check", str(file)])
    said = capsys.readouterr().out
    assert "plugin_createcontainer: did you mean plugin_create_container?" in said
    assert "plugin_stop_containers: did you mean plugin_stop_container?" in said
    assert "plugin_teleport: did you mean" not in said


def test_check_says_how_a_program_becomes_a_plugin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wasmtime()
    file = tmp_path / "10-test.wasm"
    file.write_bytes(module(MEMORY + '(func (export "_start"))'))
    assert main(["plugin", "check", str(file)]) == 1
    assert "-buildmode=c-shared" in capsys.readouterr().out
