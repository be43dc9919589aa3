"""Imports point downwards only: the rooms of CONTRIBUTING.md, "The house", read from the source."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "edge_agent"

# From above to below; rooms of one line do not import each other, but those of the last.
HOUSE = (
    ("__main__",),
    ("cli", "testing"),
    ("authors", "console", "sim"),
    ("operator",),
    ("agent",),
    ("node",),
    ("host",),
    ("fleet", "mqtt"),
    ("fleet_protocol",),
    ("nri",),
    ("wasm",),
    ("wire", "pb", "store"),
    ("logs",),
    ("config",),
    (
        *("control", "errors", "lazy_import", "loop", "notify", "pacing", "pathwatch"),
        *("process", "strictjson", "text"),
    ),
)


def _room(module: str) -> str:
    """The room of "edge_agent.room.more": "room"; of the package itself, which is below all, ""."""
    return [*module.split("."), ""][1]


FLOOR = {room: number for number, rooms in enumerate(reversed(HOUSE)) for room in rooms}
MODULES = sorted(PACKAGE.rglob("*.py"))


def _name(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def _imports(path: Path) -> set[str]:
    """Every module that this one names in an import, inside functions and for types too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports name the whole path"
            module = node.module or ""
            # `from edge_agent import errors` names a room, `from edge_agent.errors import X` too.
            found |= {f"{module}.{each.name}" for each in node.names}
    return found


def _rooms(path: Path) -> set[str]:
    ours = {each for each in _imports(path) if each.split(".")[0] == "edge_agent"}
    return {room for each in ours if (room := _room(each)) in FLOOR} - {_room(_name(path))}


def test_every_module_stands_in_a_room_of_the_house() -> None:
    rooms = {_room(_name(path)) for path in MODULES} - {""}
    assert rooms == FLOOR.keys(), "a new room has its place in CONTRIBUTING.md and here"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_imports_point_downwards(path: Path) -> None:
    if not (own := _room(_name(path))):
        return
    upwards = {room for room in _rooms(path) if FLOOR[room] > FLOOR[own]}
    assert not upwards
    if own in HOUSE[-1]:
        return  # what every room may use is of many small files that use each other
    beside = {room for room in _rooms(path) if FLOOR[room] == FLOOR[own]}
    assert not beside, "rooms of one floor do not know each other"


# What a module that is pure has no use for.
IMPURE = {
    *("asyncio", "io", "mmap", "multiprocessing", "os", "queue", "random", "select", "selectors"),
    *("shutil", "signal", "socket", "ssl", "subprocess", "tempfile", "threading", "time"),
}
# It makes a new key of the system's randomness, which only an operator's command asks for.
BUT = {"edge_agent.fleet_protocol.keys": {"os"}}
BELOW_PROTOCOL = {"config", "errors", "nri", "pb", "store", "strictjson", "text", "wasm"}


@pytest.mark.parametrize(
    "path", [each for each in MODULES if each.parent.name == "fleet_protocol"], ids=_name
)
def test_the_fleet_protocol_does_no_io_and_has_no_thread(path: Path) -> None:
    standard = {each.split(".")[0] for each in _imports(path)} & sys.stdlib_module_names
    assert not standard & IMPURE - BUT.get(_name(path), set())
    assert _rooms(path) <= BELOW_PROTOCOL
    called = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"open", "print", "input", "exec"}
