"""A way to a broker that can be narrowed: no MQTT 5, a connection cut in the middle, ends late."""

import socket
import threading
import time
from collections.abc import Callable

from tests.support.wait import TIMEOUT_S

# CONNACK of MQTT 5 with 0x84, "Unsupported protocol version".
REFUSAL = b"\x20\x03\x00\x84\x00"
DISCONNECT = b"\xe0\x00"
_LEVEL_AT = 8  # of the protocol level in a CONNECT with a remaining length of one byte


class Gate:
    """Listens on `port` and passes bytes on to the broker; a context manager."""

    def __init__(self, broker_port: int, *, refuse_5: bool = False) -> None:
        self.refuse_5 = refuse_5
        self.passed = 0  # bytes from the client
        self.cut_after: int | None = None  # of those: then every connection is cut, once
        self.pace_s = 0.0  # between two pieces, for a line that is slow
        self.hold_after: int | None = None  # bytes from the client: then nothing more passes
        # The broker learns that a client has gone when the next one connects, as under load.
        self.late_end = False
        self._broker_port = broker_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._accepted = 0
        self._another = threading.Condition()
        self._over = threading.Event()

    def __enter__(self) -> "Gate":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # or who accepts there goes on listening
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """End every connection, both ways, without a word."""
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for each in sockets:
            _end(each)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._another:
                self._accepted += 1
                self._another.notify_all()
            first = client.recv(65536)
            if self.refuse_5 and len(first) > _LEVEL_AT and first[_LEVEL_AT] == 5:
                client.sendall(REFUSAL)
                client.close()
                continue
            broker = socket.create_connection(("127.0.0.1", self._broker_port))
            broker.sendall(first)
            with self._lock:
                self._sockets += [client, broker]
            for source, target, count in (
                (client, broker, self._count),
                (broker, client, lambda _size: None),
            ):
                threading.Thread(
                    target=self._pass, args=(source, target, count), daemon=True
                ).start()

    def _count(self, size: int) -> None:
        self.passed += size
        if self.cut_after is not None and self.passed >= self.cut_after:
            self.cut_after = None
            self.cut()
        if self.hold_after is not None and self.passed >= self.hold_after:
            self._over.wait()

    def _pass(
        self, source: socket.socket, target: socket.socket, count: Callable[[int], None]
    ) -> None:
        try:
            while data := source.recv(16384):
                time.sleep(self.pace_s)
                if self.late_end and data.endswith(DISCONNECT):
                    self._wait_for_another()
                target.sendall(data)
                count(len(data))
        except OSError:
            pass
        for each in (source, target):
            _end(each)

    def _wait_for_another(self) -> None:
        with self._another:
            before = self._accepted
            self._another.wait_for(lambda: self._accepted > before, TIMEOUT_S)


def _end(end: socket.socket) -> None:
    """Now: a mere close waits for the thread that receives there."""
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    end.close()
