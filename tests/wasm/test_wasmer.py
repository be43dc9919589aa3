"""What is particular to Wasmer, its adapter and binding; the rest is in test_contract_*.py."""

import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest

from edge_agent.errors import EngineError, GuestFault, ModuleError
from edge_agent.wasm.choice import choose
from edge_agent.wasm.engine import Guest, HostFunction
from edge_agent.wasm.engines.wasmer import WasmerEngine
from edge_agent.wasm.module import FuncType, inspect
from tests.support.assembler import (
    ADD,
    Assembly,
    call,
    get,
    i32,
    i64,
)
from tests.wasm.lab import MIB, ROOT, STACK_BYTES, Bench, Lab, guest
from tests.wasm.plugins import ECHO, NOTHING, plugin


def wasmer(wide: bool | None = None) -> WasmerEngine:
    try:
        return WasmerEngine(wide)
    except EngineError as error:
        pytest.skip(f"needs wasmer: {error}")


@pytest.fixture
def engine() -> WasmerEngine:
    return wasmer()  # or skip


@pytest.fixture
def lab(engine: WasmerEngine, tmp_path: Path) -> Lab:
    return Lab(Bench(engine, tmp_path))


def test_auto_prefers_it_where_it_is_installed(engine: WasmerEngine) -> None:
    chosen, why = choose("auto")
    assert chosen.name == "wasmer"
    assert why == f"wasmer {engine.version}, the first that is installed"


@pytest.mark.parametrize("binding", [None, "0.2.0", "1.1.0"])
def test_a_binding_that_is_missing_or_another_is_an_error_with_advice(
    binding: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = types.ModuleType("edge_agent_wasmer") if binding else None
    if found is not None:
        found.BINDING = binding  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "edge_agent_wasmer", found)
    says = rf"{binding} is installed; this agent needs 0\.1" if binding else "install the wheel"
    with pytest.raises(EngineError, match=says):
        WasmerEngine()
    with pytest.raises(EngineError, match=says):
        choose("wasmer")


# ---- artifacts ----


def test_an_artifact_of_another_module_is_refused(engine: WasmerEngine, tmp_path: Path) -> None:
    artifact = Bench(engine, tmp_path).artifact(guest("bench"))
    with pytest.raises(EngineError, match="was made of another module"):
        engine.load(artifact, inspect(guest("old-gen")), STACK_BYTES)
    engine.load(artifact, inspect(guest("bench")), STACK_BYTES).close()


@pytest.mark.parametrize("content", [b"", b"\x7fELF", bytes(10_000), guest("bench")])
def test_a_file_that_is_no_artifact_is_refused(
    content: bytes, engine: WasmerEngine, tmp_path: Path
) -> None:
    file = tmp_path / "artifact"
    file.write_bytes(content)
    with pytest.raises(EngineError, match="is no artifact of wasmer 7"):
        engine.load(file, inspect(guest("bench")), STACK_BYTES)


@pytest.mark.parametrize("name", ["missing", "mis\udcffsing", "new\nline"])
def test_a_missing_artifact_is_an_error(name: str, engine: WasmerEngine, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="is no artifact"):
        engine.load(tmp_path / name, inspect(guest("bench")), STACK_BYTES)


def test_a_truncated_artifact_is_an_error(engine: WasmerEngine, tmp_path: Path) -> None:
    whole = engine.compile(guest("bench"))
    file = tmp_path / "artifact"
    for size in range(64, len(whole), len(whole) // 16):
        file.write_bytes(whole[:size])
        with pytest.raises(EngineError, match="is no artifact"):
            engine.load(file, inspect(guest("bench")), STACK_BYTES)


def test_settings_are_part_of_an_artifacts_key() -> None:
    assert wasmer(True).settings() != wasmer(False).settings()


def test_the_same_module_gives_the_same_artifact(engine: WasmerEngine) -> None:
    assert engine.compile(guest("bench")) == engine.compile(guest("bench"))


@pytest.mark.not_emulated("QEMU sets no limit of memory for what it runs")
def test_addresses_are_saved_where_they_are_limited() -> None:
    wasmer()  # or skip
    check = """
import resource, sys, tempfile
from pathlib import Path
if len(sys.argv) > 1:
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from edge_agent.wasm.choice import choose
from tests.wasm.lab import Bench, Lab, capture, guest
engine = choose("wasmer")[0]
with tempfile.TemporaryDirectory() as folder:
    lab = Lab(Bench(engine, Path(folder)))
    for _ in range(8):
        assert lab.start(guest("bench")).call("create_container", capture("create_container"))
print(engine.wide)
"""
    for arguments, expected in (([], "True"), (["limited"], "False")):
        done = subprocess.run(
            [sys.executable, "-c", check, *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
        )
        assert done.stdout.strip() == expected


# ---- what is refused ----


def with_tables(*tables: bytes) -> bytes:
    module = Assembly(1)
    module.function("I", i64(1), export="plugin_api_version")
    module.function("ii", i32(64), export="malloc")
    module.function("i-", b"", export="free")
    module.entries[4].extend(tables)
    return module.build()


def test_more_tables_than_a_plugin_may_have_are_refused(engine: WasmerEngine) -> None:
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


# ---- stacks and signals ----


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


SURVIVES = """
import faulthandler, sys, tempfile
from pathlib import Path
from edge_agent.errors import GuestFault
from edge_agent.wasm.choice import choose
from tests.wasm.lab import Bench, Lab

when, rule, others = sys.argv[1:]
if when == "before":
    faulthandler.enable()
with tempfile.TemporaryDirectory() as folder:
    engines = [choose(name)[0] for name in others.split(",")]
    labs = [Lab(Bench(engine, Path(folder) / engine.name)) for engine in engines]
    for each in labs:
        each.bench._folder.mkdir()
    if when == "between":
        faulthandler.enable()
    for each in labs:
        each.hostile(f"create_container:{rule}")
    if when == "after":
        faulthandler.enable()
    for turn in range(3):
        for each in labs:
            running = each.hostile(f"create_container:{rule}")
            try:
                running.call("create_container", b"x")
            except GuestFault as fault:
                print(fault.kind, fault)
            else:
                sys.exit("no fault")
"""


def _traps(when: str, rule: str, engines: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SURVIVES, when, rule, engines],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("rule", ["oob", "recurse", "recurse-frames", "trap"])
@pytest.mark.parametrize("when", ["never", "before", "between", "after"])
def test_traps_are_survived_whenever_pythons_fault_handler_is_enabled(when: str, rule: str) -> None:
    wasmer()  # or skip
    assert len(_traps(when, rule, "wasmer")) == 3


@pytest.mark.parametrize("order", ["wasmer,wasmtime", "wasmtime,wasmer"])
def test_two_engines_that_want_the_same_signals_live_together(order: str) -> None:
    wasmer()  # or skip
    try:
        choose("wasmtime")
    except EngineError as error:
        pytest.skip(f"needs wasmtime: {error}")
    for rule in ("oob", "recurse", "trap"):
        lines = _traps("never", rule, order)
        assert len(lines) == 6
        assert lines[0::2] == lines[1::2]
