"""Guests with random changes: whatever becomes of them, it is one of the errors there are."""

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.errors import GuestError, GuestFault, ModuleError
from edge_agent.wasm.module import inspect
from tests.wasm.lab import PATIENCE_S, Bench, Lab, capture, configure_request, guest

WASM = guest("old-gen")
CREATE = capture("create_container")
KINDS = {"trap", "timeout", "memory", "abi"}


def outcome(lab: Lab, wasm: bytes, start_s: float = 1.0, call_s: float = 0.05) -> str:
    """What became of a module, from reading it to a call of it."""
    try:
        inspect(wasm)
        running = lab.start(wasm, memory_bytes=4 << 20, deadline_s=start_s)
    except ModuleError:
        return "refused"
    except GuestFault as fault:
        return fault.kind
    try:
        for method, request in (
            ("configure", configure_request()),
            ("create_container", CREATE),
            ("state_change", b"\x08\x04"),
        ):
            try:
                running.call(method, request, call_s)
            except GuestError:
                pass
            except GuestFault as fault:
                return fault.kind
        return "lives"
    finally:
        running.instance.close()
        lab.forget(running)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_a_changed_guest_is_refused_fails_or_lives(
    data: st.DataObject, lab: Lab, tmp_path: Path
) -> None:
    wasm = bytearray(WASM)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(8, len(wasm) - 1))
        wasm[at] = data.draw(st.one_of(st.integers(0, 255), st.just(wasm[at] ^ 1)))
    scratch = Lab(Bench(lab.bench.engine, tmp_path))  # such modules are not kept
    assert outcome(scratch, bytes(wasm)) in {*KINDS, "refused", "lives"}
    # Nobody else noticed.
    assert outcome(lab, WASM, PATIENCE_S, PATIENCE_S) == "lives"
