"""The simulated runtime's side of one plugin's socket: ask, answer, or misbehave."""

import itertools
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from edge_agent.pb import ttrpc_pb2
from edge_agent.sim import upstream

PLUGIN_SERVICE = "nri.pkg.api.v1alpha1.Plugin"
UNIMPLEMENTED, UNKNOWN = 12, 2  # google.rpc.Code


class PluginGone(Exception):
    """The plugin closed its connection, broke the protocol or answered too late."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What one side answered: a payload, or a status code and its text."""

    payload: bytes = b""
    code: int = 0
    text: str = ""
    latency_s: float = 0.0


class PluginConnection:
    """`serve(method, payload)` answers the plugin's own requests, on a thread for each.

    `gone(reason)` is called once, from the reading thread, when the connection ends.
    """

    def __init__(
        self,
        connected: socket.socket,
        serve: Callable[[str, bytes], Reply],
        gone: Callable[[str], None],
    ) -> None:
        self._socket = connected
        self._serve = serve
        self._gone = gone
        self._sending = threading.Lock()
        self._streams = itertools.count(1, 2)
        self._waiting: dict[int, queue.SimpleQueue[Reply | None]] = {}
        self.closed = threading.Event()
        self.reason = ""
        credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        self.pid: int = struct.unpack("3i", credentials)[0]
        self._thread = threading.Thread(target=self._read, name="sim-plugin", daemon=True)

    def start(self) -> None:
        """Begin to read; `serve` and `gone` are called from now on."""
        self._thread.start()

    def call(self, method: str, request: bytes, timeout_s: float) -> Reply:
        """One method of the plugin. PluginGone: no answer in time, or none any more."""
        body = ttrpc_pb2.Request(
            service=PLUGIN_SERVICE,
            method=method,
            payload=request,
            timeout_nano=int(timeout_s * 1e9),
        )
        answers: queue.SimpleQueue[Reply | None] = queue.SimpleQueue()
        stream = next(self._streams)
        self._waiting[stream] = answers
        began = time.perf_counter()
        try:
            self.send_raw(
                upstream.write(upstream.PLUGIN, stream, upstream.REQUEST, body.SerializeToString())
            )
            if self.closed.is_set():
                raise PluginGone(self.reason)
            reply = answers.get(timeout=timeout_s)
        except queue.Empty:
            raise PluginGone(f"no answer to {method} within {timeout_s:g} s") from None
        finally:
            self._waiting.pop(stream, None)
        if reply is None:
            raise PluginGone(self.reason)
        return Reply(reply.payload, reply.code, reply.text, time.perf_counter() - began)

    def send_raw(self, data: bytes) -> None:
        """Any bytes at all, as they are. PluginGone."""
        with self._sending:
            try:
                self._socket.sendall(data)
            except OSError as error:
                self.close(f"sending failed: {error.strerror}")
                raise PluginGone(self.reason) from error

    def close(self, reason: str) -> None:
        """End the connection; the first reason stays."""
        self.reason = self.reason or reason
        try:
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the reading thread
        except OSError:
            pass

    def join(self) -> None:
        """Wait for the reading thread after `close`."""
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _read(self) -> None:
        reader = upstream.Reader()
        try:
            while data := self._socket.recv(1 << 16):
                for connection, message in reader.feed(data):
                    self._handle(connection, message)
            self.reason = self.reason or "the plugin closed the connection"
        except OSError as error:
            self.reason = self.reason or f"receiving failed: {error.strerror}"
        except (upstream.UpstreamFails, DecodeError) as error:
            self.reason = self.reason or f"the plugin broke the protocol: {error}"
        self.closed.set()
        with self._sending:
            self._socket.close()
        for answers in list(self._waiting.values()):
            answers.put(None)
        self._gone(self.reason)

    def _handle(self, connection: int, message: upstream.Message) -> None:
        if connection == upstream.PLUGIN and message.type == upstream.RESPONSE:
            response = ttrpc_pb2.Response.FromString(message.body)
            answers = self._waiting.get(message.stream)
            if answers is not None:  # else: too late, nobody waits any more
                status = response.status
                answers.put(Reply(response.payload, status.code, status.message))
        elif connection == upstream.RUNTIME and message.type == upstream.REQUEST:
            # Not on this thread: an answer may need the lock that an event holds
            # while it waits for this thread.
            threading.Thread(target=self._answer, args=(message,), daemon=True).start()
        else:
            raise upstream.UpstreamFails(f"message type {message.type} on {connection}")

    def _answer(self, message: upstream.Message) -> None:
        request = ttrpc_pb2.Request.FromString(message.body)
        reply = self._serve(request.method, request.payload)
        response = ttrpc_pb2.Response(payload=reply.payload)
        if reply.code:
            response.status.code = reply.code
            response.status.message = reply.text
        body = response.SerializeToString()
        try:
            self.send_raw(upstream.write(upstream.RUNTIME, message.stream, upstream.RESPONSE, body))
        except PluginGone:
            pass
