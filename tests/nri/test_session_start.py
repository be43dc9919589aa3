"""A session from registering to being synchronised."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import wire
from edge_agent.errors import GuestFault, ProtocolError
from edge_agent.nri import events, session
from edge_agent.nri.events import (
    BY_METHOD,
    NEW_EVENTS,
    OLD_EVENTS,
    forgives_lost_validators,
    known_events,
)
from edge_agent.nri.session import Call, Refused, Session, State
from edge_agent.pb import nri_pb2, ttrpc_pb2
from edge_agent.sim import upstream
from tests.support.runtimeside import EVERYTHING, NEW, RuntimeSide, exports


def a_session(
    guest: frozenset[str] = EVERYTHING, config: str = "", extra_events: int = 0
) -> Session:
    return Session("10", "one", guest, config, extra_events)


def mask(*methods: str) -> int:
    return sum(BY_METHOD[method].bit for method in methods)


# --- registering


def test_it_registers_at_once_as_the_first_message() -> None:
    runtime = RuntimeSide(a_session())
    [(connection, message)] = runtime.sent()
    assert connection == upstream.RUNTIME
    assert (message.stream, message.type) == (1, upstream.REQUEST)
    request = ttrpc_pb2.Request.FromString(message.body)
    assert (request.service, request.method) == (events.RUNTIME_SERVICE, "RegisterPlugin")
    said = nri_pb2.RegisterPluginRequest.FromString(request.payload)
    assert (said.plugin_idx, said.plugin_name, said.NRI_version) == ("10", "one", "v0.12.0")
    assert runtime.session.state is State.REGISTERED


def test_registering_is_acknowledged_in_silence() -> None:
    runtime = RuntimeSide(a_session())
    runtime.sent()
    assert runtime.respond(1, b"") == []
    assert runtime.sent() == []


def test_a_refused_registration_says_so_in_the_runtimes_words() -> None:
    runtime = RuntimeSide(a_session())
    status = ttrpc_pb2.Status(code=3, message="no such plugin here")
    with pytest.raises(Refused, match="the runtime refuses 10-one: no such plugin here"):
        runtime.respond(1, ttrpc_pb2.Response(status=status))


# --- Configure


def test_configure_gives_the_guest_its_own_configuration() -> None:
    runtime = RuntimeSide(a_session(config="mine = 1"))
    sent = nri_pb2.ConfigureRequest(
        runtime_name="containerd",
        runtime_version="v2.1.9",
        registration_timeout=5000,
        request_timeout=2000,
        NRI_version=NEW,
    )
    call = runtime.call("Configure", sent)
    assert (call.event, call.export) == ("Configure", "plugin_configure")
    sent.config = "mine = 1"
    assert nri_pb2.ConfigureRequest.FromString(call.payload) == sent


def test_a_runtimes_configuration_stays_where_the_plugin_has_none() -> None:
    call = RuntimeSide(a_session()).call("Configure", nri_pb2.ConfigureRequest(config="theirs"))
    assert nri_pb2.ConfigureRequest.FromString(call.payload).config == "theirs"


@pytest.mark.parametrize(("said", "kept"), [(500, 500), (0, 2000), (-5, 2000)])
def test_what_the_runtime_says_of_itself_is_kept(said: int, kept: int) -> None:
    runtime = RuntimeSide(a_session())
    request = nri_pb2.ConfigureRequest(
        runtime_name="cri-o", runtime_version="1.35.0", request_timeout=said, NRI_version=NEW
    )
    runtime.call("Configure", request)
    info = runtime.session.runtime
    assert info is not None
    assert info.request_timeout_ms == kept
    assert str(info) == "cri-o 1.35.0, NRI v0.12.0"


# what the runtime is, what it says of NRI -> what it may be asked for
RUNTIMES = [
    ("containerd", "v1.7.30", "", OLD_EVENTS),
    ("containerd", "v2.1.9", "", OLD_EVENTS),
    ("containerd", "2.1.9~ds1", "", OLD_EVENTS),
    ("containerd", "v2.2.0", "", NEW_EVENTS),
    ("containerd", "2.2.1-0ubuntu1", "", NEW_EVENTS),
    ("containerd", "v2.2.0-225-ge9dc15b7a.m", "", NEW_EVENTS),
    ("containerd", "v2.2.0-rc.1", "", OLD_EVENTS),
    ("containerd", "2.2.0~rc1-1", "", OLD_EVENTS),
    ("containerd", "v2.2.1-rc.1", "", NEW_EVENTS),
    ("containerd", "v2.3.0-beta.2", "", NEW_EVENTS),
    ("containerd", "v2.10.0", "", NEW_EVENTS),
    ("containerd", "9" * 5000 + ".0", "", OLD_EVENTS),
    ("containerd", "v10.0.0", "", NEW_EVENTS),
    ("containerd", "", "", OLD_EVENTS),
    ("containerd", "devel", "", OLD_EVENTS),
    ("containerd", "v2.1.9", "v0.12.0", NEW_EVENTS),
    ("cri-o", "1.33.8", "", OLD_EVENTS),
    ("cri-o", "1.34.0", "", NEW_EVENTS),
    ("cri-o", "1.34.0-dev", "", OLD_EVENTS),
    ("cri-o", "1.35.0", "v0.12.0", NEW_EVENTS),
    ("docker", "29.2.0", "", OLD_EVENTS),
    ("", "", "", OLD_EVENTS),
    ("unheard-of", "v99.0.0", "v0.13.0", NEW_EVENTS),
]


@pytest.mark.parametrize(("runtime", "version", "nri_version", "known"), RUNTIMES)
def test_the_mask_is_cut_to_what_the_runtime_knows(
    runtime: str, version: str, nri_version: str, known: int
) -> None:
    for wanted in (0, NEW_EVENTS):
        peer = RuntimeSide(a_session())
        assert peer.configure(wanted, runtime, version, nri_version) == known
        assert peer.session.subscribed == known


STATE_CHANGES = mask(
    "RunPodSandbox",
    "StopPodSandbox",
    "RemovePodSandbox",
    "PostCreateContainer",
    "StartContainer",
    "PostStartContainer",
    "PostUpdateContainer",
    "RemoveContainer",
)
RAREST = mask("RemovePodSandbox")

# exports, what the guest asks for, extra events -> what the runtime gets, what the guest has
MASKS = [
    (("CreateContainer",), 0, 0, mask("CreateContainer"), mask("CreateContainer")),
    (("StateChange",), 0, 0, STATE_CHANGES, STATE_CHANGES),
    (
        ("StateChange", "CreateContainer"),
        mask("CreateContainer", "RunPodSandbox", "UpdatePodSandbox"),
        0,
        mask("CreateContainer", "RunPodSandbox"),
        mask("CreateContainer", "RunPodSandbox"),
    ),
    (("CreateContainer",), mask("StopContainer"), 0, RAREST, 0),  # 0 after cutting
    (("Configure",), 0, 0, RAREST, 0),  # a guest that serves nothing
    ((), 0, 0, RAREST, 0),
    (
        ("ValidateContainerAdjustment",),
        0,
        mask("PostCreateContainer"),
        mask("ValidateContainerAdjustment", "PostCreateContainer"),
        mask("ValidateContainerAdjustment"),
    ),
    (("Configure",), 0, mask("StopContainer"), mask("StopContainer"), 0),
    (("CreateContainer",), -1, 0, mask("CreateContainer"), mask("CreateContainer")),
    (("CreateContainer",), 1 << 30, 0, RAREST, 0),  # only bits that nobody knows
]


@pytest.mark.parametrize(("guest", "wanted", "extra", "asked", "subscribed"), MASKS)
def test_the_mask_is_explicit_and_cut_to_what_the_guest_can_serve(
    guest: tuple[str, ...], wanted: int, extra: int, asked: int, subscribed: int
) -> None:
    peer = RuntimeSide(a_session(exports(*guest), extra_events=extra))
    assert peer.configure(wanted) == asked
    assert peer.session.subscribed == subscribed


def test_extra_events_are_cut_to_what_the_runtime_knows() -> None:
    extra = mask("UpdatePodSandbox", "StopContainer")
    peer = RuntimeSide(a_session(exports("CreateContainer"), extra_events=extra))
    assert peer.configure(0, "containerd", "v2.1.9", "") == mask("CreateContainer", "StopContainer")


def test_what_is_cut_from_the_guests_wish_is_told() -> None:
    peer = RuntimeSide(a_session(exports("CreateContainer", "UpdatePodSandbox")))
    wanted = mask("CreateContainer", "UpdatePodSandbox", "StopContainer")
    peer.configure(wanted, "containerd", "v2.1.9", "")
    assert peer.session.not_sent == mask("UpdatePodSandbox")
    assert peer.session.not_exported == mask("StopContainer")


def test_known_events_can_be_set() -> None:
    peer = RuntimeSide(Session("10", "one", EVERYTHING, "", known_events=0b1111))
    assert peer.configure(0) == 0b1111


@pytest.mark.parametrize("garbage", [b"\xff", b"\x12\x7f", b"\x10", b"garbage"])
def test_a_configure_reply_that_is_none_is_the_guests_fault(garbage: bytes) -> None:
    runtime = RuntimeSide(a_session())
    runtime.sent()
    call = runtime.call("Configure", nri_pb2.ConfigureRequest())
    with pytest.raises(GuestFault, match="ConfigureResponse") as caught:
        runtime.session.answer(call, garbage)
    assert caught.value.kind == "abi"
    assert runtime.sent() == []
    runtime.session.refuse(call, wire.INTERNAL, "the guest is broken")
    assert runtime.answered().status.message == "the guest is broken"


def test_a_guest_without_configure_gets_no_call_of_its_own() -> None:
    runtime = RuntimeSide(a_session(exports("CreateContainer")))
    assert runtime.call("Configure", nri_pb2.ConfigureRequest()).export == ""


# --- Synchronize

PODS = st.builds(
    nri_pb2.PodSandbox,
    id=st.text(max_size=4),
    name=st.text(max_size=4),
    labels=st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
)
CONTAINERS = st.builds(
    nri_pb2.Container, id=st.text(max_size=4), env=st.lists(st.text(max_size=3), max_size=2)
)
PARTS = st.lists(
    st.builds(
        nri_pb2.SynchronizeRequest,
        pods=st.lists(PODS, max_size=3),
        containers=st.lists(CONTAINERS, max_size=3),
    ),
    min_size=1,
    max_size=5,
)


@given(PARTS)
def test_a_synchronisation_in_parts_is_the_message_that_protobuf_merges(
    parts: list[nri_pb2.SynchronizeRequest],
) -> None:
    runtime = RuntimeSide(a_session())
    runtime.configure()
    merged = nri_pb2.SynchronizeRequest()
    for part in parts[:-1]:
        merged.MergeFrom(part)
        part.more = True
        assert runtime.ask("Synchronize", part) == []
        reply = runtime.answered()
        assert not reply.HasField("status")
        assert nri_pb2.SynchronizeResponse.FromString(reply.payload).more
    merged.MergeFrom(parts[-1])
    call = runtime.call("Synchronize", parts[-1])
    assert (call.event, call.export) == ("Synchronize", "plugin_synchronize")
    assert nri_pb2.SynchronizeRequest.FromString(call.payload) == merged
    update = nri_pb2.SynchronizeResponse(update=[nri_pb2.ContainerUpdate(container_id="c")])
    runtime.session.answer(call, update.SerializeToString())
    assert runtime.answered().payload == update.SerializeToString()
    assert runtime.session.state is State.SYNCHRONISED


def test_a_whole_synchronisation_is_passed_on_as_it_came() -> None:
    runtime = RuntimeSide(a_session())
    runtime.configure()
    request = nri_pb2.SynchronizeRequest(pods=[nri_pb2.PodSandbox(id="p")]).SerializeToString()
    assert runtime.call("Synchronize", request).payload == request


def test_a_second_synchronisation_has_nothing_of_the_first() -> None:
    runtime = RuntimeSide(a_session()).start()
    first = nri_pb2.SynchronizeRequest(pods=[nri_pb2.PodSandbox(id="1")], more=True)
    second = nri_pb2.SynchronizeRequest(pods=[nri_pb2.PodSandbox(id="2")])
    runtime.ask("Synchronize", first)
    runtime.call("Synchronize", nri_pb2.SynchronizeRequest())
    whole = nri_pb2.SynchronizeRequest.FromString(runtime.call("Synchronize", second).payload)
    assert [pod.id for pod in whole.pods] == ["2"]


def test_a_guest_without_synchronize_gets_no_call_of_its_own() -> None:
    runtime = RuntimeSide(a_session(exports("CreateContainer")))
    runtime.configure()
    assert runtime.call("Synchronize").export == ""


def test_a_synchronisation_is_bounded_in_bytes() -> None:
    runtime = RuntimeSide(a_session())
    runtime.configure()
    pod = nri_pb2.PodSandbox(annotations={"large": "x" * (3 << 20)})
    part = nri_pb2.SynchronizeRequest(pods=[pod], more=True).SerializeToString()
    for _ in range(session.MAX_SYNC_BYTES // len(part)):
        assert runtime.ask("Synchronize", part) == []
    with pytest.raises(ProtocolError, match=f"over {session.MAX_SYNC_BYTES} bytes"):
        runtime.ask("Synchronize", part)


def test_a_synchronisation_is_bounded_in_parts() -> None:
    runtime = RuntimeSide(a_session())
    runtime.configure()
    part = nri_pb2.SynchronizeRequest(more=True).SerializeToString()
    for _ in range(session.MAX_SYNC_PARTS):
        runtime.ask("Synchronize", part)
    with pytest.raises(ProtocolError, match=f"or {session.MAX_SYNC_PARTS} parts"):
        runtime.ask("Synchronize", part)


# --- out of order, and no messages at all


def configured(runtime: RuntimeSide) -> None:
    runtime.configure()


def half_configured(runtime: RuntimeSide) -> None:
    runtime.call("Configure", nri_pb2.ConfigureRequest())


def synchronised(runtime: RuntimeSide) -> None:
    runtime.start()


def registered(_: RuntimeSide) -> None:
    """Nothing more."""


@pytest.mark.parametrize("before", [configured, half_configured, synchronised])
def test_a_plugin_is_configured_once(before: object) -> None:
    runtime = RuntimeSide(a_session())
    assert callable(before)
    before(runtime)
    with pytest.raises(
        ProtocolError, match="configures a plugin that has not registered, or twice"
    ):
        runtime.ask("Configure", nri_pb2.ConfigureRequest())


def test_a_plugin_that_has_not_registered_is_not_configured() -> None:
    with pytest.raises(ProtocolError, match="has not registered"):
        RuntimeSide(a_session(), register=False).ask("Configure", nri_pb2.ConfigureRequest())


@pytest.mark.parametrize("before", [registered, half_configured])
def test_a_plugin_that_is_not_configured_is_not_synchronised(before: object) -> None:
    runtime = RuntimeSide(a_session())
    assert callable(before)
    before(runtime)
    with pytest.raises(ProtocolError, match="synchronises a plugin that is not configured"):
        runtime.ask("Synchronize", nri_pb2.SynchronizeRequest())


@pytest.mark.parametrize(
    ("method", "kind"),
    [("Configure", nri_pb2.ConfigureRequest), ("Synchronize", nri_pb2.SynchronizeRequest)],
)
@pytest.mark.parametrize("garbage", [b"\xff", b"\x0a\xff", b"\x0a\x02\xff\xfe"])
def test_a_request_that_is_none_is_a_protocol_error(
    method: str, kind: type[Message], garbage: bytes
) -> None:
    runtime = RuntimeSide(a_session())
    if method == "Synchronize":
        runtime.configure()
    with pytest.raises(ProtocolError, match=f"{method}: bytes that are no {kind.__name__}"):
        runtime.ask(method, garbage)


def test_shutdown_reaches_the_guest() -> None:
    runtime = RuntimeSide(a_session()).start()
    call = runtime.call("Shutdown")
    assert call == Call(call.stream, "Shutdown", "plugin_shutdown", b"", 2.0)


@pytest.mark.parametrize("version", ["v" + "9" * 5000 + ".0.0", "0.11." + "1" * 5000, "v0.12", ""])
def test_a_version_of_any_length_is_none_or_an_old_one(version: str) -> None:
    """Python refuses to make a number of more than 4,300 digits."""
    assert not forgives_lost_validators(version)
    assert known_events("containerd", version, "") == OLD_EVENTS


def test_what_a_runtime_says_of_itself_is_kept_up_to_a_length() -> None:
    """It stands in each result and in the state."""
    peer = RuntimeSide(a_session(exports("CreateContainer")))
    peer.configure(0, "r" * 10_000, "v" * 10_000, "n" * 10_000)
    assert peer.session.runtime is not None
    assert len(str(peer.session.runtime)) < 500
