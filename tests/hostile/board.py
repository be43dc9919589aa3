"""A board that does its worst with its own credentials, for a set time.

    python -m tests.hostile.board SECONDS HOST PORT FLEET NAME CA CERT KEY [SEED]

What it says of itself is made by tests/operator/fuzz and by lies that are well-formed; it writes
where it may not, floods, leaves wills in others' names, takes others' client ids, answers what was
asked of others, sends again what it saw, and speaks MQTT wrongly.
"""

from __future__ import annotations

import base64
import json
import os
import random
import re
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]

from edge_agent.sim import mqttwire
from edge_agent.sim.mqttwire import (
    CONNECT,
    PINGREQ,
    PUBACK,
    PUBLISH,
    SUBSCRIBE,
    VERSION_5,
    packet,
)
from tests.operator import fuzz

MAX_FORM = 1 << 53
OTHERS = ("good-1", "good-2", "operator", "edge-op-1")


class Line:
    """One connection with bytes of one's own; whatever goes wrong ends it quietly."""

    def __init__(
        self, evil: Evil, client_id: str, *, clean: bool = True, will: bytes = b""
    ) -> None:
        plain = socket.create_connection(evil.address, 20)
        plain.settimeout(20)
        self.socket = evil.context.wrap_socket(plain, server_hostname=evil.address[0])
        flags = (0x02 if clean else 0) | (0x2C if will else 0)
        body = b"\0\x04MQTT\x05" + bytes([flags]) + b"\0\x3c" + b"\x05\x11\0\0\x0e\x10"
        self.socket.sendall(packet(CONNECT, body + text(client_id.encode()) + will))
        self.socket.recv(4096)

    def say(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> None:
        number = os.urandom(2) if qos else b""
        body = text(topic.encode("utf-8", "surrogatepass")) + number + b"\0" + payload
        self.socket.sendall(packet(PUBLISH, body, qos << 1 | retain))

    def hear(self, *topics: str) -> None:
        body = b"\0\x01\0" + b"".join(text(each.encode()) + b"\x01" for each in topics)
        self.socket.sendall(packet(SUBSCRIBE, body, 2))

    def drain(self, wait_s: float) -> bytes:
        """What comes now."""
        self.socket.settimeout(wait_s)
        try:
            return self.socket.recv(1 << 16)
        except (TimeoutError, ssl.SSLWantReadError):
            return b""
        finally:
            self.socket.settimeout(20)

    def close(self) -> None:
        self.socket.close()


def text(data: bytes) -> bytes:
    """A string of MQTT."""
    return len(data).to_bytes(2, "big") + data


class Evil:
    """The board."""

    def __init__(
        self, address: tuple[str, int], fleet: str, name: str, tls: list[str], seed: int
    ) -> None:
        self.address = address
        self.root = f"edge/v1/{fleet}"
        self.name = name
        self.context = ssl.create_default_context(cafile=tls[0])
        self.context.load_cert_chain(tls[1], tls[2])
        self.random = random.Random(seed)
        self.hostile = fuzz.Hostile(seed)
        self.own = f"{self.root}/nodes/{name}"
        self.seen: list[tuple[str, bytes]] = []
        self.done: dict[str, int] = {}
        self._line: Line | None = None

    def run(self, seconds: float) -> None:
        """All kinds of wrong in turn and by chance."""
        kinds: tuple[Callable[[], None], ...] = (
            *(self.lies, self.claims, self.garbage, self.foreign_topics, self.flood_results),
            *(self.flood_states, self.large, self.take_over, self.wills, self.half_packets),
            *(self.wrong_packets, self.replay, self.answers, self.no_acknowledgements),
            *(self.clock, self.come_and_go, self.clear),
        )
        listener = threading.Thread(target=self._listen, args=(seconds,), daemon=True)
        listener.start()
        end, number = time.monotonic() + seconds, 0
        while number < len(kinds) or time.monotonic() < end:
            kind = kinds[number] if number < len(kinds) else self.random.choice(kinds)
            number += 1
            try:
                kind()
            except (OSError, ssl.SSLError, ValueError):
                self._drop()
            self.done[kind.__name__] = self.done.get(kind.__name__, 0) + 1
        self._drop()

    # --- lies about itself

    def lies(self) -> None:
        """Changed in values and bytes."""
        for _ in range(100):
            kind = self.random.randrange(4)
            if kind == 0:
                self._say("status", self.hostile.message(fuzz.STATUS), retain=True)
            elif kind == 1:
                self._say("results", self.hostile.message(fuzz.BATCH, batches=True))
            elif kind == 2:
                self._say(f"response/{self._verb()}", self.hostile.message(fuzz.ANSWER))
            else:
                self._say("state", self.hostile.message(fuzz.STATE), retain=True)

    def claims(self) -> None:
        """Well-formed, and untrue: the highest generation, versions that run, labels, forms."""
        known = self._deployed() or [f"sha256:{self.random.randbytes(32).hex()}"]
        digest = self.random.choice(known)
        plugin = {
            **fuzz.STATE["plugins"][0],
            "digest": digest,
            "running": digest,
            "status": self.random.choice(("running", "failed", "quarantined", "probation")),
            "version": self.random.choice(("2.0.0", "9.9.9", "1.0.0")),
            "error": "\x1b[2J\u202e" * 50,
        }
        number = self.random.choice((MAX_FORM - 1, 0, 1, 1 << 52, 10**9))
        updates = {
            **fuzz.STATE["updates"],
            "accepted": number,
            "generation": number,
            "epoch": self.random.choice((0, number)),
            "form": number,
            "rejected": {digest: "\u2066rejected\x07" * 20},
            "refused": {"reason": "expired", "text": "\x9b31m", "since": number, "count": 1},
            "expires": number,
        }
        state = {**fuzz.STATE, "plugins": [plugin] * 50, "updates": updates, "session": number}
        self._say("state", json.dumps(state).encode(), retain=True)
        self._say("status", json.dumps({"status": "online", "session": number}).encode(), True)

    def clock(self) -> None:
        """Times that are none."""
        for when in (-1, 0, 1e308, MAX_FORM - 1, "now", None, True):
            record = {**fuzz.RECORD, "time": when, "seq": self.random.choice((1, MAX_FORM - 1))}
            batch = {"version": 1, "node": "good-1", "stream": "s", "records": [record]}
            self._say("results", json.dumps(batch).encode())
            state = {**fuzz.STATE, "uptime_s": when, "updates": {"expires": when, "expired": when}}
            self._say("state", json.dumps(state).encode(), retain=True)

    def garbage(self) -> None:
        """Nothing that can be read."""
        for leaf in ("status", "state", "results", "logs", "metrics", "response/logs"):
            self._say(leaf, self.random.randbytes(self.random.choice((0, 1, 100, 65_000))), True)

    def clear(self) -> None:
        """It leaves the fleet, and comes again."""
        for leaf in ("status", "state"):
            self._say(leaf, b"", retain=True)

    # --- too much

    def flood_results(self) -> None:
        """Batches of one stream and of thousands, with gaps that name all numbers."""
        for _ in range(400):
            records: list[Any] = [{"gap": {"from": 1, "to": MAX_FORM - 1, "count": 1}}]
            records += [{**fuzz.RECORD, "seq": self.random.randrange(1, MAX_FORM)}] * 5
            stream = self.random.choice(("s", self.random.randbytes(30).hex()))
            batch = {"version": 1, "node": "good-2", "stream": stream, "records": records}
            self._say("results", msgpack.packb(batch), qos=1)

    def flood_states(self) -> None:
        """As fast as the line takes it."""
        state = json.dumps({**fuzz.STATE, "x": [{}] * 10_000}).encode()
        for _ in range(300):
            self._say("state", state, retain=True)

    def large(self) -> None:
        """Beyond what the broker takes; it hangs up."""
        self._say("state", bytes(70_000), retain=True)
        self._say("state", bytes(2_000_000), retain=True)

    # --- where it may not

    def foreign_topics(self) -> None:
        """Others' topics, the fleet's, the broker's, and what are no topics."""
        payloads = [json.dumps(fuzz.STATE).encode(), b"", b"x"]
        for other in OTHERS:
            for leaf in ("status", "state", "results", "request/restart", "response/logs"):
                topic = f"{self.root}/nodes/{other}/{leaf}"
                self._line_().say(topic, self.random.choice(payloads), qos=1, retain=True)
        digest = self.random.randbytes(32).hex()
        for topic in (
            *(f"{self.root}/deployment", f"{self.root}/trust", f"{self.root}/blobs/{digest}/0"),
            *("$SYS/broker/x", "$CONTROL/dynamic-security/v1", "edge/v1/other/deployment"),
            *(f"{self.own}/request/restart", f"{self.own}/a/b/c/d", f"{self.root}/blobs/mark/x"),
        ):
            self._line_().say(topic, b"x", qos=1, retain=True)
        for topic in ("", "+", "#", "a\0b", "\ud800", "/" * 200, "a" * 60_000):
            line = Line(self, self.name)
            try:
                line.say(topic, b"x", retain=True)
            finally:
                line.close()
        self._line_().hear("#", f"{self.root}/nodes/+/state", f"{self.root}/nodes/good-1/#")

    def take_over(self) -> None:
        """Others' client ids, with and without their sessions."""
        for other in OTHERS:
            for clean in (True, False):
                Line(self, other, clean=clean).close()

    def wills(self) -> None:
        """Left in others' names; the connection breaks without a word."""
        for other in OTHERS:
            said = json.dumps({"status": "lost", "session": MAX_FORM - 1}).encode()
            topic = f"{self.root}/nodes/{other}/status".encode()
            Line(self, other, will=b"\0" + text(topic) + text(said)).close()

    # --- wrong MQTT

    def half_packets(self) -> None:
        """The beginning of something, and then nothing for a while."""
        for part in (packet(PUBLISH, text(b"a") + bytes(5000))[:40], b"\x30\xff\xff\xff", b"\x82"):
            line = Line(self, self.name)
            line.socket.sendall(part)
            time.sleep(self.random.choice((0.0, 0.2)))
            line.close()

    def wrong_packets(self) -> None:
        """Types, flags and lengths that are none; random bytes."""
        for data in (
            *(
                b"\xff" * 20,
                b"\x00\x00",
                packet(CONNECT, b"\0\x04MQTT\x09"),
                b"\x30\x80\x80\x80\x80",
            ),
            *(
                packet(SUBSCRIBE, b"\0\0"),
                packet(PUBACK, b"\0\x01" * 9),
                self.random.randbytes(300),
            ),
            packet(PUBLISH, text(b"a") + b"\x7f" * 200, 6),
        ):
            line = Line(self, self.name)
            line.socket.sendall(data)
            line.drain(0.1)
            line.close()

    def no_acknowledgements(self) -> None:
        """It is sent things at QoS 1, and never says that it has them."""
        line = Line(self, self.name, clean=False)
        line.hear(f"{self.root}/blobs/+/+", f"{self.own}/request/+", f"{self.root}/deployment")
        line.socket.sendall(packet(PUBACK, b"\x12\x34") * 50)  # of nothing
        line.drain(0.3)
        line.close()

    def come_and_go(self) -> None:
        """Many connections in a row."""
        for _ in range(20):
            Line(self, self.name).close()

    # --- what it saw

    def replay(self) -> None:
        """Requests, deployments and answers once more, to itself and to others."""
        for topic, payload in self.random.sample(self.seen, min(20, len(self.seen))):
            verb = topic.rpartition("/")[2]
            for place in (
                *(topic, f"{self.root}/nodes/good-1/request/{verb}", f"{self.root}/deployment"),
                *(f"{self.own}/state", f"{self.own}/response/{verb}"),
            ):
                self._line_().say(place, payload, qos=1, retain=self.random.random() < 0.5)

    def answers(self) -> None:
        """To what was asked of it: all at once, without end, and for others' requests."""
        for _, payload in self.seen[-10:]:
            try:
                identity = json.loads(payload).get("id")
            except ValueError:
                continue
            for state in ("accepted", "running", "succeeded\x1b[2J", "running", "\u202e"):
                answer = {**fuzz.ANSWER, "id": identity, "state": state}
                for _ in range(40):
                    self._say("response/diagnose", json.dumps(answer).encode())

    def _listen(self, seconds: float) -> None:
        """What is asked of it, kept for later."""
        end = time.monotonic() + seconds
        received = bytearray()
        while time.monotonic() < end:
            try:
                line = Line(self, self.name)
                line.hear(f"{self.own}/request/+", f"{self.root}/deployment", f"{self.root}/trust")
                while time.monotonic() < end:
                    received += line.drain(1.0)
                    for each in mqttwire.split(received):
                        if each.kind == PUBLISH:
                            message, _ = mqttwire.read_publish(each, VERSION_5)
                            self.seen.append((message.topic, message.payload))
                            del self.seen[:-200]
                    line.socket.sendall(packet(PINGREQ))
            except (OSError, ssl.SSLError, mqttwire.Malformed):
                received.clear()
                time.sleep(0.2)

    def _deployed(self) -> list[str]:
        """Digests in the deployments that it saw."""
        found: list[str] = []
        for topic, payload in self.seen:
            if topic.endswith("/deployment"):
                try:
                    document = base64.b64decode(json.loads(payload)["payload"]).decode()
                except (ValueError, KeyError, TypeError):
                    continue
                found += re.findall("sha256:[0-9a-f]{64}", document)
        return found

    def _say(self, leaf: str, payload: bytes, retain: bool = False, qos: int = 0) -> None:
        self._line_().say(f"{self.own}/{leaf}", payload, qos=qos, retain=retain)

    def _verb(self) -> str:
        return self.random.choice(("logs", "sync", "diagnose", "restart", "release", "x"))

    def _line_(self) -> Line:
        if self._line is None:
            self._line = Line(self, self.name)
        return self._line

    def _drop(self) -> None:
        if self._line is not None:
            self._line.close()
        self._line = None


def main(words: list[str]) -> None:
    seconds, host, port, fleet, name, *rest = words
    seed = int(rest[3]) if len(rest) > 3 else time.time_ns() & 0xFFFF_FFFF
    print(f"seed {seed}", flush=True)
    evil = Evil((host, int(port)), fleet, name, [str(Path(each)) for each in rest[:3]], seed)
    evil.run(float(seconds))
    print(json.dumps(evil.done), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
