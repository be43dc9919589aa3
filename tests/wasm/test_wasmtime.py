"""What is particular to the adapter of Wasmtime; the rest is in test_contract_*.py."""

import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.errors import EngineError, ModuleError
from edge_agent.wasm.engine import Bounds, Engine
from edge_agent.wasm.engines import wasmtime_capi as capi
from edge_agent.wasm.engines.wasmtime import WasmtimeEngine
from edge_agent.wasm.module import inspect
from tests.support.costly import wasmtime
from tests.wasm.lab import MIB, ROOT, STACK_BYTES, Bench, Lab, guest
from tests.wasm.plugins import ECHO, plugin


@pytest.fixture
def engine() -> Engine:
    return wasmtime()  # or skip


def test_an_artifact_of_another_module_is_refused(engine: Engine, tmp_path: Path) -> None:
    bench = Bench(engine, tmp_path)
    artifact = bench.artifact(guest("bench"))
    with pytest.raises(EngineError, match="was made of another module"):
        engine.load(artifact, inspect(guest("old-gen")), STACK_BYTES)
    engine.load(artifact, inspect(guest("bench")), STACK_BYTES).close()


@pytest.mark.parametrize("content", [b"", b"\x7fELF", bytes(10_000), guest("bench")])
def test_a_file_that_is_no_artifact_is_refused(
    content: bytes, engine: Engine, tmp_path: Path
) -> None:
    file = tmp_path / "artifact"
    file.write_bytes(content)
    with pytest.raises(EngineError, match="is no artifact of wasmtime 50"):
        engine.load(file, inspect(guest("bench")), STACK_BYTES)


@pytest.mark.parametrize("name", ["missing", "mis\udcffsing", "new\nline"])
def test_a_missing_artifact_is_an_error(name: str, engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="is no artifact"):
        engine.load(tmp_path / name, inspect(guest("bench")), STACK_BYTES)


def test_settings_are_part_of_an_artifact(tmp_path: Path) -> None:
    wasmtime()  # or skip
    wide, narrow = WasmtimeEngine(True), WasmtimeEngine(False)
    assert wide.settings() != narrow.settings()
    with pytest.raises(EngineError, match="is no artifact"):
        narrow.load(Bench(wide, tmp_path).artifact(guest("bench")), inspect(guest("bench")), MIB)


@pytest.mark.not_emulated("QEMU sets no limit of memory for what it runs")
def test_addresses_are_saved_where_they_are_limited() -> None:
    wasmtime()  # or skip
    check = """
import resource, sys
if len(sys.argv) > 1:
    resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
from edge_agent.wasm.engines.wasmtime import WasmtimeEngine
engine = WasmtimeEngine()
print(engine.reservation_bytes)
"""
    for arguments, expected in (([], 4 << 30), (["limited"], 64 << 20)):
        done = subprocess.run(
            [sys.executable, "-c", check, *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
        )
        assert int(done.stdout) == expected


def test_a_limit_of_addresses_is_lived_with() -> None:
    wasmtime()  # or skip
    check = """
import resource, tempfile
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from edge_agent.wasm.choice import choose
from tests.wasm.lab import Bench, Lab, capture, guest
with tempfile.TemporaryDirectory() as folder:
    lab = Lab(Bench(choose("wasmtime")[0], Path(folder)))
    for _ in range(8):
        assert lab.start(guest("bench")).call("create_container", capture("create_container"))
"""
    subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=True)


def test_a_type_that_the_c_api_cannot_tell_does_not_abort_the_process(tmp_path: Path) -> None:
    lab = Lab(Bench(wasmtime(), tmp_path))
    wasm = plugin({"configure": ECHO})
    vector = bytes.fromhex("60017b00")  # (v128) -> ()
    assert wasm.count(b"\x60\x01\x7f\x00") == 1  # free's
    changed = wasm.replace(b"\x60\x01\x7f\x00", vector)
    info = inspect(changed)
    assert info.functions["free"].params == ("v128",)
    module = lab.bench.engine.load(lab.bench.artifact(changed), info, STACK_BYTES)
    with pytest.raises(ModuleError, match=r"free has the type \(v128\)|free .* has the type"):
        module.instantiate(Bounds(MIB, MIB), {}, 5.0)


@pytest.mark.not_emulated("QEMU sets no limit of memory for what it runs")
def test_a_stack_larger_than_the_process_has_is_an_error() -> None:
    wasmtime()  # or skip
    check = """
import resource, tempfile
from pathlib import Path
resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, resource.getrlimit(resource.RLIMIT_STACK)[1]))
from edge_agent.errors import EngineError
from edge_agent.wasm.choice import choose
from tests.wasm.lab import Bench, Lab, guest
with tempfile.TemporaryDirectory() as folder:
    lab = Lab(Bench(choose("wasmtime")[0], Path(folder)))
    lab.start(guest("bench"), stack_bytes=512 << 10)
    try:
        lab.start(guest("bench"), stack_bytes=1 << 20)
    except EngineError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout.startswith("a guest's stack of 1048576 bytes does not fit this process's")
    assert "LimitSTACK=" in done.stdout


# ---- signals ----

SURVIVES = """
import faulthandler, os, sys, tempfile
from pathlib import Path
from edge_agent.errors import GuestFault
from edge_agent.wasm.choice import choose
from tests.wasm.lab import Bench, Lab

when, rule = sys.argv[1:]
if when == "before":
    faulthandler.enable()
with tempfile.TemporaryDirectory() as folder:
    lab = Lab(Bench(choose("wasmtime")[0], Path(folder)))
    if when == "between":
        faulthandler.enable()
    running = lab.hostile(f"create_container:{rule}")
    if when == "after":
        faulthandler.enable()
    for _ in range(3):
        running = lab.hostile(f"create_container:{rule}")
        try:
            running.call("create_container", b"x")
        except GuestFault as fault:
            print(fault.kind, fault)
        else:
            sys.exit("no fault")
"""


def _traps(when: str, rule: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SURVIVES, when, rule],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )


@pytest.mark.parametrize("rule", ["oob", "recurse", "recurse-frames", "trap"])
@pytest.mark.parametrize("when", ["never", "before", "between", "after"])
def test_traps_are_survived_whenever_pythons_fault_handler_is_enabled(when: str, rule: str) -> None:
    wasmtime()  # or skip
    done = _traps(when, rule)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3


def test_what_is_declared_of_the_library_is_there() -> None:
    wasmtime()  # or skip
    library = capi.Library()
    with pytest.raises(AttributeError, match="wasmtime_fancy is not declared in wasmtime_capi"):
        library.wasmtime_fancy()
