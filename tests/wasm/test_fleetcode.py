"""Machine code made elsewhere: the same bytes whoever makes them, and run only as what it is."""

import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.errors import EngineError, ModuleError
from edge_agent.store.digest import Digest, sha256_hex
from edge_agent.store.release import Code
from edge_agent.wasm import compiler
from edge_agent.wasm.artifacts import Artifacts, machine_of
from edge_agent.wasm.compiler_process import Portably
from edge_agent.wasm.engine import FUEL_RULES, Bounds, Engine, Module, Portable
from edge_agent.wasm.engine_selection import select_engine
from edge_agent.wasm.engines.native import WasmerEngine
from edge_agent.wasm.guestlog import GuestLog
from edge_agent.wasm.imports import HostServices, PluginState
from edge_agent.wasm.modulefile import ModuleFile, identify, inspect_file
from tests.wasm.lab import GUESTS, MIB, PATIENCE_S, STACK_BYTES, capture, guest

# Which bytes come of tests/guests/bench.wasm for each kind of processor, and with which version of
# Wasmer. `python -m tests.wasm.test_fleetcode` writes it anew.
RECORD = Path(__file__).parents[1] / "data" / "machine-code.json"
HERE = os.uname().machine


def wasmer() -> WasmerEngine:
    try:
        engine = WasmerEngine()
    except EngineError as error:
        pytest.skip(f"needs wasmer: {error}")
    if engine.features() is None:
        pytest.skip("needs edge-agent-engines 0.2.1")
    return engine


def digests(engine: WasmerEngine) -> dict[str, str]:
    return {
        f"{target} {'wide' if wide else 'narrow'}": sha256_hex(
            engine.compile_for(guest("bench"), target, wide)
        )
        for target in engine.targets()
        for wide in (True, False)
    }


def _code(engine: WasmerEngine, file: Path, data: bytes) -> Code:
    made_for = (engine.name, engine.version, HERE, engine.settings(), ())
    return Code(*made_for, Digest.of(data), len(data), file)


class Board:
    """A node with a module, and machine code of it from elsewhere."""

    def __init__(self, folder: Path, engine: WasmerEngine) -> None:
        self.engine = engine
        self.file = folder / "code"
        self.data = engine.compile_for(guest("bench"), HERE, engine.wide)
        self.file.write_bytes(self.data)
        self.artifacts = Artifacts(folder / "state")
        module = GUESTS / "bench.wasm"
        digest, _ = identify(module)
        code = _code(engine, self.file, self.data)
        self.source = ModuleFile(
            module, digest, inspect_file(module, digest), STACK_BYTES, False, code
        )

    def stored(self) -> Module | None:
        return self.artifacts.stored(self.engine, self.source)


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path, wasmer())


def answers(module: Module) -> bytes:
    """What the module says to an event; it is closed."""
    services = HostServices(GuestLog(lambda *_: None, 0, 0), PluginState())
    functions = services.functions()
    instance = module.instantiate(Bounds(32 * MIB, 4 * MIB), functions, PATIENCE_S)
    try:
        return instance.call("plugin_create_container", capture("create_container"), PATIENCE_S)
    finally:
        instance.close()
        module.close()


def test_every_machine_makes_the_same_code_for_every_kind_of_processor() -> None:
    engine = wasmer()
    record = json.loads(RECORD.read_text())
    assert record["wasmer"] == engine.version, "write the record anew"
    assert digests(engine) == record["digests"]


def test_code_for_this_kind_of_processor_runs_without_a_compiler(
    board: Board, tmp_path: Path
) -> None:
    compilations = tmp_path / "state" / "artifacts"
    module = board.stored()
    assert module is not None
    by_the_fleet = answers(module)
    assert not compilations.exists()
    compiled = board.artifacts.module(board.engine, replace(board.source, code=None))
    assert answers(compiled) == by_the_fleet
    assert compilations.exists()


def test_what_this_node_compiled_goes_before_what_the_fleet_did(board: Board) -> None:
    board.artifacts.module(board.engine, board.source).close()
    board.file.unlink()
    module = board.stored()
    assert module is not None
    module.close()


