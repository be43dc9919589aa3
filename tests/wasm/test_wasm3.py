"""What is wasm3's own, beyond the contract suite: its artifacts, its stack, its clock."""

import importlib.metadata
import importlib.util
import resource
import struct
import time
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from edge_agent.errors import EngineError, GuestFault, ModuleError
from edge_agent.wasm.engine import Guest, HostFunction
from edge_agent.wasm.engines import wasm3_capi as capi
from edge_agent.wasm.engines.wasm3 import Wasm3Engine
from edge_agent.wasm.engines.wasm3_instance import Wasm3Instance
from edge_agent.wasm.module import FuncType, inspect
from tests.support import engines
from tests.support.assembler import (
    ADD,
    FOREVER,
    MEMORY_GROW,
    MEMORY_SIZE,
    STORE,
    Assembly,
    call,
    get,
    i32,
    i64,
    name,
    repeat,
    unsigned,
)
from tests.wasm.lab import GUESTS, MIB, Bench, Lab, guest
from tests.wasm.plugins import ECHO, NOTHING, packed, plugin

LARGEST_STACK = 4 * MIB  # that can be configured
GRAB = ("env", "grab", "ii")
DROP = b"\x1a"


@pytest.fixture(scope="module")
def engine() -> Wasm3Engine:
    made = engines.make("wasm3")
    if isinstance(made, str):
        pytest.skip(made)
    assert isinstance(made, Wasm3Engine)
    return made


