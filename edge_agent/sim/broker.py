"""A small MQTT broker for the demonstration and the tests: 3.1.1 and enough of 5.

It takes QoS 0 and 1, keeps retained messages, publishes wills, and delivers at QoS 0, which
is what it grants. Sessions are kept in bounds, in memory, which can be handed to the next one.
There are no passwords and no TLS: it listens on the loopback only. docs/adr tells why it is
not one of the brokers there are.
"""

import selectors
import socket
import threading
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple, Self

from edge_agent.loop import Loop
from edge_agent.sim.mqttwire import (
    CONNACK,
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBLISH,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    UNSUBSCRIBE,
    VERSION_5,
    Malformed,
    Message,
    Packet,
    matches,
    packet,
    publish_packet,
    read_connect,
    read_filters,
    read_publish,
    split,
)

RECEIVE_BYTES = 64 * 1024
# A subscriber that leaves this much unread is dropped; it must not fill the process.
MAX_UNSENT_BYTES = 4 * 1024 * 1024
# Of clients that are away; messages for each, the latest.
MAX_SESSIONS, MAX_WAITING = 100, 1000


class Session(NamedTuple):
    """Of a client that is away: what it wants to hear, and what came meanwhile."""

    filters: set[str]
    waiting: deque[Message]


class Memory(NamedTuple):
    """What a broker keeps: retained messages by topic, sessions by client."""

    retained: dict[str, Message]
    sessions: dict[str, Session]


