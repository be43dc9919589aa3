"""What is particular to the adapter of Wasmtime; the rest is in test_contract_*.py."""

import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.errors import EngineError, GuestFault, ModuleError
from edge_agent.wasm.engine import Bounds, Engine
from edge_agent.wasm.engines import wasmtime_capi as capi
from edge_agent.wasm.engines.wasmtime import WasmtimeEngine
from edge_agent.wasm.module import inspect
from tests.support.assembler import DROP, MEMORY_GROW, STORE, Assembly, i32, i64
from tests.support.costly import wasmtime
from tests.wasm.lab import MIB, ROOT, STACK_BYTES, Bench, Lab, guest
from tests.wasm.plugins import ECHO, NOTHING, packed, plugin


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


def test_memory_that_outgrows_its_reservation_moves_and_is_found_again(tmp_path: Path) -> None:
    wasmtime()  # or skip
    lab = Lab(Bench(WasmtimeEngine(False), tmp_path))
    grown = i32(2048) + i32(0x64636261) + STORE + i32(400) + MEMORY_GROW + DROP
    wasm = plugin({"configure": grown + packed(i32(2048), i32(4))})
    running = lab.start(wasm, memory_bytes=256 * MIB)
    for _ in range(8):  # 25 MiB each: beyond 64 MiB in the third
        assert running.call("configure", b"request") == b"abcd"
    assert running.instance.memory_bytes > 190 * MIB
    lab.close()


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


@pytest.mark.parametrize(
    "feature",
    [
        b"\x60\x00\x01\x64\x70",  # a typed reference, of a later proposal
        b"\x5f\x00",  # a struct, of the collector's
    ],
)
def test_proposals_that_the_reader_does_not_know_are_refused_by_both(
    feature: bytes, engine: Engine
) -> None:
    wasm = b"\0asm\1\0\0\0\x01" + bytes([len(feature) + 1]) + b"\x01" + feature
    with pytest.raises(ModuleError):
        inspect(wasm)
    with pytest.raises(ModuleError):
        engine.compile(wasm)


@pytest.mark.parametrize(
    "limits", [b"\x04\x01", b"\x03\x01\x02", b"\x08\x01\x00"], ids=["64-bit", "shared", "pages"]
)
def test_memories_that_plugins_do_not_have_are_refused_by_both(
    limits: bytes, engine: Engine
) -> None:
    wasm = b"\0asm\1\0\0\0\x05" + bytes([len(limits) + 1]) + b"\x01" + limits
    with pytest.raises(ModuleError):
        inspect(wasm)
    with pytest.raises(ModuleError):
        engine.compile(wasm)


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


def test_every_trap_has_the_number_that_the_adapter_knows(engine: Engine, tmp_path: Path) -> None:
    lab = Lab(Bench(engine, tmp_path))
    division, remainder = b"\x6d", b"\x6f"
    traps = {
        "integer overflow": i32(-(1 << 31)) + i32(-1) + division + DROP,
        "integer division by zero": i32(1) + i32(0) + remainder + DROP,
        "invalid conversion to integer": b"\x44" + b"\xff" * 8 + b"\xaa\x1a",
        "memory access out of bounds": i32(-1) + b"\x28\x02\x00\x1a",
        "unreachable executed": b"\x00",
    }
    for says, code in traps.items():
        running = lab.start(plugin({"configure": code + NOTHING}))
        with pytest.raises(GuestFault, match=f"plugin_configure: {says}$"):
            running.call("configure")
    lab.close()


def test_a_table_larger_than_the_limit_is_a_fault(engine: Engine, tmp_path: Path) -> None:
    module = Assembly(1)
    module.function("I", i64(1), export="plugin_api_version")
    module.function("ii", i32(64), export="malloc")
    module.function("i-", b"", export="free")
    module.entries[4].append(b"\x70\x00\xc0\x9a\x0c")  # 200,000 functions
    with pytest.raises(GuestFault, match=r"instantiation: .*table"):
        Lab(Bench(engine, tmp_path)).start(module.build())


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