@pytest.fixture(scope="module")
def bench(engine: Wasm3Engine, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(engine, tmp_path_factory.mktemp("wasm3"))


# ---- artifacts ----


def test_an_artifact_is_the_module_with_its_limits(engine: Wasm3Engine, tmp_path: Path) -> None:
    wasm = guest("bench")
    artifact = tmp_path / "artifact"
    artifact.write_bytes(engine.compile(wasm))
    assert engine.compile(wasm) == artifact.read_bytes()  # nothing of the time or the machine
    engine.load(artifact, inspect(wasm), 512 << 10).close()
    assert (engine.name, engine.version) == ("wasm3", "0.5.0")
    assert engine.settings()


@pytest.mark.parametrize("content", [b"", b"\0asm\1\0\0\0", bytes(100), b"edge-agent wasm3 1\n"])
def test_what_is_no_artifact_is_refused(
    content: bytes, engine: Wasm3Engine, tmp_path: Path
) -> None:
    path = tmp_path / "artifact"
    path.write_bytes(content)
    with pytest.raises(EngineError, match=str(path)):
        engine.load(path, inspect(guest("bench")), 512 << 10)
    with pytest.raises(EngineError, match="cannot be mapped"):
        engine.load(tmp_path / "missing", inspect(guest("bench")), 512 << 10)


def test_an_artifact_of_another_module_is_refused(engine: Wasm3Engine, tmp_path: Path) -> None:
    path = tmp_path / "artifact"
    path.write_bytes(engine.compile(guest("edge")))
    with pytest.raises(EngineError, match="was made of another module"):
        engine.load(path, inspect(guest("bench")), 512 << 10)


def test_what_wasm3_itself_cannot_take_is_refused_by_the_compiler(engine: Wasm3Engine) -> None:
    module = Assembly()
    module.function("iI", i64(0), local_types=b"\x01\xd0\x0f\x7e", export="run")  # 2000 of i64
    with pytest.raises(ModuleError, match=r"the engine wasm3 cannot take this module: .* stack"):
        engine.compile(module.build())


# ---- memory ----

GROW_FULLY = repeat(i32(1) + MEMORY_GROW + i32(-1) + b"\x47")
PAGES = i32(64) + MEMORY_SIZE + STORE + packed(i32(64), i32(4))


def limited(limits: bytes) -> bytes:
    module = plugin({"configure": GROW_FULLY + PAGES})
    assert module.count(b"\x05\x03\x01\x00\x04") == 1  # the section of memories
    return module.replace(
        b"\x05\x03\x01\x00\x04", b"\x05" + unsigned(len(limits) + 1) + b"\x01" + limits
    )


def test_the_lower_of_two_limits_of_memory_holds_for_each_instance(bench: Bench) -> None:
    lab, wasm = Lab(bench), limited(b"\x01\x04\x06")
    try:
        for limit, pages in ((32 * MIB, 6), (5 << 16, 5), (6 << 16, 6), (4 << 16, 4)):
            running = lab.start(wasm, memory_bytes=limit)
            assert struct.unpack("<I", running.call("configure")) == (pages,)
            assert running.instance.memory_bytes == pages << 16
    finally:
        lab.close()


def test_a_memory_that_may_never_have_a_page_is_refused(bench: Bench) -> None:
    # To wasm3 a maximum of 0 is none.
    lab = Lab(bench)
    with pytest.raises(ModuleError, match="less than a page"):
        lab.start(limited(b"\x01\x00\x00"))


# ---- the stack ----


def recursive(body: bytes, *, table: bool = False) -> bytes:
    module = Assembly(4)
    module.imported(*GRAB)
    module.function("iiI", body, export="plugin_configure")
    module.function("ii", i32(1024), export="malloc")
    module.function("i-", b"", export="free")
    module.function("I", i64(1), export="plugin_api_version")
    if table:
        module.entries[4].append(b"\x70\0\x01")
        module.entries[9].append(b"\0" + i32(0) + b"\x0b\x01\x01")
    return module.build()


AGAIN = get(0) + get(1) + call(1)
LOOPS = 150
RECURSIONS = {
    "plain": recursive(AGAIN),
    "in a condition": recursive(i32(1) + b"\x04\x7e" + AGAIN + b"\x05" + i64(0) + b"\x0b"),
    "in loops": recursive(b"\x03\x40" * LOOPS + AGAIN + DROP + b"\x0b" * LOOPS + i64(0)),
    "in blocks": recursive(b"\x02\x40" * 1900 + AGAIN + DROP + b"\x0b" * 1900 + i64(0)),
    "by a table": recursive(get(0) + get(1) + i32(0) + b"\x11\x01\x00", table=True),
    "with host calls": recursive(i32(0) + call(0) + DROP + AGAIN),
}


def nothing(_guest: Guest, _size: int) -> int:
    return 0


@pytest.mark.parametrize("wasm", RECURSIONS.values(), ids=RECURSIONS)
def test_the_largest_stack_overflows_in_the_guest_and_not_in_the_agent(
    wasm: bytes, bench: Bench
) -> None:
    # An interpreter in C: each call takes of the thread's own stack too.
    lab = Lab(bench)
    extra = {GRAB[:2]: HostFunction(FuncType(("i32",), ("i32",)), nothing)}
    try:
        running = lab.start(wasm, stack_bytes=LARGEST_STACK, extra=extra)
        with pytest.raises(GuestFault, match="call stack exhausted") as caught:
            running.call("configure")
        assert caught.value.kind == "trap"
    finally:
        lab.close()


def test_a_stack_that_this_process_cannot_hold_is_refused(
    engine: Wasm3Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "artifact"
    path.write_bytes(engine.compile(guest("bench")))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (4 * MIB, 8 * MIB))
    engine.load(path, inspect(guest("bench")), MIB).close()
    with pytest.raises(EngineError, match="raise that"):
        engine.load(path, inspect(guest("bench")), LARGEST_STACK)


# ---- calls out of host functions ----


def grabbing(depth: int, malloc: bytes) -> bytes:
    """Configure calls itself `depth` times and then a host function, which allocates: its
    malloc is this code."""
    stop = get(1) + i32(depth) + b"\x4f"  # i32.ge_u
    deeper = get(0) + get(1) + i32(1) + ADD + call(1)
    grab = packed(i32(100) + call(0), i32(4))
    module = Assembly(4)
    module.imported(*GRAB)
    module.function(
        "iiI", stop + b"\x04\x7e" + grab + b"\x05" + deeper + b"\x0b", export="plugin_configure"
    )
    module.function("ii", malloc, export="malloc")
    module.function("i-", b"", export="free")
    module.function("I", i64(1), export="plugin_api_version")
    module.function("ii", get(0) + call(5))  # recursion without an end
    return module.build()


def grab(guest: Guest, size: int) -> int:
    pointer = guest.allocate(size)
    guest.write(pointer, b"held" * (size // 4))
    return pointer


EXTRA = {GRAB[:2]: HostFunction(FuncType(("i32",), ("i32",)), grab)}
GROWING = i32(16) + MEMORY_GROW + DROP


@pytest.mark.parametrize("depth", [0, 1, 100, 1500])
def test_malloc_out_of_a_host_function_leaves_what_called_it_alone(
    depth: int, bench: Bench
) -> None:
    lab = Lab(bench)
    try:
        running = lab.start(grabbing(depth, GROWING + i32(70_000)), extra=EXTRA)
        for _ in range(3):
            assert running.call("configure") == b"held"
    finally:
        lab.close()


@pytest.mark.parametrize("depth", [0, 100, 1500])
def test_malloc_out_of_a_host_function_has_the_stack_that_is_left(depth: int, bench: Bench) -> None:
    # wasm3 takes where a host function was called for the beginning of the whole stack when
    # the memory grows: what lies behind its end would be written over.
    lab = Lab(bench)
    try:
        for _ in range(5):
            running = lab.start(grabbing(depth, GROWING + get(0) + call(5)), extra=EXTRA)
            with pytest.raises(GuestFault, match="malloc: call stack exhausted"):
                running.call("configure")
            running.instance.close()
        echo = lab.start(plugin({"configure": ECHO}))
        assert echo.call("configure", bytes(1000)) == bytes(1000)
    finally:
        lab.close()


def test_host_functions_call_each_other_through_malloc(bench: Bench) -> None:
    # configure -> grab -> malloc -> note, which needs no malloc; then all of them return.
    seen: list[int] = []
    module = Assembly(4)
    module.imported(*GRAB)
    module.imported("env", "note", "ii")
    module.function("iiI", packed(i32(100) + call(0), i32(4)), export="plugin_configure")
    module.function("ii", get(0) + call(1) + DROP + i32(2048), export="malloc")
    module.function("i-", b"", export="free")
    module.function("I", i64(1), export="plugin_api_version")

    def note(_guest: Guest, size: int) -> int:
        seen.append(size)
        return 0

    extra = {**EXTRA, ("env", "note"): HostFunction(FuncType(("i32",), ("i32",)), note)}
    lab = Lab(bench)
    try:
        running = lab.start(module.build(), extra=extra)
        assert running.call("configure", b"x") == b"held"
        assert seen == [1, 100]
    finally:
        lab.close()


def test_an_export_that_is_an_import_is_called(bench: Bench) -> None:
    module = Assembly(4)
    module.imported("env", "log", "iiI")
    module.entries[7].append(name("plugin_configure") + b"\0\0")
    module.function("ii", i32(1024), export="malloc")
    module.function("i-", b"", export="free")
    module.function("I", i64(1), export="plugin_api_version")
    lab = Lab(bench)
    try:
        running = lab.start(module.build())
        assert running.configure() == b""
        assert len(running.lines) == 1
    finally:
        lab.close()


# ---- the clock ----


def test_a_call_that_ends_as_its_time_does_is_not_held_against_the_next(bench: Bench) -> None:
    def late(guest: Guest, _size: int) -> int:
        assert isinstance(guest, Wasm3Instance)
        guest.tick(time.monotonic() + 1e6)  # as from the clock's thread, at the last moment
        return 0

    extra = {GRAB[:2]: HostFunction(FuncType(("i32",), ("i32",)), late)}
    ends = plugin({"configure": i32(0) + call(0) + DROP + ECHO}, imports=(GRAB,))
    goes_on = plugin({"configure": i32(0) + call(0) + DROP + FOREVER + NOTHING}, imports=(GRAB,))
    lab = Lab(bench)
    try:
        # Without a request: malloc and free would notice.
        running = lab.start(ends, extra=extra)
        for _ in range(3):
            assert running.call("configure") == b""
        with pytest.raises(GuestFault, match="stopped after 60 s") as caught:
            lab.start(goes_on, extra=extra).call("configure")
        assert caught.value.kind == "timeout"
    finally:
        lab.close()


# ---- the library ----


def test_a_library_that_is_not_installed_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EngineError, match=r"pip install pywasm3==0\.5\.0, which needs a C comp"):
        Wasm3Engine()


@pytest.mark.parametrize(
    ("package", "origin", "distribution"),
    [
        ("wasm3", "wasm3.so", "pywasm3"),
        ("edge_agent_wasm3", "edge_agent_wasm3/__init__.py", "edge_agent_wasm3"),
    ],
)
def test_another_version_of_the_library_is_refused(
    package: str, origin: str, distribution: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = ModuleSpec(package, None, origin=str(tmp_path / origin))
    monkeypatch.setattr(importlib.util, "find_spec", {package: spec}.get)
    monkeypatch.setattr(importlib.metadata, "version", {distribution: "0.4.9"}.__getitem__)
    with pytest.raises(
        EngineError, match=rf"{distribution} 0\.4\.9 is installed; .* needs 0\.5\.0"
    ):
        Wasm3Engine()


def test_the_library_made_for_the_agent_goes_before_that_of_pywasm3(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "edge_agent_wasm3-0.5.0.dist-info").mkdir()
    (tmp_path / "pywasm3-0.5.0.dist-info").mkdir()
    origins = {"wasm3": "wasm3.so", "edge_agent_wasm3": "edge_agent_wasm3/__init__.py"}
    specs = {
        name: ModuleSpec(name, None, origin=str(tmp_path / origin))
        for name, origin in origins.items()
    }
    monkeypatch.setattr(importlib.util, "find_spec", specs.get)
    assert capi.find() == tmp_path / "edge_agent_wasm3" / "libwasm3.so"
    del specs["edge_agent_wasm3"]
    assert capi.find() == tmp_path / "wasm3.so"


def test_a_file_that_is_no_library_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library = tmp_path / "wasm3.so"
    library.write_bytes((GUESTS / "bench.wasm").read_bytes())
    monkeypatch.setattr(capi, "find", lambda: library)
    with pytest.raises(EngineError, match=r"wasm3's library .* cannot be used"):
        Wasm3Engine()
