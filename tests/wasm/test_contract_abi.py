"""The guest ABI on every engine: what a call does, and what is no plugin at all."""

import random
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.errors import GuestError, GuestFault, ModuleError
from edge_agent.pb import nri_pb2
from edge_agent.wasm import abi
from edge_agent.wasm.engine import Bounds, HostFunction
from edge_agent.wasm.module import FuncType, inspect
from tests.support.assembler import (
    ADD,
    LOAD,
    STORE,
    UNREACHABLE,
    Assembly,
    call,
    get,
    i32,
    i64,
)
from tests.wasm.lab import GUESTS, ROOT, Lab, capture, guest
from tests.wasm.plugins import (
    ECHO,
    ERROR_BIT,
    MALLOCS,
    NOTHING,
    WASI,
    packed,
    plugin,
)

CREATE = capture("create_container")
COUNTERS = packed(i32(MALLOCS), i32(8))  # what malloc and free counted, as a reply
INITIALIZED = 32  # an address where a guest counts its initialisations
COUNT_INITIALIZATION = i32(INITIALIZED) + i32(INITIALIZED) + LOAD + i32(1) + ADD + STORE
EXIT = (WASI, "proc_exit", "i-")
SHIPPED = sorted([*GUESTS.rglob("*.wasm"), *(ROOT / "plugins").glob("*/*.wasm")])


def test_a_c_guest_adjusts_a_container_and_logs(lab: Lab) -> None:
    bench = lab.start(guest("bench"))
    bench.configure()
    reply = nri_pb2.CreateContainerResponse.FromString(bench.call("create_container", CREATE))
    assert dict(reply.adjust.annotations) == {"edge.bench/plugin": "c"}
    assert [(one.key, one.value) for one in reply.adjust.env] == [("EDGE_BENCH", "c")]
    assert bench.lines == [(2, "adjusted main")]


def test_a_guest_of_the_old_generation_takes_events_as_state_changes(lab: Lab) -> None:
    old = lab.start(guest("old-gen"))
    old.configure()
    exported = abi.methods(inspect(guest("old-gen")))
    assert "plugin_state_change" in exported
    assert "plugin_run_pod_sandbox" not in exported
    event = nri_pb2.StateChangeEvent(event=nri_pb2.START_CONTAINER)
    event.container.name = "main"
    assert old.call("state_change", event.SerializeToString()) == b""
    assert old.texts == ["event 6 pod  container main"]


@pytest.mark.parametrize("path", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_every_guest_that_is_checked_in_starts(path: Path, lab: Lab) -> None:
    if path.stem == "hostile-version":
        with pytest.raises(GuestFault, match="plugin_api_version is 2; this agent speaks 1"):
            lab.start(path.read_bytes())
    else:
        assert lab.start(path.read_bytes()).instance.memory_bytes >= 65536


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(request=st.binary(max_size=3000))
def test_a_request_reaches_the_guest_and_a_reply_the_host_unchanged(
    request: bytes, lab: Lab
) -> None:
    assert lab.start(plugin({"configure": ECHO})).call("configure", request) == request


def test_a_request_larger_than_the_memory_was_makes_it_grow(lab: Lab) -> None:
    running = lab.hostile("create_container:ok")
    before = running.instance.memory_bytes
    assert running.call("create_container", bytes(3 << 20)) == b""
    assert running.instance.memory_bytes > before + (2 << 20)
    # The host looks at the memory anew: its old view ended long before.
    assert running.call("create_container", CREATE) == b""


def test_a_method_that_the_guest_has_not_is_a_fault_that_finishes_nothing(lab: Lab) -> None:
    running = lab.start(plugin({"configure": ECHO}))
    with pytest.raises(GuestFault, match="the guest has no plugin_shutdown") as caught:
        running.call("shutdown")
    assert caught.value.kind == "abi"
    assert running.call("configure", b"x") == b"x"


def test_an_empty_request_is_no_malloc_and_a_null_pointer(lab: Lab) -> None:
    running = lab.start(
        plugin({"configure": i32(1024) + get(0) + STORE + COUNTERS, "shutdown": ECHO})
    )
    assert struct.unpack("<II", running.call("configure")) == (0, 0)
    assert running.call("shutdown") == b""


def test_a_call_frees_its_request_and_its_reply(lab: Lab) -> None:
    running = lab.start(plugin({"configure": ECHO, "shutdown": COUNTERS, "synchronize": NOTHING}))
    running.call("configure", b"request")
    # Configure: malloc once, free the reply and the request.
    assert struct.unpack("<II", running.call("shutdown")) == (1, 2)
    # Shutdown's reply lay at a pointer: freed. Synchronize has an empty reply: only the request.
    running.call("synchronize", b"request")
    assert struct.unpack("<II", running.call("shutdown")) == (2, 4)


@pytest.mark.parametrize("result", [i64(0), i64(7 << 32)], ids=["null", "a pointer without bytes"])
def test_an_empty_reply(result: bytes, lab: Lab) -> None:
    assert lab.start(plugin({"configure": result})).call("configure", b"x") == b""


def test_a_reply_at_address_zero_is_read(lab: Lab) -> None:
    data = {0: b"zero"}
    running = lab.start(plugin({"configure": packed(i32(0), i32(4))}, data=data))
    assert running.call("configure") == b"zero"


def test_a_reply_as_large_as_its_limit_is_taken_and_one_byte_more_is_not(lab: Lab) -> None:
    wasm = plugin({"configure": packed(i32(0), i32(1000)), "shutdown": packed(i32(0), i32(1001))})
    running = lab.start(wasm, reply_bytes=1000)
    assert running.call("configure") == bytes(1000)
    with pytest.raises(GuestFault, match="plugin_shutdown answered 1001 bytes; its limit is 1000"):
        running.call("shutdown")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"refused: \xc3\xa4", "refused: ä"),
        (b"bad \xff\xfe", "bad \ufffd\ufffd"),
        (b"", "the guest gave no reason"),
        (b"x" * 5000, "x" * abi.MAX_ERROR_TEXT_BYTES),
    ],
    ids=["utf-8", "not utf-8", "empty", "long"],
)
def test_an_error_reply_is_an_error_and_the_guest_lives_on(
    text: bytes, said: str, lab: Lab
) -> None:
    result = packed(i32(8192), i32(len(text) | ERROR_BIT))
    running = lab.start(plugin({"configure": result, "shutdown": ECHO}, data={8192: text}))
    for _ in range(2):
        with pytest.raises(GuestError) as caught:
            running.call("configure", b"x")
        assert str(caught.value) == said
    assert running.call("shutdown", b"alive") == b"alive"


