"""A runtime in memory for one session: it asks, and reads what the session sends.

It speaks through edge_agent.sim.upstream, not through the code that is tested.
"""

from __future__ import annotations

from google.protobuf.message import Message

from edge_agent.nri import events
from edge_agent.nri.session import Call, Incoming, Session
from edge_agent.pb import nri_pb2, ttrpc_pb2
from edge_agent.sim import upstream

EVERYTHING = frozenset(events.EXPORTS.values())
NEW = "v0.12.0"


def exports(*methods: str) -> frozenset[str]:
    """The guest's exports behind these methods."""
    return frozenset(events.EXPORTS[method] for method in methods)


class RuntimeSide:
    """Talks to a session that is registered from the start, unless `register` is false."""

    def __init__(self, session: Session, *, register: bool = True) -> None:
        self.session = session
        self._reader = upstream.Reader()
        self._stream = 1
        if register:
            session.register()

    def sent(self) -> list[tuple[int, upstream.Message]]:
        """What the session sent since the last time."""
        return self._reader.feed(b"".join(self.session.take_output()))

    def receive(self, data: bytes) -> list[Incoming]:
        return self.session.receive(memoryview(data))

    def ask(
        self,
        method: str,
        request: Message | bytes = b"",
        *,
        service: str = events.PLUGIN_SERVICE,
        timeout_nano: int = 0,
        stream: int | None = None,
    ) -> list[Incoming]:
        """Send a request as upstream does."""
        payload = request if isinstance(request, bytes) else request.SerializeToString()
        body = ttrpc_pb2.Request(
            service=service, method=method, payload=payload, timeout_nano=timeout_nano
        ).SerializeToString()
        if stream is None:
            stream, self._stream = self._stream, self._stream + 2
        return self.receive(upstream.write(upstream.PLUGIN, stream, upstream.REQUEST, body))

    def call(self, method: str, request: Message | bytes = b"", *, timeout_nano: int = 0) -> Call:
        """A request that must reach the guest."""
        [call] = self.ask(method, request, timeout_nano=timeout_nano)
        assert isinstance(call, Call)
        return call

    def answered(self) -> ttrpc_pb2.Response:
        """The one answer that the session sent to the last request."""
        [(connection, message)] = self.sent()
        assert connection == upstream.PLUGIN
        assert message.type == upstream.RESPONSE
        assert message.flags == 0
        return ttrpc_pb2.Response.FromString(message.body)

    def respond(self, stream: int, response: ttrpc_pb2.Response | bytes) -> list[Incoming]:
        """Answer a request of the session's."""
        body = response if isinstance(response, bytes) else response.SerializeToString()
        return self.receive(upstream.write(upstream.RUNTIME, stream, upstream.RESPONSE, body))

    # --- the first steps

    def configure(
        self,
        wanted: int = 0,
        runtime: str = "containerd",
        version: str = "v2.3.0",
        nri_version: str = NEW,
    ) -> int:
        """Configure the guest, which asks for `wanted` -> the mask that the runtime gets."""
        self.sent()
        request = nri_pb2.ConfigureRequest(
            runtime_name=runtime, runtime_version=version, NRI_version=nri_version
        )
        call = self.call("Configure", request)
        reply = nri_pb2.ConfigureResponse(events=wanted)
        self.session.answer(call, reply.SerializeToString())
        return nri_pb2.ConfigureResponse.FromString(self.answered().payload).events

    def start(self, wanted: int = 0, nri_version: str = NEW) -> RuntimeSide:
        """Configure and synchronise."""
        self.configure(wanted, nri_version=nri_version)
        self.session.answer(self.call("Synchronize"), b"")
        self.sent()
        return self
