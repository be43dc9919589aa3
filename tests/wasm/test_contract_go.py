"""Guests by the standard Go compiler on every engine; skipped where Go is not installed."""

import pytest

from edge_agent.errors import GuestError, GuestFault
from edge_agent.pb import nri_pb2
from edge_agent.wasm import abi
from edge_agent.wasm.guestlog import INFO, WARN
from tests.support.gobuild import go_annotator_module, go_runtime_module, require
from tests.wasm.lab import MIB, Lab, Running, capture

pytestmark = pytest.mark.system

CREATE = capture("create_container")


@pytest.fixture(scope="session")
def annotator() -> bytes:
    return require(go_annotator_module).read_bytes()


@pytest.fixture(scope="session")
def runtime() -> bytes:
    return require(go_runtime_module).read_bytes()


def done(lab: Lab, runtime: bytes, what: str) -> Running:
    running = lab.start(runtime)
    try:
        running.configure(what)
    finally:
        running.services.log.flush()
    return running


def test_a_plugin_on_upstreams_own_package_works_unmodified(lab: Lab, annotator: bytes) -> None:
    running = lab.start(annotator)
    running.configure("annotation owner=me\nenv A=b")
    for _ in range(50):
        raw = running.call("create_container", CREATE)
        adjust = nri_pb2.CreateContainerResponse.FromString(raw).adjust
        assert dict(adjust.annotations) == {"owner": "me"}
        assert [(one.key, one.value) for one in adjust.env] == [("A", "b")]
    assert running.lines == [(INFO, "adjusting container main")] * 50
    assert running.instance.memory_bytes <= 32 * MIB


def test_a_plugin_on_upstreams_own_package_exports_every_method(lab: Lab, annotator: bytes) -> None:
    running = lab.start(annotator)
    running.configure()
    _, info = lab.bench.module(annotator)
    for method in sorted(abi.methods(info) - {"plugin_configure"}):
        running.call(method.removeprefix("plugin_"), b"")


def test_two_instances_share_nothing_but_code(lab: Lab, annotator: bytes) -> None:
    first, second = lab.start(annotator), lab.start(annotator)
    first.configure("env WHO=first")
    second.configure("env WHO=second")
    for running, who in ((first, "first"), (second, "second"), (first, "first")):
        raw = running.call("create_container", CREATE)
        adjust = nri_pb2.CreateContainerResponse.FromString(raw).adjust
        assert adjust.env[0].value == who


def test_a_bad_configuration_is_the_plugins_own_error(lab: Lab, annotator: bytes) -> None:
    running = lab.start(annotator)
    with pytest.raises(GuestError, match=r"go-annotator: line 1: .* is neither annotation nor env"):
        running.configure("label a=b")
    running.configure("env A=b")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("sleep", [(INFO, "slept true")]),
        ("random", [(INFO, "random true")]),
        ("prime", [(INFO, "prime true")]),
        ("goroutines", [(INFO, "sum 4950")]),
        ("collect", [(INFO, "collected")]),
        ("files", [(INFO, "refused true true true true")]),
        ("environment", [(INFO, "environment 0 false 0")]),
        ("stderr", [(WARN, "to stderr"), (WARN, "by println")]),
        ("stdin", [(INFO, "stdin EOF")]),
        ("clock", [(INFO, "clock true true")]),
        ("sync", [(INFO, "sync true")]),
    ],
)
def test_gos_runtime_works(
    what: str, said: list[tuple[int, str]], lab: Lab, runtime: bytes
) -> None:
    running = done(lab, runtime, what)
    assert running.lines == said
    assert running.call("shutdown") == b""


@pytest.mark.parametrize(
    ("what", "kind", "says", "last_words"),
    [
        ("panic", "trap", "plugin_configure: ", "panic: on request"),
        ("nil", "trap", "plugin_configure: ", "nil pointer dereference"),
        ("exit", "trap", r"proc_exit\(5\)", ""),
        ("exit 0", "trap", r"proc_exit\(0\)", ""),
        ("memory", "trap", "plugin_configure: ", "out of memory"),
        ("recurse", "trap", "plugin_configure: ", ""),
        ("deadlock", "trap", "plugin_configure: ", "deadlock"),
        ("sleep long", "timeout", r"it would sleep for 3.6e\+03 s", ""),
    ],
)
def test_a_go_program_that_gives_up_is_a_fault_with_its_last_words_in_the_log(
    what: str, kind: str, says: str, last_words: str, lab: Lab, runtime: bytes
) -> None:
    running = lab.start(runtime)
    with pytest.raises(GuestFault, match=says) as caught:
        running.configure(what)
    assert caught.value.kind == kind
    running.services.log.flush()
    assert last_words in "\n".join(text for level, text in running.lines if level == WARN)
    with pytest.raises(GuestFault, match=says):
        running.call("shutdown")
    assert lab.start(runtime).call("shutdown") == b""
