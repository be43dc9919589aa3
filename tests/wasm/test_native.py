"""The adapter of the engines in native/engines; the rest is in test_contract_*.py."""

import os
import sys
import threading
import types
from pathlib import Path

import pytest

from edge_agent.errors import EngineError, GuestFault, ModuleError, NotInstalledError
from edge_agent.wasm.engine import Guest, HostFunction
from edge_agent.wasm.engine_selection import select_engine
from edge_agent.wasm.engines.native import NativeEngine, WasmerEngine, WasmiEngine
from edge_agent.wasm.module import FuncType, inspect
from tests.support.assembler import (
    ADD,
    Assembly,
    call,
    get,
    i32,
    i64,
)
from tests.wasm.lab import MIB, STACK_BYTES, Bench, Lab, guest
from tests.wasm.plugins import ECHO, NOTHING, plugin

ENGINES: dict[str, type[NativeEngine]] = {"wasmer": WasmerEngine, "wasmi": WasmiEngine}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> NativeEngine:
    try:
        return ENGINES[request.param]()
    except EngineError as error:
        pytest.skip(f"needs {request.param}: {error}")


@pytest.fixture
def lab(engine: NativeEngine, tmp_path: Path) -> Lab:
    return Lab(Bench(engine, tmp_path))


@pytest.mark.parametrize("binding", [None, "0.1.0", "1.1.0"])
def test_a_binding_that_is_missing_or_another_is_an_error_with_advice(
    binding: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = types.ModuleType("edge_agent_engines") if binding else None
    if found is not None:
        found.BINDING = binding  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "edge_agent_engines", found)
    says = rf"{binding} is installed; this agent needs 0\.2" if binding else "install the wheel"
    for name, made in ENGINES.items():
        with pytest.raises(EngineError, match=says):
            made()
        with pytest.raises(EngineError, match=says):
            select_engine(name)


@pytest.mark.parametrize(
    ("tags", "says"),
    [
        ("cp311-abi3-manylinux_2_31_armv7l", "for ARMv7 and later, and this processor is ARMv6"),
        ("cp311-abi3-linux_armv6l.linux_armv7l", "install the wheel"),  # it gets as far as that
    ],
)
def test_on_armv6_only_a_library_for_it_is_loaded(
    tags: str, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed = tmp_path / "edge_agent_engines-0.2.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.4\nName: edge-agent-engines\n")
    (installed / "WHEEL").write_text(f"Wheel-Version: 1.0\nTag: {tags}\n")
    monkeypatch.syspath_prepend(tmp_path)
    board = os.uname_result(("Linux", "zero", "6.12", "1", "armv6l"))
    monkeypatch.setattr(os, "uname", lambda: board)
    monkeypatch.setitem(sys.modules, "edge_agent_engines", None)
    with pytest.raises(NotInstalledError, match=says):
        WasmiEngine()


def test_an_engine_that_there_is_not_for_this_processor_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As on 32-bit boards.
    found = types.ModuleType("edge_agent_engines")
    found.BINDING, found.WASMI = "0.2.9", "2.0.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "edge_agent_engines", found)
    with pytest.raises(EngineError, match="there is no wasmer for this processor"):
        WasmerEngine()
    assert WasmiEngine().version == "2.0.0"


# ---- artifacts ----


def test_an_artifact_of_another_module_is_refused(engine: NativeEngine, tmp_path: Path) -> None:
    artifact = Bench(engine, tmp_path).artifact(guest("bench"))
    with pytest.raises(EngineError, match="was made of another module"):
        engine.load(artifact, inspect(guest("old-gen")), STACK_BYTES)
    engine.load(artifact, inspect(guest("bench")), STACK_BYTES).close()


@pytest.mark.parametrize("content", [b"", b"\x7fELF", bytes(10_000), guest("bench")])
def test_a_file_that_is_no_artifact_is_refused(
    content: bytes, engine: NativeEngine, tmp_path: Path
) -> None:
    file = tmp_path / "artifact"
    file.write_bytes(content)
    with pytest.raises(EngineError, match=f"is no artifact of {engine.name} {engine.version}"):
        engine.load(file, inspect(guest("bench")), STACK_BYTES)


@pytest.mark.parametrize("name", ["missing", "mis\udcffsing", "new\nline"])
def test_a_missing_artifact_is_an_error(name: str, engine: NativeEngine, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="is no artifact"):
        engine.load(tmp_path / name, inspect(guest("bench")), STACK_BYTES)


def test_a_truncated_artifact_is_an_error(engine: NativeEngine, tmp_path: Path) -> None:
    whole = engine.compile(guest("bench"))
    file = tmp_path / "artifact"
    for size in range(64, len(whole), len(whole) // 16):
        file.write_bytes(whole[:size])
        with pytest.raises(EngineError, match="is no artifact"):
            engine.load(file, inspect(guest("bench")), STACK_BYTES)


def test_the_same_module_gives_the_same_artifact(engine: NativeEngine) -> None:
    assert engine.compile(guest("bench")) == engine.compile(guest("bench"))


# ---- what is refused ----


def with_tables(*tables: bytes) -> bytes:
    module = Assembly(1)
    module.function("I", i64(1), export="plugin_api_version")
    module.function("ii", i32(64), export="malloc")
    module.function("i-", b"", export="free")
    module.entries[4].extend(tables)
    return module.build()


def test_more_tables_than_a_plugin_may_have_are_refused(engine: NativeEngine) -> None:
    engine.compile(with_tables(*[b"\x70\x00\x01"] * 4))
    with pytest.raises(ModuleError, match="5 tables; a plugin may have 4"):
        engine.compile(with_tables(*[b"\x70\x00\x01"] * 5))


WAIT = ("env", "wait", "i-")


def test_an_instance_is_used_by_one_thread_at_a_time(lab: Lab) -> None:
    within, leave = threading.Event(), threading.Event()

    def wait(_guest: Guest, _: int) -> None:
        within.set()
        leave.wait(60)

    extra = {("env", "wait"): HostFunction(FuncType(("i32",), ()), wait)}
    wasm = plugin({"configure": i32(0) + call(0) + NOTHING, "shutdown": ECHO}, imports=(WAIT,))
    running = lab.start(wasm, extra=extra)
    thread = threading.Thread(target=running.call, args=("configure",))
    thread.start()
    within.wait(60)
    try:
        assert running.instance.memory_bytes == 4 * 65536  # may be asked at any time
        with pytest.raises(RuntimeError, match="closed during a call"):
            running.instance.close()
    finally:
        leave.set()
        thread.join()
    assert running.call("shutdown", b"x") == b"x"


# ---- stacks ----


def test_a_small_stack_stays_small_after_a_large_one_was_used(lab: Lab) -> None:
    module = Assembly(4)
    more = get(0) + get(1) + i32(1) + ADD + call(0)
    stop = get(1) + i32(20_000) + b"\x4f"
    body = stop + b"\x04\x7e" + i64(0) + b"\x05" + more + b"\x0b"
    module.function("iiI", body, export="plugin_configure")
    module.function("ii", i32(1024), export="malloc")
    module.function("i-", b"", export="free")
    module.function("I", i64(1), export="plugin_api_version")
    wasm = module.build()
    for _ in range(3):
        assert lab.start(wasm, stack_bytes=4 * MIB).call("configure") == b""
        with pytest.raises(GuestFault, match="call stack exhausted"):
            lab.start(wasm, stack_bytes=128 << 10).call("configure")
