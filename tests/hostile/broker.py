"""A broker that does its worst for a set time, and is an honest one before and after that.

    python -m tests.hostile.broker SECONDS [SEED] [invents]    from a line on its standard input on

Behind it is the embedded broker of the simulation; between that and each client stands somebody
who forges, withholds, repeats, reorders, floods, drips and hangs up. Its port is its first line.
With `invents` it does one wrong only, and that well: it says of every board that it runs what was
deployed last, through its probation, and brings no board the deployment (tests/hostile/inventions).
"""

from __future__ import annotations

import json
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from edge_agent.sim import mqttwire
from edge_agent.sim.broker import Broker
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
    Message,
    Packet,
    packet,
)
from tests.hostile.inventions import Inventor
from tests.operator import fuzz

UNDERSTOOD = {CONNECT, PUBLISH, SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT}
KEPT = 300  # messages that are sent again
LONGEST_S = 8.0  # of one connection: then another wrong has its turn
ESCAPES = b"\x1b]0;owned\x07\xe2\x80\xae"


class Worst:
    """`run` serves until the process ends."""

    def __init__(self, seconds: float, seed: int, invents: bool = False) -> None:
        self.inventor = Inventor(seed) if invents else None
        self.random = random.Random(seed)
        self.hostile = fuzz.Hostile(seed)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self.seconds = seconds
        self.worst_until = 0.0
        self.seen: list[Message] = []
        self.done: dict[str, int] = {}
        self.open: list[socket.socket] = []

    @property
    def honest(self) -> bool:
        return time.monotonic() >= self.worst_until

    def begin(self) -> None:
        """From now on; connections of before are ended."""
        self.worst_until = time.monotonic() + self.seconds
        for each in self.open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        with Broker() as broker:
            while True:
                client, _ = self.listener.accept()
                self.open = [each for each in self.open if each.fileno() >= 0] + [client]
                threading.Thread(target=self._serve, args=(client, broker), daemon=True).start()

    def _serve(self, client: socket.socket, broker: Broker) -> None:
        with suppress(OSError, mqttwire.Malformed), client:
            behind = socket.create_connection(("127.0.0.1", broker.port))
            with behind:
                Between(self, client, behind).serve()

    def keep(self, message: Message) -> None:
        self.seen.append(message)
        del self.seen[:-KEPT]

    def count(self, what: str) -> None:
        self.done[what] = self.done.get(what, 0) + 1


