"""Stands between a runtime and its plugins and keeps what the runtime asked them."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from edge_agent import wire
from edge_agent.pb import ttrpc_pb2
from edge_agent.wire import PLUGIN_SERVICE, MuxReader


class Asked(NamedTuple):
    """One request of the runtime: the NRI method and its message as it was sent."""

    method: str
    payload: bytes


class Tap:
    """Listens at `socket` and passes everything on to and from `runtime`. A context manager."""

    def __init__(self, socket_path: Path, runtime: Path) -> None:
        self.socket = socket_path
        self._runtime = runtime
        self._listener = socket.socket(socket.AF_UNIX)
        self._ends: list[socket.socket] = []
        self._heard: list[bytearray] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._listener.bind(str(self.socket))
        self._listener.listen()
        self._spawn(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for end in (self._listener, *self._ends):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the other side has closed it
        for thread in self._threads:
            thread.join()
        for end in (self._listener, *self._ends):
            end.close()

    @property
    def asked(self) -> list[list[Asked]]:
        """Of each connection, in the order in which they were made."""
        return [list(_requests(bytes(heard))) for heard in self._heard]

    def _accept(self) -> None:
        while True:
            try:
                plugin, _ = self._listener.accept()
            except OSError:
                return
            runtime = socket.socket(socket.AF_UNIX)
            runtime.connect(str(self._runtime))
            self._ends += (plugin, runtime)
            heard = bytearray()
            self._heard.append(heard)
            self._spawn(_pass_on, runtime, plugin, heard)
            self._spawn(_pass_on, plugin, runtime, bytearray())

    def _spawn(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()


def _pass_on(source: socket.socket, sink: socket.socket, heard: bytearray) -> None:
    try:
        while data := source.recv(1 << 16):
            heard += data
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # one side is gone, so is the connection


def _requests(heard: bytes) -> list[Asked]:
    mux, reader = MuxReader(), wire.MessageReader(wire.SERVER)
    found = []
    for connection, piece in mux.feed(memoryview(heard)):
        if connection == PLUGIN_SERVICE:
            for message in reader.feed(piece):
                request = ttrpc_pb2.Request.FromString(message.body)
                found.append(Asked(request.method, request.payload))
    return found
