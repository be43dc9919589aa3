"""Whatever a runtime sends in whatever order: a session answers well or ends with one error."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge_agent import wire
from edge_agent.errors import GuestFault
from edge_agent.nri import events
from edge_agent.nri.session import Call, Incoming, Session, State
from edge_agent.pb import nri_pb2, ttrpc_pb2
from edge_agent.sim import upstream
from tests.support.pieces import refusal
from tests.support.runtimeside import EVERYTHING, exports

METHODS = list(events.EXPORTS)
GUESTS = st.one_of(
    st.just(EVERYTHING),
    st.sets(st.sampled_from(METHODS)).map(lambda methods: exports(*methods)),
)
PAYLOADS = st.one_of(
    st.just(b""),
    st.binary(max_size=40),
    st.integers(0, 20).map(lambda number: b"\x08" + bytes([number])),
    st.builds(
        lambda event, pod: nri_pb2.StateChangeEvent(
            event=nri_pb2.Event.Name(event), pod=nri_pb2.PodSandbox(id=pod)
        ).SerializeToString(),
        st.integers(1, 14),
        st.text(max_size=5),
    ),
    st.booleans().map(lambda more: nri_pb2.SynchronizeRequest(more=more).SerializeToString()),
)


class Sessions(RuleBasedStateMachine):
    """One session after the other: an error ends one, and the next begins."""

    def __init__(self) -> None:
        super().__init__()
        self.begin(EVERYTHING, 0)

    def begin(self, guest: frozenset[str], extra_events: int) -> None:
        self.guest = guest
        self.session = Session("10", "one", guest, "configuration", extra_events)
        self.reader = upstream.Reader()
        self.asked: set[int] = set()  # the runtime's requests without an answer
        self.calls: list[Call] = []  # of these, those with the guest
        self.owed: set[int] = set()  # the session's requests without an answer
        self.next_stream = 1
        self.last_own = -1
        self.session.register()

    def feed(self, data: bytes) -> None:
        happened: list[Incoming] = []
        if refusal(lambda: happened.extend(self.session.receive(memoryview(data)))):
            self.begin(EVERYTHING, 0)
        for one in happened:
            if isinstance(one, Call):
                assert not one.export or one.export in self.guest
                assert one.event in events.EXPORTS
                assert one.timeout_s > 0
                self.calls.append(one)

    # --- what a runtime may send

    @rule(guest=GUESTS, extra_events=st.integers(0, (1 << 14) - 1))
    def connect(self, guest: frozenset[str], extra_events: int) -> None:
        self.begin(guest, extra_events)

    @rule(method=st.sampled_from(METHODS), payload=PAYLOADS, timeout=st.integers(-5, 1 << 40))
    def ask(self, method: str, payload: bytes, timeout: int) -> None:
        body = ttrpc_pb2.Request(
            service=events.PLUGIN_SERVICE, method=method, payload=payload, timeout_nano=timeout
        )
        stream, self.next_stream = self.next_stream, self.next_stream + 2
        self.asked.add(stream)
        data = body.SerializeToString()
        self.feed(upstream.write(upstream.PLUGIN, stream, upstream.REQUEST, data))

    @rule(version=st.sampled_from(["", "v2.1.9", "v2.2.0"]), nri=st.sampled_from(["", "v0.12.0"]))
    def start(self, version: str, nri: str) -> None:
        """The proper way, so that the machine gets anywhere."""
        self.connect(self.guest, 0)
        request = nri_pb2.ConfigureRequest(
            runtime_name="containerd", runtime_version=version, NRI_version=nri
        )
        for method, payload in (("Configure", request.SerializeToString()), ("Synchronize", b"")):
            self.ask(method, payload, 0)
            self.answer(0, b"")
        assert self.session.state is State.SYNCHRONISED

    @rule(stream=st.integers(0, 9), body=st.binary(max_size=20))
    def respond(self, stream: int, body: bytes) -> None:
        if stream in self.owed:
            self.owed.discard(stream)
        self.feed(upstream.write(upstream.RUNTIME, stream, upstream.RESPONSE, body))

    @rule(data=st.binary(max_size=60))
    def send_anything(self, data: bytes) -> None:
        self.feed(data)
        self.begin(self.guest, 0)  # out of step perhaps

    @rule(
        connection=st.sampled_from([1, 2]),
        kind=st.integers(0, 4),
        stream=st.integers(0, 40),
        body=st.binary(max_size=40),
    )
    def send_a_message(self, connection: int, kind: int, stream: int, body: bytes) -> None:
        if (connection, kind) == (upstream.PLUGIN, upstream.REQUEST):
            self.next_stream = max(self.next_stream, stream | 1) + 2
            self.asked.add(stream)
        elif (connection, kind) == (upstream.RUNTIME, upstream.RESPONSE):
            self.owed.discard(stream)
        self.feed(upstream.write(connection, stream, kind, body))

    # --- what the host does

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 9), reply=st.binary(max_size=40))
    def answer(self, which: int, reply: bytes) -> None:
        call = self.calls.pop(which % len(self.calls))
        try:
            self.session.answer(call, reply)
        except GuestFault:
            assert call.event == events.CONFIGURE
            self.session.refuse(call, wire.INTERNAL, "the guest is broken")

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 9), text=st.text(max_size=40))
    def refuse(self, which: int, text: str) -> None:
        self.session.refuse(self.calls.pop(which % len(self.calls)), wire.ABORTED, text)

    @rule(request=st.binary(max_size=40))
    def update_containers(self, request: bytes) -> None:
        self.session.update_containers(request)

    # --- what holds all the time

    @invariant()
    def what_is_sent_is_well_formed(self) -> None:
        for connection, message in self.reader.feed(b"".join(self.session.take_output())):
            assert message.flags == 0
            if connection == upstream.PLUGIN:
                assert message.type == upstream.RESPONSE
                ttrpc_pb2.Response.FromString(message.body)
                self.asked.remove(message.stream)  # asked, and answered once
            else:
                assert message.type == upstream.REQUEST
                assert message.stream == self.last_own + 2  # odd and increasing
                self.last_own = message.stream
                request = ttrpc_pb2.Request.FromString(message.body)
                assert request.service == events.RUNTIME_SERVICE
                assert request.method == (
                    "RegisterPlugin" if message.stream == 1 else "UpdateContainers"
                )
                self.owed.add(message.stream)

    @invariant()
    def what_was_asked_is_answered_or_with_the_guest(self) -> None:
        assert self.asked == {call.stream for call in self.calls}

    @invariant()
    def the_guest_has_no_event_that_it_cannot_serve(self) -> None:
        assert not self.session.subscribed & ~events.servable(self.guest)


TestSessions = pytest.mark.filterwarnings("error")(Sessions.TestCase)
TestSessions.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