class Broker:
    """A broker on 127.0.0.1, from entering to leaving; `port` is the one it got."""

    def __init__(self, port: int = 0, memory: "Memory | None" = None) -> None:
        """`memory` is that of a broker before, as if read from its disk."""
        self.memory = memory or Memory({}, {})
        self._loop = Loop()
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._clients: dict[str, _Client] = {}  # those whose CONNECT was accepted
        self._everyone: set[_Client] = set()
        self._retained = self.memory.retained
        self._sessions = self.memory.sessions
        self._unnamed = 0
        self._handlers = {
            CONNECT: self._connect,
            PUBLISH: self._take_publish,
            SUBSCRIBE: self._subscribe,
            UNSUBSCRIBE: self._unsubscribe,
            PINGREQ: self._ping,
            DISCONNECT: self._disconnect,
        }
        self._loop.watch(self._listener, selectors.EVENT_READ, self._accept)
        self._thread = threading.Thread(target=self._loop.run, name="broker", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon(self._loop.stop)
        self._thread.join()
        for client in self._everyone:
            self._keep_session(client)
            client.socket.close()
        self._listener.close()
        self._loop.close()

    def _accept(self, _events: int) -> None:
        try:
            accepted, _address = self._listener.accept()
        except OSError:
            return  # it went away in the meantime
        accepted.setblocking(False)
        client = _Client(accepted)
        self._everyone.add(client)
        self._loop.watch(accepted, selectors.EVENT_READ, partial(self._serve, client))

    def _serve(self, client: "_Client", events: int) -> None:
        try:
            if events & selectors.EVENT_READ:
                for received in client.receive():
                    self._handle(client, received)
                    if client not in self._everyone:
                        return  # it said goodbye
            client.flush()
        except (Malformed, OSError):
            self._drop(client)
            return
        self._watch(client)

    def _watch(self, client: "_Client") -> None:
        if client in self._everyone:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.unsent else 0)
            self._loop.watch(client.socket, events, partial(self._serve, client))

    def _drop(self, client: "_Client") -> None:
        """Forget a client; its will is published unless it said goodbye."""
        if client not in self._everyone:
            return
        self._everyone.remove(client)
        self._loop.unwatch(client.socket)
        client.socket.close()
        if self._clients.get(client.name) is client:
            del self._clients[client.name]
            self._keep_session(client)
        if client.will is not None:
            self._publish(client.will)

    def _handle(self, client: "_Client", received: Packet) -> None:
        if not client.name and received.kind != CONNECT:
            raise Malformed("the first packet must be CONNECT")
        handler = self._handlers.get(received.kind)
        if handler is None:
            raise Malformed(f"packet type {received.kind >> 4} is not served")
        handler(client, received)

    def _take_publish(self, client: "_Client", received: Packet) -> None:
        message, packet_id = read_publish(received, client.version)
        if packet_id is not None:
            client.send(packet(PUBACK, packet_id))
        self._publish(message)

    def _subscribe(self, client: "_Client", received: Packet) -> None:
        packet_id, filters = read_filters(received, client.version, with_options=True)
        client.filters |= set(filters)
        client.acknowledge(SUBACK, packet_id, len(filters))
        for message in list(self._retained.values()):
            if any(matches(wanted, message.topic) for wanted in filters):
                client.send(publish_packet(message, client.version, retained=True))

    def _unsubscribe(self, client: "_Client", received: Packet) -> None:
        packet_id, filters = read_filters(received, client.version, with_options=False)
        client.filters -= set(filters)
        client.acknowledge(UNSUBACK, packet_id, len(filters))

    def _ping(self, client: "_Client", _received: Packet) -> None:
        client.send(packet(PINGRESP))

    def _disconnect(self, client: "_Client", received: Packet) -> None:
        if received.body[:1] in (b"", b"\0"):  # 4 in MQTT 5: publish the will all the same
            client.will = None
        self._drop(client)

    def _connect(self, client: "_Client", received: Packet) -> None:
        if client.name:
            raise Malformed("a second CONNECT")
        connect = read_connect(received)
        self._unnamed += 1
        client.version = connect.version
        client.name = connect.client_id or f"unnamed-{self._unnamed}"
        client.will = connect.will
        if (former := self._clients.get(client.name)) is not None:
            self._drop(former)
        self._clients[client.name] = client
        session = self._sessions.pop(client.name, None)
        client.wants_session = not connect.clean
        kept = session if client.wants_session else None
        if kept is not None:
            client.filters = kept.filters
        present = b"\0\0" if kept is None else b"\1\0"
        if client.version == VERSION_5:
            # Maximum QoS 1 (0x24); the name given to a client that has none (0x12).
            name = client.name.encode()
            given = b"" if connect.client_id else b"\x12" + len(name).to_bytes(2, "big") + name
            client.send(packet(CONNACK, present + bytes([2 + len(given)]) + b"\x24\x01" + given))
        else:
            client.send(packet(CONNACK, present))
        for message in kept.waiting if kept is not None else ():
            client.send(publish_packet(message, client.version, retained=False))

    def _keep_session(self, client: "_Client") -> None:
        if client.wants_session and client.filters and len(self._sessions) < MAX_SESSIONS:
            self._sessions[client.name] = Session(client.filters, deque(maxlen=MAX_WAITING))

    def _publish(self, message: Message) -> None:
        if message.retain:
            self._retained.pop(message.topic, None)
            if message.payload:
                self._retained[message.topic] = message
        for client in list(self._clients.values()):
            if any(matches(wanted, message.topic) for wanted in client.filters):
                client.send(publish_packet(message, client.version, retained=False))
                if len(client.unsent) > MAX_UNSENT_BYTES:
                    self._loop.call_soon(partial(self._drop, client))
                self._watch(client)
        for session in self._sessions.values():
            if any(matches(wanted, message.topic) for wanted in session.filters):
                session.waiting.append(message)


class _Client:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.name = ""  # until CONNECT
        self.version = 0
        self.will: Message | None = None
        self.filters: set[str] = set()
        self.wants_session = False
        self.unsent = bytearray()
        self._received = bytearray()

    def receive(self) -> Iterator[Packet]:
        """The whole packets that have come. Raises Malformed, OSError."""
        try:
            data = self.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise Malformed("the connection closed")
        self._received += data
        yield from split(self._received)

    def send(self, data: bytes) -> None:
        """Queue; the loop writes when the socket takes it."""
        self.unsent += data

    def acknowledge(self, kind: int, packet_id: bytes, count: int) -> None:
        """SUBACK or UNSUBACK: each of the `count` filters with 0 (QoS 0, success)."""
        if self.version == VERSION_5:
            self.send(packet(kind, packet_id + b"\0" + bytes(count)))
        else:
            self.send(packet(kind, packet_id + (bytes(count) if kind == SUBACK else b"")))

    def flush(self) -> None:
        """Write what the socket takes."""
        try:
            while self.unsent:
                del self.unsent[: self.socket.send(self.unsent)]
        except BlockingIOError:
            pass