@pytest.mark.parametrize("version", [0, 2, 1 << 32 | 1, -1])
def test_another_version_of_the_abi_is_refused(version: int, lab: Lab) -> None:
    unsigned = version & (1 << 64) - 1
    with pytest.raises(GuestFault, match=f"is {unsigned}; this agent speaks 1") as caught:
        lab.start(plugin({"configure": ECHO}, version=i64(version)))
    assert caught.value.kind == "abi"


# ---- initialisation ----


def initialised(**exports: bytes) -> bytes:
    """A guest with exports () -> (), whose Configure tells how often each kind ran."""
    return plugin(
        {"configure": packed(i32(INITIALIZED), i32(4))},
        imports=(EXIT,),
        extra={name: ("-", code) for name, code in exports.items()},
    )


@pytest.mark.parametrize(
    ("exports", "count"),
    [
        ({}, 0),
        ({"_initialize": COUNT_INITIALIZATION}, 1),
        ({"_start": COUNT_INITIALIZATION}, 1),
        ({"_start": COUNT_INITIALIZATION + i32(0) + call(0)}, 1),
        ({"_initialize": COUNT_INITIALIZATION, "_start": UNREACHABLE}, 1),
    ],
    ids=["none", "reactor", "command returns", "command exits with 0", "both: the reactor's"],
)
def test_a_guest_is_initialised_once(exports: dict[str, bytes], count: int, lab: Lab) -> None:
    running = lab.start(initialised(**exports))
    for _ in range(2):
        assert struct.unpack("<I", running.call("configure", b"x")) == (count,)


@pytest.mark.parametrize("export", ["_initialize", "_start"])
@pytest.mark.parametrize(
    ("code", "says"),
    [
        (i32(1) + call(0), r"the guest called proc_exit\(1\)"),
        (i32(-1) + call(0), r"proc_exit\(4294967295\)"),
        (UNREACHABLE, "unreachable"),
    ],
)
def test_a_guest_that_fails_to_initialise_does_not_start(
    export: str, code: bytes, says: str, lab: Lab
) -> None:
    with pytest.raises(GuestFault, match=f"^{export}: .*{says}") as caught:
        lab.start(initialised(**{export: code}))
    assert caught.value.kind == "trap"


def test_a_start_function_that_traps_is_told(lab: Lab) -> None:
    with pytest.raises(GuestFault, match="unreachable") as caught:
        lab.start(plugin({"configure": ECHO}, start=UNREACHABLE))
    assert caught.value.kind == "trap"


# ---- what is no plugin ----


def without(export: str, kind: str = "", code: bytes = b"") -> bytes:
    """A minimal plugin, one export of which is missing or of another type."""
    module = Assembly()
    exports = {
        "plugin_api_version": ("I", i64(1)),
        "malloc": ("ii", get(0)),
        "free": ("i-", b""),
        "plugin_configure": ("iiI", ECHO),
        "_initialize": ("-", b""),
        "_start": ("-", b""),
    }
    exports[export] = (kind, code)
    for name, (kind, code) in exports.items():
        if kind:
            module.function(kind, code, export=name)
    return module.build()


