"""What is particular to Wasmer, its adapter and binding; the rest is in test_contract_*.py."""

import subprocess
import sys
import threading
import time
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
    DROP,
    LOAD,
    MEMORY_GROW,
    STORE,
    Assembly,
    call,
    get,
    i32,
    i64,
    repeat,
)
from tests.wasm.lab import MIB, ROOT, STACK_BYTES, Bench, Lab, guest
from tests.wasm.plugins import ECHO, NOTHING, packed, plugin


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


def test_a_memory_that_moves_is_found_again(tmp_path: Path) -> None:
    lab = Lab(Bench(wasmer(False), tmp_path))
    grown = i32(2048) + i32(0x64636261) + STORE + i32(400) + MEMORY_GROW + DROP
    running = lab.start(
        plugin({"configure": grown + packed(i32(2048), i32(4))}), memory_bytes=256 * MIB
    )
    for _ in range(8):
        assert running.call("configure", b"request") == b"abcd"
    assert running.instance.memory_bytes > 190 * MIB
    lab.close()


# ---- what is refused ----


@pytest.mark.parametrize(
    "feature",
    [
        b"\x60\x00\x01\x64\x70",  # a typed reference, of a later proposal
        b"\x5f\x00",  # a struct, of the collector's
    ],
)
def test_proposals_that_the_reader_does_not_know_are_refused_by_both(
    feature: bytes, engine: WasmerEngine
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
    limits: bytes, engine: WasmerEngine
) -> None:
    wasm = b"\0asm\1\0\0\0\x05" + bytes([len(limits) + 1]) + b"\x01" + limits
    with pytest.raises(ModuleError):
        inspect(wasm)
    with pytest.raises(ModuleError):
        engine.compile(wasm)


def with_tables(*tables: bytes) -> bytes:
    module = Assembly(1)
    module.function("I", i64(1), export="plugin_api_version")
    module.function("ii", i32(64), export="malloc")
    module.function("i-", b"", export="free")
    module.entries[4].extend(tables)
    return module.build()


def test_a_table_larger_than_the_limit_is_a_fault(lab: Lab) -> None:
    with pytest.raises(GuestFault, match=r"instantiation: .*table"):
        lab.start(with_tables(b"\x70\x00\xc0\x9a\x0c"))  # 200,000 functions


def test_more_tables_than_a_plugin_may_have_are_refused(engine: WasmerEngine) -> None:
    engine.compile(with_tables(*[b"\x70\x00\x01"] * 4))
    with pytest.raises(ModuleError, match="5 tables; a plugin may have 4"):
        engine.compile(with_tables(*[b"\x70\x00\x01"] * 5))


def test_every_trap_is_named_as_on_the_other_engines(lab: Lab) -> None:
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


# ---- time ----

WAIT = ("env", "wait", "i-")
# Of a block of 64 KiB, which is filled and moved again and again.
FILL = i32(8192) + i32(0) + i32(1 << 16) + b"\xfc\x0b\x00"
COPY = i32(8192) + i32(9000) + i32(1 << 16) + b"\xfc\x0a\x00\x00"
STRAIGHT = (i32(64) + i32(64) + LOAD + i32(3) + ADD + STORE) * 5_000


@pytest.mark.parametrize(
    "work",
    [b"", FILL, COPY, STRAIGHT, i32(0) + MEMORY_GROW + DROP],
    ids=["nothing", "fill", "copy", "straight code", "grow"],
)
def test_an_endless_loop_is_stopped_whatever_it_does(work: bytes, lab: Lab) -> None:
    running = lab.start(plugin({"configure": b"\x03\x40" + work + b"\x0c\x00\x0b" + NOTHING}))
    began = time.monotonic()
    with pytest.raises(GuestFault) as caught:
        running.call("configure", deadline_s=0.2)
    assert caught.value.kind == "timeout"
    # The port's 50 ms are for an idle machine: here only that it is no multiple.
    assert time.monotonic() - began < 10


def test_recursion_without_a_loop_is_stopped(lab: Lab) -> None:
    # Twice each: 2 ** 40 calls, but never deeper than 40.
    module = Assembly(4)
    twice = get(0) + i32(1) + ADD + get(1) + call(0) + DROP
    body = get(0) + i32(40) + b"\x49\x04\x40" + twice + twice + b"\x0b" + i64(0)
    module.function("iiI", body, export="plugin_configure")
    module.function("ii", i32(1024), export="malloc")
    module.function("i-", b"", export="free")
    module.function("I", i64(1), export="plugin_api_version")
    with pytest.raises(GuestFault) as caught:
        lab.start(module.build()).call("configure", deadline_s=0.2)
    assert caught.value.kind == "timeout"


def test_other_threads_run_while_a_guest_does(lab: Lab) -> None:
    running = lab.start(plugin({"configure": b"\x03\x40\x0c\x00\x0b" + NOTHING}))
    turns = 0
    done = threading.Event()

    def count() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    before = turns
    with pytest.raises(GuestFault):
        running.call("configure", deadline_s=0.5)
    assert turns - before > 5
    done.set()
    thread.join()


def test_the_malloc_of_a_reply_lets_other_threads_run_and_ends_in_time(lab: Lab) -> None:
    forever = b"\x03\x40\x0c\x00\x0b"
    wasm = plugin(
        {"configure": i32(0) + i32(0) + call(0)},
        imports=(("env", "answer", "iiI"),),
        malloc=get(0) + i32(77) + b"\x46\x04\x40" + forever + b"\x0b",  # for 77 bytes: for ever
    )

    def answer(guest: Guest, _first: int, _second: int) -> int:
        guest.allocate(77)
        raise AssertionError("it came back")

    extra = {("env", "answer"): HostFunction(FuncType(("i32", "i32"), ("i64",)), answer)}
    running = lab.start(wasm, extra=extra)
    with pytest.raises(GuestFault, match=r"malloc: stopped after 0\.2 s") as caught:
        running.call("configure", deadline_s=0.2)
    assert caught.value.kind == "timeout"


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


def test_counting_loops_end_where_they_should(lab: Lab) -> None:
    # Across many refills: what the meter adds changes no result.
    count = i32(64) + i32(64) + LOAD + i32(1) + ADD + STORE
    more = i32(64) + LOAD + i32(3_000_000) + b"\x49"
    running = lab.start(plugin({"configure": repeat(count + more) + packed(i32(64), i32(4))}))
    assert int.from_bytes(running.call("configure"), "little") == 3_000_000


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
