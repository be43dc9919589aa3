"""A broker of one's own bytes: it serves retained messages and misbehaves as it is told."""

import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from edge_agent.sim import mqttwire
from edge_agent.sim.mqttwire import CONNECT, PINGREQ, PUBLISH, SUBSCRIBE, UNSUBSCRIBE, Message

# What to do with the retained messages of the topics just subscribed to.
Deliver = Callable[["Peer", list[Message]], None]
NOT_AUTHORIZED = {mqttwire.VERSION_5: 0x87, mqttwire.VERSION_3_1_1: 5}


class Peer:
    """One client's connection."""

    CONNACK = b""  # of a broker that has more to say in it

    def __init__(self, broker: "RawBroker", connection: socket.socket) -> None:
        self.broker = broker
        self._socket = connection
        self._version = mqttwire.VERSION_5

    def send(self, message: Message) -> None:
        """One PUBLISH of something retained."""
        self.write(mqttwire.publish_packet(message, self._version, retained=True))

    def write(self, data: bytes) -> None:
        self._socket.sendall(data)

    def drip(self, message: Message, pause_s: float) -> None:
        """The same in pieces of a hundred bytes."""
        data = mqttwire.publish_packet(message, self._version, retained=True)
        for at in range(0, len(data), 100):
            self.write(data[at : at + 100])
            time.sleep(pause_s)

    def hang_up(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)

    def serve(self) -> None:
        """Until the client goes."""
        received = bytearray()
        try:
            while data := self._socket.recv(65536):
                received += data
                for packet in mqttwire.split(received):
                    self._handle(packet)
        except (OSError, mqttwire.Malformed):
            pass
        finally:
            self._socket.close()

    def _handle(self, packet: mqttwire.Packet) -> None:
        if packet.kind == CONNECT:
            self._version = mqttwire.read_connect(packet).version
            reason = self.broker.refuse(self._version)
            end = b"\0" if self._version == mqttwire.VERSION_5 else b""
            welcome = mqttwire.packet(mqttwire.CONNACK, bytes((0, reason)) + end)
            self.write(self.CONNACK if self.CONNACK and not reason else welcome)
            if reason:
                self.hang_up()
        elif packet.kind == SUBSCRIBE:
            packet_id, topics = mqttwire.read_filters(packet, self._version, with_options=True)
            self._answer(mqttwire.SUBACK, packet_id, len(topics))
            self.broker.asked += topics
            retained = self.broker.retained
            self.broker.deliver(
                self, [Message(t, retained[t], True) for t in topics if t in retained]
            )
        elif packet.kind == UNSUBSCRIBE:
            packet_id, topics = mqttwire.read_filters(packet, self._version, with_options=False)
            count = len(topics) if self._version == mqttwire.VERSION_5 else 0
            self._answer(mqttwire.UNSUBACK, packet_id, count)
        elif packet.kind == PUBLISH:
            message, packet_id_or_none = mqttwire.read_publish(packet, self._version)
            self.broker.published.append(message.topic)
            if message.topic in self.broker.forbidden:
                self.hang_up()
                return
            if packet_id_or_none is not None:
                reason = self.broker.not_taken(message.topic)
                answer = packet_id_or_none + (bytes((reason, 0)) if reason else b"")
                self.write(mqttwire.packet(mqttwire.PUBACK, answer))
            if self.broker.echo and message.topic in self.broker.asked:
                self.write(mqttwire.publish_packet(message, self._version, retained=False))
        elif packet.kind == PINGREQ:
            self.write(mqttwire.packet(mqttwire.PINGRESP))

    def _answer(self, kind: int, packet_id: bytes, count: int) -> None:
        properties = b"\0" if self._version == mqttwire.VERSION_5 else b""
        self.write(mqttwire.packet(kind, packet_id + properties + bytes(count)))


class RawBroker:
    """Listens on a loopback port; a context manager."""

    def __init__(self, deliver: Deliver, peer: type[Peer] = Peer) -> None:
        """`peer` serves each connection."""
        self.deliver = deliver
        self._peer = peer
        self.echo = False  # what a client publishes where it subscribed comes back to it
        self.violations = 0  # of what was granted, as its peers count them
        self.retained: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.published: list[str] = []  # by clients
        self.forbidden: set[str] = set()  # who publishes there is hung up on
        self.refused: set[str] = set()  # what is published there is not taken
        self.connections = 0
        self.refusals = 0  # so many of the next connections are refused
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def publish(self, topic: str, payload: bytes) -> None:
        """Retain a message, for those who subscribe from now on."""
        self.retained[topic] = payload

    def not_taken(self, topic: str) -> int:
        """The reason in the answer to a PUBLISH (MQTT 5); 0: it is taken."""
        return NOT_AUTHORIZED[mqttwire.VERSION_5] if topic in self.refused else 0

    def refuse(self, version: int) -> int:
        """The reason in the answer to a CONNECT; 0: welcome."""
        if not self.refusals:
            return 0
        self.refusals -= 1
        return NOT_AUTHORIZED[version]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._peer(self, connection).serve, daemon=True).start()