def _flip(board: Board) -> None:
    data = bytearray(board.data)
    data[len(data) // 2] ^= 1
    board.file.write_bytes(data)


def _cut(board: Board) -> None:
    board.file.write_bytes(board.data[:-4096])


def _longer(board: Board) -> None:
    board.file.write_bytes(board.data + b"\0")


def _gone(board: Board) -> None:
    board.file.unlink()


def _a_pipe(board: Board) -> None:
    """To which nobody writes: opening it must not wait for that."""
    board.file.unlink()
    os.mkfifo(board.file)


def _linked(board: Board) -> None:
    real = board.file.rename(board.file.with_name("elsewhere"))
    board.file.symlink_to(real)


def _put(board: Board, data: bytes) -> None:
    """What is named by its digest, and is not what it is said to be."""
    board.file.write_bytes(data)
    code = _code(board.engine, board.file, data)
    board.source = replace(board.source, code=code)


def _for_another_processor(board: Board) -> None:
    other = next(target for target in board.engine.targets() if target != HERE)
    _put(board, board.engine.compile_for(guest("bench"), other, board.engine.wide))


def _no_code(board: Board) -> None:
    _put(board, b"\x7fELF" + bytes(4096))


def _a_script(board: Board) -> None:
    _put(board, b"#!/bin/sh\n")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_flip, "it is not what the deployment names"),
        (_cut, "it is not what the deployment names"),
        (_longer, "it is not what the deployment names"),
        (_gone, "No such file"),
        (_linked, "symbolic links"),
        (_a_pipe, "Illegal seek"),
        (_for_another_processor, "another kind of processor"),
        (_no_code, "is no artifact of wasmer"),
        (_a_script, "it is no ELF image"),
    ],
)
def test_what_is_not_what_was_signed_for_is_compiled_here(
    board: Board,
    spoil: Callable[[Board], None],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    spoil(board)
    with caplog.at_level(logging.WARNING):
        assert board.stored() is None
    assert reason in caplog.text
    assert "compiling here" in caplog.text
    assert answers(board.artifacts.module(board.engine, board.source))


def test_machine_is_what_its_engine_says() -> None:
    engine = wasmer()
    machine = machine_of(engine)
    assert machine is not None
    assert (machine.engine, machine.version, machine.target) == ("wasmer", engine.version, HERE)
    assert machine.settings == engine.settings()
    assert machine.metered == f"{engine.settings()},fuel={FUEL_RULES}"
    assert machine.features >= set(engine.targets()[HERE])


@pytest.mark.parametrize("name", ["wasmtime", "wasmi"])
def test_engines_without_such_code_take_none(name: str) -> None:
    try:
        engine: Engine = select_engine(name)[0]
    except EngineError as error:
        pytest.skip(f"needs {name}: {error}")
    assert not isinstance(engine, Portable)
    assert machine_of(engine) is None


def test_library_that_makes_none_takes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = wasmer()

    class Older:
        """edge-agent-engines 0.2.0."""

    monkeypatch.setattr(engine, "native", Older())
    assert machine_of(engine) is None


# --- the compiler's child


@pytest.mark.parametrize("wide", [True, False])
def test_the_child_makes_what_the_engine_does(tmp_path: Path, wide: bool) -> None:
    engine = wasmer()
    module, output = GUESTS / "bench.wasm", tmp_path / "code"
    for target in engine.targets():
        compiler.compile_module(
            *("wasmer", module, identify(module)[0], output), portably=Portably(target, wide)
        )
        assert output.read_bytes() == engine.compile_for(module.read_bytes(), target, wide)
        output.unlink()


def test_code_that_counts_differs(tmp_path: Path) -> None:
    engine = wasmer()
    module = GUESTS / "bench.wasm"
    for metered in (True, False):
        compiler.compile_module(
            *("wasmer", module, identify(module)[0], tmp_path / str(metered)),
            metered=metered,
            portably=Portably(HERE, engine.wide),
        )
    assert (tmp_path / "True").read_bytes() != (tmp_path / "False").read_bytes()


@pytest.mark.parametrize(
    ("engine_name", "target", "reason"),
    [
        ("wasmer", "mips", "there is no code for mips"),
        ("wasmi", "aarch64", "wasmi makes no code for other machines"),
    ],
)
def test_there_is_no_code_for_all(
    tmp_path: Path, engine_name: str, target: str, reason: str
) -> None:
    wasmer()
    module, output = GUESTS / "bench.wasm", tmp_path / "code"
    with pytest.raises(EngineError, match=reason):
        compiler.compile_module(
            *(engine_name, module, identify(module)[0], output), portably=Portably(target, True)
        )
    assert not output.exists()


def test_what_is_no_module_is_refused_for_others_too(tmp_path: Path) -> None:
    wasmer()
    module = tmp_path / "module.wasm"
    module.write_bytes(b"\0asm\1\0\0\0\x01")
    with pytest.raises(ModuleError):
        compiler.compile_module(
            *("wasmer", module, identify(module)[0], tmp_path / "code"),
            portably=Portably("aarch64", True),
        )


if __name__ == "__main__":
    made = WasmerEngine()
    record = {"wasmer": made.version, "digests": digests(made)}
    RECORD.write_text(json.dumps(record, indent=2) + "\n")
