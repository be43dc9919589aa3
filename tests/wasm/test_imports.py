import os
import subprocess
import sys

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edge_agent.wasm import wasi
from edge_agent.wasm.abi import METHOD
from edge_agent.wasm.guestlog import GuestLog
from edge_agent.wasm.imports import HostServices, PluginState

KEYS = st.text(min_size=0, max_size=4)


def services() -> HostServices:
    return HostServices(GuestLog(lambda *_: None, 10, 100), PluginState())


class StateMachine(RuleBasedStateMachine):
    """PluginState against a dict: the same content, within its limits."""

    def __init__(self) -> None:
        super().__init__()
        self.state = PluginState()
        self.model: dict[str, bytes] = {}

    @rule(key=KEYS, size=st.sampled_from([0, 1, 100, 20_000, 65_000, 65_536, 70_000]))
    def put(self, key: str, size: int) -> None:
        value = bytes(size)
        after = {**self.model, key: value}
        if not value:
            del after[key]
        fits = sum(len(k.encode()) + len(v) for k, v in after.items()) <= PluginState.MAX_BYTES
        assert self.state.put(key, value) == fits
        if fits:
            self.model = after

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        assert self.state.get(key) == self.model.get(key)

    @invariant()
    def all_is_there(self) -> None:
        for key, value in self.model.items():
            assert self.state.get(key) == value


TestPluginState = StateMachine.TestCase


def test_state_has_a_limit_of_keys_and_room_again_after_one_is_deleted() -> None:
    state = PluginState()
    for number in range(PluginState.MAX_KEYS):
        assert state.put(str(number), b"x")
    assert not state.put("one more", b"x")
    assert state.put("0", b"changed")
    assert state.put("0", b"")
    assert state.put("one more", b"x")
    assert state.get("0") is None


def test_a_guest_may_import_this_and_nothing_else() -> None:
    offered = services().functions()
    assert {name for where, name in offered if where == "env"} == {"log"}
    assert {name for where, name in offered if where == "edge"} == {
        "report",
        "update_containers",
        "state_get",
        "state_put",
    }
    assert {where for where, _ in offered} == {"env", "edge", wasi.MODULE}


def test_garbage_is_refused_by_protobufs_python_backend_too() -> None:
    # The one that boards without a wheel of protobuf use.
    check = """
from edge_agent.errors import GuestFault
from google.protobuf.internal import api_implementation
from tests.wasm.test_imports import services
assert api_implementation.Type() == "python"

class Guest:
    def __init__(self, content):
        self.content = content
    def read(self, pointer, size):
        return self.content[pointer:pointer + size]

text = b"\\x0a\\x02\\xff\\xfe"
for name in ("report", "state_get", "state_put", "update_containers"):
    for garbage in (text, b"\\x0a\\x04" + text, b"\\x0a\\x7f", b"\\xff" * 20):
        try:
            services().functions()["edge", name].call(Guest(garbage), 0, len(garbage))
        except GuestFault as fault:
            assert fault.kind == "abi", fault
"""
    environment = {**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
    done = subprocess.run(
        [sys.executable, "-c", check], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["report", "update_containers", "state_get", "state_put"])
def test_functions_of_edge_have_the_calling_convention_of_the_abi(name: str) -> None:
    assert services().functions()["edge", name].type == METHOD
