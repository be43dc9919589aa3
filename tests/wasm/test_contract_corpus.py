"""Modules that once broke an engine: they end in an answer or a clean fault on every one."""

import struct
from pathlib import Path

import pytest

from edge_agent.errors import GuestError, GuestFault
from tests.wasm.lab import ROOT, Lab

CORPUS = sorted((ROOT / "tests" / "data" / "hostile").glob("*.wasm"))
# The three results of its block, each at its place: an i32 and two f32.
IN_ORDER = struct.pack("<8xI4xI4xI228x", 0xC9943538, 0xBF64C984, 0xBF64C984)
# What the specification makes of each, by method.
ANSWERS: dict[str, dict[str, bytes]] = {
    "multi-value-rotated": {"configure": IN_ORDER},
    "wasm3-branch-result": {"configure": b"", "create_container": b""},
    "wasm3-branch-result-control": {"configure": b"", "create_container": b""},
    "wasmi-select": {"configure": b"\x01"},
    "wasmi-store-lane": {"configure": b"\x07"},
}


def test_there_is_an_answer_for_each_module() -> None:
    assert {path.stem for path in CORPUS} == ANSWERS.keys()


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_a_module_of_the_corpus_gets_the_answer_of_the_specification(path: Path, lab: Lab) -> None:
    for method, expected in ANSWERS[path.stem].items():
        for _ in range(20):  # it was luck which memory was hit
            running = lab.start(path.read_bytes())
            try:
                reply = running.call(method, b"request")
            except (GuestError, GuestFault) as error:
                pytest.fail(f"{method}: {error!r}")
            assert reply == expected
            lab.forget(running)
