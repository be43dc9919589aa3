"""What is particular to the adapter of Wasmtime; the rest is in test_contract_*.py."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent.errors import EngineError, GuestFault, ModuleError
from edge_agent.wasm.engine import Bounds, Engine, HostFunction
from edge_agent.wasm.engines import wasmtime_capi as capi
from edge_agent.wasm.engines.wasmtime import WasmtimeEngine
from edge_agent.wasm.module import FuncType, inspect
from tests.support.assembler import ADD, FOREVER, LOAD, STORE, call, i32, repeat
from tests.support.costly import wasmtime
from tests.wasm.lab import MIB, ROOT, STACK_BYTES, Bench, Lab, guest
from tests.wasm.plugins import ECHO, NOTHING, plugin

PASSED = i32(64) + LOAD + i32(5) + b"\x49"  # fewer than 5 turns of a loop so far


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
from edge_agent.wasm.engine_selection import select_engine
from tests.wasm.lab import Bench, Lab, capture, guest
with tempfile.TemporaryDirectory() as folder:
    lab = Lab(Bench(select_engine("wasmtime")[0], Path(folder)))
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
from edge_agent.wasm.engine_selection import select_engine
from tests.wasm.lab import Bench, Lab, guest
with tempfile.TemporaryDirectory() as folder:
    lab = Lab(Bench(select_engine("wasmtime")[0], Path(folder)))
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
from edge_agent.wasm.engine_selection import select_engine
from tests.wasm.lab import Bench, Lab

when, rule = sys.argv[1:]
if when == "before":
    faulthandler.enable()
with tempfile.TemporaryDirectory() as folder:
    lab = Lab(Bench(select_engine("wasmtime")[0], Path(folder)))
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


class StillTicker:
    """A clock's thread that a busy machine lets wait: no tick comes but those of the test."""

    def enter(self, who: int, now: float, until: float) -> None:
        pass

    def leave(self, who: int) -> None:
        pass

    def within(self, _who: int) -> bool:
        return False


@pytest.fixture
def still(tmp_path: Path) -> Iterator[tuple[WasmtimeEngine, Lab]]:
    wasmtime()  # or skip
    engine = WasmtimeEngine()
    engine.ticker = StillTicker()  # type: ignore[assignment]
    lab = Lab(Bench(engine, tmp_path))
    yield engine, lab
    lab.close()


ASK = ("env", "ask", "i-")


def asked(ask: Callable[[], None]) -> dict[tuple[str, str], HostFunction]:
    return {("env", "ask"): HostFunction(FuncType(("i32",), ()), lambda _guest, _: ask())}


def test_one_late_tick_stops_who_is_late(still: tuple[WasmtimeEngine, Lab]) -> None:
    engine, lab = still
    running = lab.start(plugin({"configure": FOREVER + NOTHING}))
    began = time.monotonic()
    # After the deadline; one tick, however many should have come.
    late = threading.Timer(0.2, engine.tick)
    late.start()
    with pytest.raises(GuestFault) as caught:
        running.call("configure", deadline_s=0.1)
    late.join()
    assert caught.value.kind == "timeout"
    assert time.monotonic() - began >= 0.1


def test_ticks_that_come_all_at_once_stop_nobody(still: tuple[WasmtimeEngine, Lab]) -> None:
    engine, lab = still

    def hurry() -> None:
        for _ in range(1000):
            engine.tick()

    again = repeat(i32(0) + call(0) + i32(64) + i32(64) + LOAD + i32(1) + ADD + STORE + PASSED)
    wasm = plugin({"configure": again + NOTHING}, imports=(ASK,))
    assert lab.start(wasm, extra=asked(hurry)).call("configure") == b""


def test_host_calls_stop_who_is_late_without_any_tick(still: tuple[WasmtimeEngine, Lab]) -> None:
    _, lab = still
    calls = 0

    def ask() -> None:
        nonlocal calls
        calls += 1
        time.sleep(0.01)

    wasm = plugin(
        {"configure": b"\x03\x40" + i32(0) + call(0) + b"\x0c\x00\x0b" + NOTHING}, imports=(ASK,)
    )
    with pytest.raises(GuestFault, match=r"plugin_configure: stopped after 0\.1 s") as caught:
        lab.start(wasm, extra=asked(ask)).call("configure", deadline_s=0.1)
    assert caught.value.kind == "timeout"
    assert calls <= 11
