"""A synchronised session: events to the guest, what never reaches it, and its own requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import wire
from edge_agent.errors import GuestFault, ProtocolError
from edge_agent.nri import events, session
from edge_agent.nri.events import BY_METHOD
from edge_agent.nri.session import Session, Updated
from edge_agent.pb import nri_pb2, ttrpc_pb2
from edge_agent.sim import upstream
from tests.support.runtimeside import EVERYTHING, RuntimeSide, exports

STATE_CHANGES = [event.method for event in events.EVENTS if event.in_state_change]
OWN_ONLY = [event.method for event in events.EVENTS if not event.in_state_change]
POD = nri_pb2.PodSandbox(id="p1", name="web")
CONTAINER = nri_pb2.Container(id="c1", name="app")


def serving(*methods: str, wanted: int = 0, extra_events: int = 0) -> RuntimeSide:
    """A synchronised session of a guest with these methods; without any: with all."""
    guest = exports(*methods) if methods else EVERYTHING
    return RuntimeSide(Session("10", "one", guest, "", extra_events)).start(wanted)


def change(method: str, **fields: object) -> nri_pb2.StateChangeEvent:
    event = nri_pb2.Event.Name(BY_METHOD[method].number)
    return nri_pb2.StateChangeEvent(event=event, **fields)  # type: ignore[arg-type]


# --- events that reach the guest


@pytest.mark.parametrize("method", list(BY_METHOD))
def test_an_event_reaches_the_guests_own_method_with_its_very_bytes(method: str) -> None:
    runtime = serving()
    call = runtime.call(method, b"any bytes \xff at all", timeout_nano=1_500_000_000)
    assert (call.event, call.export) == (method, events.EXPORTS[method])
    assert call.payload == b"any bytes \xff at all"
    assert call.timeout_s == 1.5


@given(st.binary(max_size=600))
def test_the_guests_reply_reaches_the_runtime_as_it_is(reply: bytes) -> None:
    runtime = serving()
    runtime.session.answer(runtime.call("CreateContainer", b"x"), reply)
    answer = runtime.answered()
    assert answer.payload == reply
    assert not answer.HasField("status")


@pytest.mark.parametrize("size", [1, 127, 128, 16383, 16384, 1 << 20, 2097152, 2097151])
def test_replies_of_every_length_are_what_protobuf_reads(size: int) -> None:
    runtime = serving()
    runtime.session.answer(runtime.call("CreateContainer"), bytes(size))
    assert runtime.answered().payload == bytes(size)


def test_answers_go_to_the_stream_that_asked() -> None:
    runtime = serving()
    first, second = runtime.call("RunPodSandbox"), runtime.call("CreateContainer")
    runtime.session.answer(second, b"2")
    runtime.session.answer(first, b"1")
    found = [
        (message.stream, ttrpc_pb2.Response.FromString(message.body).payload)
        for _, message in runtime.sent()
    ]
    assert found == [(second.stream, b"2"), (first.stream, b"1")]


def test_a_refusal_is_a_status_with_a_text_for_people() -> None:
    runtime = serving()
    runtime.session.refuse(runtime.call("CreateContainer"), wire.ABORTED, "plugin 10-one: no")
    status = runtime.answered().status
    assert (status.code, status.message) == (wire.ABORTED, "plugin 10-one: no")


def test_a_refusals_text_is_made_fit_for_protobuf() -> None:
    runtime = serving()
    runtime.session.refuse(runtime.call("CreateContainer"), wire.INTERNAL, "a\ud800b")
    assert runtime.answered().status.message == "a?b"


def test_a_refusals_text_is_bounded() -> None:
    runtime = serving()
    runtime.session.refuse(runtime.call("CreateContainer"), wire.INTERNAL, "x" * (5 << 20))
    assert runtime.answered().status.message == "x" * events.MAX_STATUS_TEXT


@pytest.mark.parametrize(
    ("nanoseconds", "seconds"),
    [(0, 2.0), (-1, 2.0), (-(1 << 63), 2.0), (1, 1e-9), (250_000_000, 0.25)],
)
def test_the_time_for_an_answer_is_the_runtimes_or_upstreams_default(
    nanoseconds: int, seconds: float
) -> None:
    assert serving().call("StopContainer", timeout_nano=nanoseconds).timeout_s == seconds


def test_the_largest_reply_fits_and_the_next_is_the_guests_fault() -> None:
    runtime = serving()
    runtime.session.answer(runtime.call("CreateContainer"), bytes(events.MAX_REPLY_BYTES))
    [(_, message)] = runtime.sent()
    assert len(message.body) == wire.MAX_MESSAGE_BYTES
    call = runtime.call("CreateContainer")
    with pytest.raises(GuestFault, match="its reply is 4194305 bytes with envelope"):
        runtime.session.answer(call, bytes(events.MAX_REPLY_BYTES + 1))
    assert runtime.sent() == []


# --- StateChange, both ways


@pytest.mark.parametrize("method", STATE_CHANGES)
def test_a_state_change_is_passed_on_to_a_guest_that_takes_it(method: str) -> None:
    runtime = serving("StateChange")
    request = change(method, pod=POD, container=CONTAINER)
    call = runtime.call("StateChange", request)
    assert (call.event, call.export) == (method, "plugin_state_change")
    assert call.payload == request.SerializeToString()


@pytest.mark.parametrize("method", STATE_CHANGES)
def test_a_state_change_becomes_the_own_method_of_a_guest_without(method: str) -> None:
    runtime = serving(method)
    with_container = "container" in getattr(nri_pb2, f"{method}Request").DESCRIPTOR.fields_by_name
    request = (
        change(method, pod=POD, container=CONTAINER) if with_container else change(method, pod=POD)
    )
    call = runtime.call("StateChange", request, timeout_nano=1_000_000_000)
    assert (call.event, call.export, call.timeout_s) == (method, events.EXPORTS[method], 1.0)
    wanted = getattr(nri_pb2, f"{method}Request")(pod=POD)
    if with_container:
        wanted.container.CopyFrom(CONTAINER)
    assert type(wanted).FromString(call.payload) == wanted
    runtime.session.answer(call, b"")
    assert runtime.answered() == ttrpc_pb2.Response()


def test_a_state_change_of_a_pod_event_with_a_container_is_translated_without_it() -> None:
    runtime = serving("RunPodSandbox")
    call = runtime.call("StateChange", change("RunPodSandbox", pod=POD, container=CONTAINER))
    assert nri_pb2.RunPodSandboxRequest.FromString(call.payload) == nri_pb2.RunPodSandboxRequest(
        pod=POD
    )


@pytest.mark.parametrize("method", STATE_CHANGES)
def test_an_own_method_that_the_guest_lacks_is_unimplemented_so_that_the_runtime_falls_back(
    method: str,
) -> None:
    runtime = serving("StateChange")
    assert runtime.ask(method) == []
    status = runtime.answered().status
    assert status.code == wire.UNIMPLEMENTED
    assert status.message == f"{method} is not implemented by 10-one"


@pytest.mark.parametrize("number", [0, 15, 99, *(BY_METHOD[method].number for method in OWN_ONLY)])
def test_a_state_change_of_no_such_event_is_answered_empty(number: int) -> None:
    runtime = serving()
    body = b"\x08" + bytes([number])
    assert runtime.ask("StateChange", body) == []
    assert runtime.answered() == ttrpc_pb2.Response()


@pytest.mark.parametrize(
    ("payload", "number"),
    [
        (b"\x08\x07", 7),
        (b"\x12\x00\x08\x07", 7),  # not the first field
        (b"\x08\x87\x00", 7),  # in more bytes than it needs
        (b"", 0),
        (b"\x12\x00", 0),
        (b"\x08\x80\x02", 256),
        (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", -1),
    ],
)
def test_the_event_of_a_state_change_is_what_protobuf_reads(payload: bytes, number: int) -> None:
    assert nri_pb2.StateChangeEvent.FromString(payload).event == number
    runtime = serving("StateChange")
    if number in events.BY_NUMBER:
        assert runtime.call("StateChange", payload).event == events.BY_NUMBER[number].method
    else:
        assert runtime.ask("StateChange", payload) == []
        assert runtime.answered() == ttrpc_pb2.Response()


@pytest.mark.parametrize("payload", [b"\x08", b"\x12\xff", b"\xff"])
def test_a_state_change_that_is_none_is_a_protocol_error(payload: bytes) -> None:
    with pytest.raises(ProtocolError, match="StateChange: bytes that are no StateChangeEvent"):
        serving().ask("StateChange", payload)


def test_a_state_change_that_cannot_be_translated_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="StateChange: bytes that are no StateChangeEvent"):
        serving("RunPodSandbox").ask("StateChange", b"\x08\x01\x12\xff")


# --- events that do not reach it


@pytest.mark.parametrize("method", list(BY_METHOD))
def test_an_event_outside_the_guests_mask_is_answered_empty(method: str) -> None:
    others = events.servable(EVERYTHING) & ~BY_METHOD[method].bit
    runtime = serving(wanted=others)
    assert runtime.ask(method, b"x") == []
    assert runtime.answered() == ttrpc_pb2.Response()
    if BY_METHOD[method].in_state_change:
        assert runtime.ask("StateChange", change(method)) == []
        assert runtime.answered() == ttrpc_pb2.Response()


@pytest.mark.parametrize("method", list(BY_METHOD))
def test_an_event_for_the_agents_own_sake_is_told_without_an_export(method: str) -> None:
    others = events.servable(EVERYTHING) & ~BY_METHOD[method].bit
    runtime = serving(wanted=others, extra_events=BY_METHOD[method].bit)
    called = [runtime.call(method, b"x")]
    if BY_METHOD[method].in_state_change:
        called.append(runtime.call("StateChange", change(method)))
    assert [(call.event, call.export) for call in called] == [(method, "")] * len(called)
    assert not runtime.sent()  # the host answers, or leaves


def test_an_event_before_configure_is_answered_empty() -> None:
    runtime = RuntimeSide(Session("10", "one", EVERYTHING, ""))
    runtime.sent()
    for method in ("CreateContainer", "StateChange"):
        assert runtime.ask(method, change("RunPodSandbox")) == []
        assert runtime.answered() == ttrpc_pb2.Response()


@pytest.mark.parametrize(
    ("service", "method"),
    [
        (events.PLUGIN_SERVICE, "Explode"),
        (events.PLUGIN_SERVICE, ""),
        (events.RUNTIME_SERVICE, "RegisterPlugin"),
        ("nri.pkg.api.v2.Plugin", "CreateContainer"),
        ("", "Configure"),
        ("x" * 100_000, "y" * 100_000),
    ],
)
def test_an_unknown_service_or_method_is_unimplemented(service: str, method: str) -> None:
    runtime = serving()
    assert runtime.ask(method, b"", service=service) == []
    status = runtime.answered().status
    assert status.code == wire.UNIMPLEMENTED
    assert status.message.startswith(f"{service}/{method}"[:256])
    assert len(status.message) < 400
    assert runtime.call("CreateContainer").event == "CreateContainer"  # it goes on


@pytest.mark.parametrize("body", [b"\xff", b"\x0a\x7f", b"\x0a\x02\xff\xfe", b"\x12\x01\x80"])
def test_a_request_without_form_is_a_protocol_error(body: bytes) -> None:
    runtime = serving()
    with pytest.raises(ProtocolError, match="ttRPC: bytes that are no Request"):
        runtime.receive(upstream.write(upstream.PLUGIN, 99, upstream.REQUEST, body))


# --- the session's own requests


def asked_for_updates(runtime: RuntimeSide, request: bytes = b"") -> int:
    """The stream of an UpdateContainers that the session sent."""
    assert runtime.session.update_containers(request)
    [(connection, message)] = runtime.sent()
    assert connection == upstream.RUNTIME
    body = ttrpc_pb2.Request.FromString(message.body)
    assert (body.service, body.method) == (events.RUNTIME_SERVICE, "UpdateContainers")
    assert body.payload == request
    return message.stream


def test_updates_are_asked_for_and_the_failed_ones_told() -> None:
    runtime = serving()
    request = nri_pb2.UpdateContainersRequest(update=[nri_pb2.ContainerUpdate(container_id="c")])
    stream = asked_for_updates(runtime, request.SerializeToString())
    assert stream == 3  # 1 was RegisterPlugin
    failed = nri_pb2.UpdateContainersResponse(failed=request.update)
    response = ttrpc_pb2.Response(payload=failed.SerializeToString())
    assert runtime.respond(stream, response) == [Updated(("c",), "")]


@pytest.mark.parametrize(("text", "told"), [("no", "no"), ("", "code 2"), ("x" * 9999, "x" * 512)])
def test_a_refused_update_is_told_with_its_reason(text: str, told: str) -> None:
    runtime = serving()
    response = ttrpc_pb2.Response(status=ttrpc_pb2.Status(code=2, message=text))
    assert runtime.respond(asked_for_updates(runtime), response) == [Updated((), told)]


def test_updates_may_be_answered_in_any_order() -> None:
    runtime = serving()
    streams = [asked_for_updates(runtime) for _ in range(3)]
    for stream in reversed(streams):
        assert runtime.respond(stream, b"") == [Updated((), "")]


def test_updates_that_the_runtime_does_not_answer_are_bounded() -> None:
    runtime = serving()
    runtime.respond(1, b"")
    streams = [asked_for_updates(runtime) for _ in range(session.MAX_UNANSWERED)]
    assert not runtime.session.update_containers(b"")
    assert runtime.sent() == []
    runtime.respond(streams[0], b"")
    asked_for_updates(runtime)


def test_an_update_that_no_message_can_carry_is_the_guests_fault() -> None:
    runtime = serving()
    with pytest.raises(GuestFault, match=r"its UpdateContainers is \d+ bytes with envelope"):
        runtime.session.update_containers(bytes(wire.MAX_MESSAGE_BYTES))
    assert runtime.sent() == []
    assert asked_for_updates(runtime) == 3


@pytest.mark.parametrize("stream", [3, 99])
def test_an_answer_to_what_was_never_asked_is_a_protocol_error(stream: int) -> None:
    with pytest.raises(ProtocolError, match=f"answers stream {stream}, never asked"):
        serving().respond(stream, b"")


def test_a_second_answer_to_one_request_is_a_protocol_error() -> None:
    runtime = serving()
    stream = asked_for_updates(runtime)
    runtime.respond(stream, b"")
    with pytest.raises(ProtocolError, match="never asked"):
        runtime.respond(stream, b"")


@pytest.mark.parametrize(
    "body", [b"\xff", b"\x12\x01\xff", b"\x0a\x06\x12\x04\xff\xff\xff\xff", b"\x12\x03\x0a\x01\xff"]
)
def test_an_answer_without_form_is_a_protocol_error(body: bytes) -> None:
    runtime = serving()
    stream = asked_for_updates(runtime)
    with pytest.raises(ProtocolError, match="UpdateContainers: bytes that are no"):
        runtime.respond(stream, body)


# --- the connections cannot be mixed up


def test_a_request_on_the_runtimes_connection_is_a_protocol_error() -> None:
    body = ttrpc_pb2.Request(service=events.PLUGIN_SERVICE, method="CreateContainer")
    data = upstream.write(upstream.RUNTIME, 1, upstream.REQUEST, body.SerializeToString())
    with pytest.raises(ProtocolError, match="the runtime service: message type 1, expected 2"):
        serving().receive(data)


def test_an_answer_on_the_plugins_connection_is_a_protocol_error() -> None:
    data = upstream.write(upstream.PLUGIN, 99, upstream.RESPONSE, b"")
    with pytest.raises(ProtocolError, match="the plugin service: message type 2, expected 1"):
        serving().receive(data)