class Between:
    """One client's connection."""

    def __init__(self, worst: Worst, client: socket.socket, behind: socket.socket) -> None:
        self.worst = worst
        self.client = client
        self.behind = behind
        self.version = mqttwire.VERSION_5
        self.name = ""  # its client id
        self.random = random.Random(worst.random.random())
        self._later: list[bytes] = []
        self._writing = threading.Lock()

    def serve(self) -> None:
        """In one of the ways, or honestly."""
        first = self._connect()
        if self.worst.honest:
            self._pass(lambda data, _packet: [data])
            return
        if self.worst.inventor is not None:
            self._pass(self._invent)
            return
        self.client.settimeout(LONGEST_S)
        ways: tuple[Callable[[], None], ...] = (
            *(self.mangled,) * 8,
            *(self.honestly, self.honestly, self.silent, self.hangs_up, self.garbage),
            *(self.refuses, self.welcome_lies, self.floods, self.drips, self.huge),
            *(self.aliases, self.deaf, self.too_early, self.half),
        )
        way = self.random.choice(ways)
        self.worst.count(way.__name__)
        del first
        threading.Thread(target=self._end_later, daemon=True).start()
        way()

    # --- ways

    def honestly(self) -> None:
        """For as long as it lasts, so that something has been signed and kept."""
        self._pass(lambda data, _packet: [data])

    def mangled(self) -> None:
        """Each packet by itself."""
        self._pass(self._mangle)

    def silent(self) -> None:
        """No answer at all."""
        self._wait()

    def hangs_up(self) -> None:
        """At once, or in the middle of what follows."""
        if self.random.random() < 0.5:
            self._welcome()
            time.sleep(self.random.random())

    def garbage(self) -> None:
        """Bytes that are no MQTT."""
        if self.random.random() < 0.7:
            self._welcome()
        self._say(self.random.randbytes(self.random.choice((1, 50, 5000))))
        self._wait()

    def refuses(self) -> None:
        """With reasons of both versions, and with none that exist."""
        reason = self.random.choice((1, 2, 3, 4, 5, 0x80, 0x84, 0x85, 0x87, 0x97, 0x9D, 0xFF))
        text = b"\x1f" + _text(ESCAPES * 20)
        self._say(self._connack(reason, text if self.random.random() < 0.5 else b""))

    def welcome_lies(self) -> None:
        """A session that was not there, windows of 0 and 1, sizes of 1, ids that nobody wanted."""
        properties = self.random.choice(
            (
                *(b"\x21\0\0", b"\x21\0\x01", b"\x27\0\0\0\x01", b"\x27\0\0\0\0", b"\x22\xff\xff"),
                *(b"\x13\0\x01", b"\x13\xff\xff", b"\x13\0\0", b"\x24\0", b"\x25\0", b"\x28\0"),
                *(b"\x12" + _text(b"another"), b"\x1f" + _text(ESCAPES * 500), b"\x11\0\0\0\0"),
                *((b"\x26" + _text(b"a") + _text(b"b" * 60)) * 200, b"\x21\0\x01" * 2, b"\x7f\0"),
                b"\x1c" + _text(b"elsewhere.example"),
            )
        )
        self._say(self._connack(0, properties, present=self.random.random() < 0.7))
        self._pass(self._mangle, welcome=False)

    def floods(self) -> None:
        """Without end, of one kind."""
        self._welcome()
        kind = self.random.randrange(8)
        number = 0
        while not self.worst.honest:
            number += 1
            if kind == 0:
                self._say(packet(PINGRESP) * 100)
            elif kind == 1:
                self._say(packet(PUBACK, b"\x12\x34") * 100)
            elif kind == 2:
                self._say(packet(SUBACK, b"\x12\x34\0\0") * 100)
            elif kind == 3:
                self._say(b"".join(self._publish(each, 1, True) for each in self.worst.seen[-50:]))
            elif kind == 4:  # nodes that nobody has, kept by nobody
                for each in range(50):
                    topic = f"edge/v1/greenhouse/nodes/x{number}-{each}/state"
                    message = Message(topic, json.dumps(fuzz.STATE).encode(), True)
                    self._say(self._publish(message, 1, True))
            elif kind == 5:
                self._say(self._connack(0))
            elif kind == 6:
                topic = "edge/v1/greenhouse/nodes/honest/results"
                self._say(self._publish(Message(topic, bytes(60_000), False), 1, False) * 5)
            else:
                self._say(packet(DISCONNECT, b"\x8b\0"))

    def drips(self) -> None:
        """A byte at a time."""
        self._pass(lambda data, _packet: [data[at : at + 1] for at in range(len(data))], 0.02)

    def huge(self) -> None:
        """A packet of 256 MB, whose bytes do come."""
        self._welcome()
        self._say(bytes([self.random.choice((PUBLISH, SUBACK, PUBACK))]) + b"\xff\xff\xff\x7f")
        while True:
            self._say(bytes(65_536))

    def aliases(self) -> None:
        """Topics that were never named, and properties of every kind."""
        self._welcome()
        for properties in (b"\x23\0\x01", b"\x23\0\0", b"\x23\xff\xff", b"\x0b\x01", b"\x01\x07"):
            for topic in (b"", b"edge/v1/greenhouse/deployment"):
                body = _text(topic) + bytes([len(properties)]) + properties + b"x"
                self._say(packet(PUBLISH, body, 1))
        more = b"\x26" + _text(b"k") + _text(b"v" * 1000)
        body = _text(b"edge/v1/greenhouse/trust") + packet(0, more * 60)[1:] + b"{}"
        self._say(packet(PUBLISH, body, 1))
        self._wait()

    def deaf(self) -> None:
        """It reads nothing any more."""
        self._welcome()
        end = time.monotonic() + LONGEST_S
        while time.monotonic() < end:
            for message in self.worst.seen[-20:]:
                self._say(self._publish(message, 1, True))
            time.sleep(0.2)

    def too_early(self) -> None:
        """Messages, acknowledgements and an end before the connection is accepted."""
        for message in self.worst.seen[-3:]:
            self._say(self._publish(message, self.random.randrange(3), True))
        self._say(self.random.choice((packet(PUBACK, b"\0\x01"), packet(SUBACK, b"\0\x01\0\0"))))
        self._welcome()
        self._wait()

    def half(self) -> None:
        """A packet's first part."""
        self._welcome()
        for message in self.worst.seen[-1:]:
            data = self._publish(message, 1, True)
            self._say(data[: self.random.randrange(1, len(data))])
        self._wait()

    # --- each packet

    def _invent(self, data: bytes, given: Packet) -> Iterator[bytes]:
        """To operators what is not so, to boards nothing new."""
        inventor = self.worst.inventor
        assert inventor is not None
        if given.kind != PUBLISH or self.worst.honest:
            yield data
            return
        message, _ = mqttwire.read_publish(given, self.version)
        for each in inventor.instead_of(message, for_board=self.name in inventor.boards):
            yield data if each is message else self._publish(each, 0, True)

    def _mangle(self, data: bytes, given: Packet) -> Iterator[bytes]:
        chance = self.random.random()
        if given.kind == PUBLISH and chance < 0.6:
            yield from self._mangle_message(data, given)
        elif given.kind == CONNACK or chance < 0.55:
            yield data
        elif chance < 0.65:
            yield data
            yield data
        elif chance < 0.72:
            self._later.append(data)  # out of its order
        elif chance < 0.80 and given.kind in (PUBACK, SUBACK, UNSUBACK):
            number = self.random.randbytes(2)
            yield packet(given.kind, number + given.body[2:])
        elif chance < 0.88 and given.kind in (SUBACK, PUBACK):
            body = given.body[:2] + (b"\x87\0" if given.kind == PUBACK else b"\0\x87")
            yield packet(given.kind, body)
        elif chance < 0.94:
            at = self.random.randrange(len(data))
            yield data[:at] + self.random.randbytes(1) + data[at + 1 :]
        # or it is withheld
        if self._later and self.random.random() < 0.3:
            yield self._later.pop(0)

    def _mangle_message(self, data: bytes, given: Packet) -> Iterator[bytes]:
        message, _ = mqttwire.read_publish(given, self.version)
        self.worst.keep(message._replace(retain=True))
        kind = self.random.randrange(10)
        if kind == 0:
            yield self._publish(message, 1, bool(self.random.getrandbits(1)))
        elif kind == 1:
            yield self._publish(message, self.random.choice((2, 3)), True)
        elif kind == 2:  # an old one in its place
            old = [each for each in self.worst.seen if each.topic == message.topic]
            yield self._publish(self.random.choice(old or [message]), 1, True)
        elif kind == 3:
            yield from [data] * 5
        elif kind == 4:
            payload = bytearray(message.payload or b"x")
            payload[self.random.randrange(len(payload))] ^= 1 << self.random.randrange(8)
            yield self._publish(message._replace(payload=bytes(payload)), 1, True)
        elif kind == 5:
            other = self.random.choice(self.worst.seen)
            yield self._publish(message._replace(topic=other.topic), 1, True)
        elif kind == 6:
            for leaf, valid in (("status", fuzz.STATUS), ("state", fuzz.STATE)):
                topic = f"edge/v1/greenhouse/nodes/{self._name()}/{leaf}"
                made = self.worst.hostile.message(valid)
                yield self._publish(Message(topic, made, True), 0, True)
        elif kind == 7:
            yield self._publish(message._replace(payload=b""), 1, True)
        elif kind == 8:
            yield self._publish(message._replace(payload=message.payload * 40), 1, True)
        # or it is withheld

    def _name(self) -> str:
        return self.random.choice(("honest", f"x{self.random.randrange(100)}"))

    # --- below

    def _connect(self) -> bytes:
        received = bytearray()
        self.client.settimeout(20)
        while data := self.client.recv(65_536):
            received += data
            whole = bytes(received)
            for each in mqttwire.split(received):
                if each.kind == CONNECT:
                    connect = mqttwire.read_connect(each)
                    self.version, self.name = connect.version, connect.client_id
                    self.behind.sendall(whole)
                    self.client.settimeout(None)
                    return whole
        raise ConnectionError("left")

    def _pass(
        self,
        change: Callable[[bytes, Packet], Iterator[bytes] | list[bytes]],
        pause_s: float = 0.0,
        *,
        welcome: bool = True,
    ) -> None:
        """Both ways until one side leaves; what comes from behind is changed."""
        threading.Thread(target=self._from_client, daemon=True).start()
        received = bytearray()
        while data := self.behind.recv(65_536):
            received += data
            for each in mqttwire.split(received):
                if each.kind == PUBLISH:
                    message, _ = mqttwire.read_publish(each, self.version)
                    self.worst.keep(message._replace(retain=True))
                if each.kind == CONNACK and not welcome:
                    continue
                for part in change(packet(each.kind, each.body, each.flags), each):
                    self._say(part)
                    if pause_s:
                        time.sleep(pause_s)

    def _from_client(self) -> None:
        received = bytearray()
        with suppress(OSError, mqttwire.Malformed):
            while data := self.client.recv(65_536):
                received += data
                for each in mqttwire.split(received):
                    if each.kind == PUBLISH and self.worst.inventor is not None:
                        said, _ = mqttwire.read_publish(each, self.version)
                        self.worst.inventor.hears(said)
                    if each.kind in UNDERSTOOD:
                        self.behind.sendall(packet(each.kind, each.body, each.flags))
        with suppress(OSError):
            self.behind.shutdown(socket.SHUT_RDWR)

    def _end_later(self) -> None:
        """A client that is patient must not keep one way for ever."""
        time.sleep(self.random.uniform(0.5, LONGEST_S))
        for each in (self.client, self.behind):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _wait(self) -> None:
        """Until the client leaves, or its time is over; what it says is read and forgotten."""
        while self.client.recv(65_536):
            pass

    def _welcome(self) -> None:
        self._say(self._connack(0))

    def _connack(self, reason: int, properties: bytes = b"", *, present: bool = False) -> bytes:
        head = bytes((present, reason))
        if self.version == mqttwire.VERSION_5:
            head += packet(0, properties)[1:]
        return packet(CONNACK, head)

    def _publish(self, message: Message, qos: int, retained: bool) -> bytes:
        topic = _text(message.topic.encode("utf-8", "surrogatepass"))
        number = self.random.randbytes(2) if qos else b""
        properties = b""
        if self.version == mqttwire.VERSION_5:
            properties = packet(0, message.properties)[1:]
        body = topic + number + properties + message.payload
        return packet(PUBLISH, body, qos << 1 | retained)

    def _say(self, data: bytes) -> None:
        with self._writing:
            self.client.sendall(data)


def _text(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def main(words: list[str]) -> None:
    seed = int(words[1]) if len(words) > 1 else time.time_ns() & 0xFFFF_FFFF
    worst = Worst(float(words[0]), seed, "invents" in words[2:])
    print(worst.port, flush=True)
    print(f"seed {seed}", file=sys.stderr, flush=True)

    threading.Thread(target=worst.run, daemon=True).start()
    sys.stdin.readline()
    worst.begin()
    time.sleep(worst.seconds)
    print(json.dumps(worst.done), flush=True)
    sys.stdin.read()  # honest until nobody holds it any more


if __name__ == "__main__":
    main(sys.argv[1:])