@pytest.mark.parametrize("export", ["plugin_api_version", "malloc", "free"])
def test_a_module_without_an_export_of_the_abi_is_refused(export: str, lab: Lab) -> None:
    with pytest.raises(ModuleError, match=rf"not an NRI plugin: the export {export} \(.*missing"):
        lab.start(without(export))


@pytest.mark.parametrize(
    ("export", "kind", "code", "says"),
    [
        ("plugin_api_version", "i", i32(1), r"\(\) -> \(i32\)"),
        ("malloc", "Ii", i32(1), r"\(i64\) -> \(i32\)"),
        ("free", "ii", i32(1), r"\(i32\) -> \(i32\)"),
        ("plugin_configure", "iii", i32(1), r"\(i32, i32\) -> \(i32\)"),
        ("plugin_configure", "iI", i64(1), r"\(i32\) -> \(i64\)"),
        ("plugin_configure", "iii-", b"", r"\(i32, i32, i32\) -> \(\)"),
        ("edge_on_timer", "ii-", b"", r"\(i32, i32\) -> \(\)"),
        ("_initialize", "i", i32(1), r"\(\) -> \(i32\)"),
        ("_start", "i-", b"", r"\(i32\) -> \(\)"),
    ],
)
def test_an_export_of_another_type_is_refused_with_both_types(
    export: str, kind: str, code: bytes, says: str, lab: Lab
) -> None:
    with pytest.raises(ModuleError, match=f"{export}.* has the type {says}") as caught:
        lab.start(without(export, kind, code))
    wanted = {**abi.REQUIRED, **abi.OPTIONAL}.get(export, abi.METHOD)
    assert str(wanted) in str(caught.value)


def test_a_module_that_does_not_export_its_memory_is_refused(lab: Lab) -> None:
    module = Assembly(None)
    module.function("I", i64(1), export="plugin_api_version")
    module.function("ii", get(0), export="malloc")
    module.function("i-", b"", export="free")
    with pytest.raises(ModuleError, match="the memory is not exported as 'memory'"):
        lab.start(module.build())


@pytest.mark.parametrize(
    ("imports", "says"),
    [
        ((("env", "exec", "iiI"),), r"env\.exec \(func\)"),
        ((("env", "log", "iii"),), r"env\.log of type .*\(i32\), not .*\(i64\)"),
        ((("edge", "report", "fF-"),), r"edge\.report of type \(f32, f64\) -> \(\)"),
        ((("wasi_unstable", "fd_write", "iiiii"),), r"wasi_unstable\.fd_write \(func\)"),
        (((WASI, "fd_write", "iiii"),), rf"{WASI}\.fd_write of type"),
        (tuple(("m", f"f{at}", "-") for at in range(12)), r"m\.f7 \(func\) and 4 more"),
        ((("\x1b[2J\n", "\u202e", "-"),), r"\\x1b\[2J\\n\.\\u202e"),
    ],
)
def test_imports_that_nobody_offers_are_named(
    imports: tuple[tuple[str, str, str], ...], says: str, lab: Lab
) -> None:
    with pytest.raises(ModuleError, match=f"does not offer: .*{says}.*docs/plugins.md"):
        lab.start(plugin({"configure": ECHO}, imports=imports))


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (b"\x02\x00\x01", "memory"),
        (b"\x01\x70\x00\x01", "table"),
        (b"\x03\x7f\x00", "global"),
    ],
)
def test_imports_of_another_kind_are_named(kind: bytes, word: str, lab: Lab) -> None:
    module = Assembly()
    if word == "memory":
        module = Assembly(None)
    module.imported_other("env", "thing", kind)
    with pytest.raises(ModuleError, match=rf"env\.thing \({word}\)"):
        lab.start(module.build())


def test_an_instance_is_not_made_without_the_functions_that_it_imports(lab: Lab) -> None:
    wasm = plugin({"configure": ECHO}, imports=(("env", "log", "iiI"),))
    module, _ = lab.bench.module(wasm)
    other = HostFunction(FuncType(("i32",), ()), lambda *_: None)
    for functions in ({}, {("env", "log"): other}):
        with pytest.raises(ModuleError, match=r"env\.log"):
            module.instantiate(Bounds(1 << 20, 1 << 20), functions, 5.0)


def test_bytes_that_are_no_valid_module_are_refused_by_the_compiler(lab: Lab) -> None:
    broken = plugin({"configure": ECHO + ADD})  # an operand is missing
    inspect(broken)
    with pytest.raises(ModuleError, match="not valid Wasm: "):
        lab.bench.engine.compile(broken)
    for wasm in (b"", b"\0asm", b"\0asm\1\0\0\0\x0a", random.Random(1).randbytes(1000)):
        with pytest.raises(ModuleError):
            lab.bench.engine.compile(wasm)
