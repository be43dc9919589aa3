"""What holds for every module that is checked in, and for every plugin on any input.

That they are what the sources build is looked after by scripts/check.
"""

import re
from pathlib import Path

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from wasmtime import FuncType, ValType

from edge_agent.pb import nri_pb2

from .guest import GUESTS, PLUGINS, Guest, GuestError, capture, module, plugin
from .messages import messages, told

NAMES = ["device-injector", "event-logger", "image-policy", "resource-guard", "rules", "validator"]
MODULES = sorted([*GUESTS.glob("*.wasm"), *map(plugin, NAMES)])
REPORTING = {"event-logger", "rules"}  # they need more than any NRI host has
LARGEST = 64 << 10  # bytes; scripts/build-plugins refuses more
SMALLEST_MEMORY = 64 << 10  # one page: what each further plugin costs a board at rest
HOST_FUNCTIONS = {
    *{"env.log", "edge.report", "edge.update_containers"},
    *{"edge.state_get", "edge.state_put"},
}
EVENT_BITS = {
    name.lower(): 1 << number - 1
    for name, number in nri_pb2.Event.items()
    if nri_pb2.UNKNOWN < number < nri_pb2.LAST
}
REQUESTS: dict[str, type[Message]] = {
    "configure": nri_pb2.ConfigureRequest,
    "synchronize": nri_pb2.SynchronizeRequest,
    "shutdown": nri_pb2.Empty,
    "create_container": nri_pb2.CreateContainerRequest,
    "update_container": nri_pb2.UpdateContainerRequest,
    "validate_container_adjustment": nri_pb2.ValidateContainerAdjustmentRequest,
    "state_change": nri_pb2.StateChangeEvent,
}


def conf(name: str) -> str:
    return (PLUGINS / name / f"{name}.conf").read_text()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_is_small_and_imports_host_functions_only(path: Path) -> None:
    compiled = module(path)
    assert path.stat().st_size < LARGEST
    wanted = FuncType([ValType.i32(), ValType.i32()], [ValType.i64()])
    for needed in compiled.imports:
        assert f"{needed.module}.{needed.name}" in HOST_FUNCTIONS
        assert isinstance(needed.type, FuncType)
        assert str(needed.type.params) == str(wanted.params)


@pytest.mark.parametrize("name", NAMES)
def test_a_plugin_subscribes_exactly_to_what_it_exports(name: str) -> None:
    guest = Guest(plugin(name))
    exported = sum(EVENT_BITS[method] for method in guest.methods if method in EVENT_BITS)
    mask = guest.configure(conf(name))
    if name == "rules":  # what its rules are about
        assert exported == (1 << 14) - 1
        assert mask == EVENT_BITS["create_container"] | EVENT_BITS["update_container"]
    else:
        assert mask == exported
    assert guest.memory_size() == SMALLEST_MEMORY


def test_only_what_reports_needs_more_than_any_nri_host_has() -> None:
    needs = {
        name: {f"{needed.module}.{needed.name}" for needed in module(plugin(name)).imports}
        for name in NAMES
    }
    for name in REPORTING:
        assert needs.pop(name) == {"env.log", "edge.report"}
    assert set(map(frozenset, needs.values())) == {frozenset({"env.log"})}


@pytest.mark.parametrize("name", NAMES)
def test_a_plugin_can_be_configured_again(name: str) -> None:
    guest = Guest(plugin(name))
    first = guest.configure(conf(name))
    for _ in range(20):
        with pytest.raises(GuestError, match=r"line 1(, column [12])?: "):
            guest.configure("[?")
        assert guest.configure(conf(name)) == first
    assert guest.memory_size() == SMALLEST_MEMORY


# Shared by the examples: whatever they do must leave a plugin in order.
CONFIGURED = {name: Guest(plugin(name)) for name in NAMES}
for _name, _guest in CONFIGURED.items():
    _guest.configure("*" if _name == "image-policy" else conf(_name))  # it would refuse


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_a_plugin_answers_any_message(name: str, data: st.DataObject) -> None:
    guest = CONFIGURED[name]
    method = data.draw(st.sampled_from(sorted(guest.methods & REQUESTS.keys() - {"configure"})))
    request = data.draw(messages(REQUESTS[method]))
    assert not told(guest, method, request.SerializeToString())


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_a_plugin_survives_any_bytes(name: str, data: st.DataObject) -> None:
    guest = CONFIGURED[name]
    method = data.draw(st.sampled_from(sorted(guest.methods - {"configure"})))
    whole = bytearray(capture("create_container"))
    for at, byte in data.draw(st.lists(st.tuples(st.integers(0, 2843), st.integers(0, 255)))):
        whole[at] = byte
    end = data.draw(st.integers(0, 2844) | st.just(2844))
    for request in (bytes(whole[:end]), data.draw(st.binary(max_size=40))):
        assert told(guest, method, request) in ("", "malformed message")


@pytest.mark.parametrize("name", NAMES)
def test_a_plugin_refuses_a_cut_request(name: str) -> None:
    guest = CONFIGURED[name]
    for method in sorted(guest.methods - {"configure", "shutdown"}):
        with pytest.raises(GuestError, match="malformed message"):
            guest.call(method, capture("create_container")[:-1])


@pytest.mark.parametrize("name", NAMES)
@given(text=st.text("deny allow mount[label x=]memory.default=1Mi\n#*:'", max_size=80))
def test_a_plugin_takes_or_refuses_any_configuration(name: str, text: str) -> None:
    request = nri_pb2.ConfigureRequest(config=text).SerializeToString()
    error = told(Guest(plugin(name)), "configure", request)
    assert not error or re.match(r"line \d+(, column \d+)?: ", error)
