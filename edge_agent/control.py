"""The local control socket: `edge-agent status` and `doctor` ask the running agent.

One connection carries one request and one answer, each a JSON object on one line:

    {"verb": "status", "arguments": {}}      arguments may be absent
    {"answer": {...}}                        or {"error": "what is wrong"}

The server lives on the loop and never waits: a client that sends half a line, garbage
or a flood, or that does not read, loses its own connection and nothing else. Only the
user that runs the agent may connect (mode 0600).
"""

import json
import logging
import os
import selectors
import socket
import stat
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from edge_agent.errors import ControlError, NotRunningError
from edge_agent.loop import Loop

# One operator and a monitoring script ask at a time; each client costs a little memory.
MAX_CLIENTS = 4
# A request is a word and a few arguments.
MAX_REQUEST_BYTES = 64 * 1024
# The most that `ask` takes: status of a hundred plugins is below 100 KiB.
MAX_ANSWER_BYTES = 4 * 1024 * 1024
# For the whole request, and again for the whole answer, so that drips do not count.
CLIENT_SECONDS = 5.0
# How long to leave the socket alone when the process has no descriptor left.
ACCEPT_PAUSE_SECONDS = 1.0

log = logging.getLogger(__name__)

Answer = dict[str, object]


class Deferred:
    """An answer that another thread has yet to find. A client that has waited for CLIENT_SECONDS
    is left without."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._answer: Answer | None = None
        self._deliver: Callable[[Answer], None] | None = None

    def give(self, answer: Answer) -> None:
        """Once, on any thread."""
        self._loop.call_soon(partial(self._given, answer))

    def then(self, deliver: Callable[[Answer], None]) -> None:
        """Call this with the answer, now or when there is one; on the loop."""
        self._deliver = deliver
        if self._answer is not None:
            deliver(self._answer)

    def _given(self, answer: Answer) -> None:
        self._answer = answer
        if self._deliver is not None:
            self._deliver(answer)


# Shapes: arguments in, answer out, both JSON objects. Runs on the loop, so is quick.
Verb = Callable[[Answer], Answer | Deferred]


class ControlServer:
    """Answers on `path` between `open` and `close`."""

    def __init__(self, loop: Loop, path: Path, verbs: Mapping[str, Verb]) -> None:
        self._loop = loop
        self._path = path
        self._verbs = verbs
        self._listener: socket.socket | None = None
        self._inode: tuple[int, int] | None = None
        self.clients: set[_Client] = set()

    def open(self) -> None:
        """Listen. Raises ControlError when another agent does, or the path cannot be used."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _remove_stale(self._path)
            os.fchmod(listener.fileno(), 0o600)  # Linux gives bind's file this mode
            listener.bind(os.fspath(self._path))
            listener.listen(MAX_CLIENTS)
            self._inode = _inode_of(self._path)
        except OSError as error:
            listener.close()
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise ControlError(
                f"cannot listen on {self._path}: {reason}; choose another control_socket or "
                "make its folder writable"
            ) from error
        except ControlError:
            listener.close()
            raise
        self._listener = listener
        self._loop.watch(listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Drop all clients and remove the socket, if it is still the one made here."""
        if self._listener is None:
            return
        for client in list(self.clients):
            client.close()
        self._loop.unwatch(self._listener)
        self._listener.close()
        self._listener = None
        try:
            if _inode_of(self._path) == self._inode:
                self._path.unlink()
        except OSError:
            pass  # it was removed before

    def _accept(self, _events: int) -> None:
        if self._listener is None:
            return
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            log.warning("the control socket cannot accept: %s", error)
            self._loop.unwatch(self._listener)  # or the loop would spin
            self._loop.call_later(ACCEPT_PAUSE_SECONDS, self._accept_again)
            return
        connection.setblocking(False)
        client = _Client(self._loop, connection, self._answer, self.clients.discard)
        self.clients.add(client)
        if len(self.clients) > MAX_CLIENTS:
            client.answer(_error(f"busy with {MAX_CLIENTS} other clients; try again"))

    def _accept_again(self) -> None:
        if self._listener is not None:
            self._loop.watch(self._listener, selectors.EVENT_READ, self._accept)

    def _answer(self, line: bytes, client: "_Client") -> None:
        found = self._found(line)
        if isinstance(found, Deferred):
            found.then(lambda answer: client.answer(_encoded(answer)))
        else:
            client.answer(found)

    def _found(self, line: bytes) -> bytes | Deferred:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return _error('not a JSON object on one line, such as {"verb": "status"}')
        name = request.get("verb") if isinstance(request, dict) else None
        arguments = request.get("arguments", {}) if isinstance(request, dict) else None
        verb = self._verbs.get(name) if isinstance(name, str) else None
        if verb is None:
            return _error(f"unknown verb; known are {', '.join(sorted(self._verbs))}")
        if not isinstance(arguments, dict):
            return _error("arguments must be a JSON object")
        try:
            found = verb(arguments)
            return found if isinstance(found, Deferred) else _encoded(found)
        except Exception as error:
            log.exception("the verb %s failed", name)
            return _error(f"{name} failed: {error}")


class _Client:
    """One connection: reads one line, writes one line, closes; never waits."""

    def __init__(
        self,
        loop: Loop,
        connection: socket.socket,
        respond: Callable[[bytes, "_Client"], None],
        gone: Callable[["_Client"], None],
    ) -> None:
        self._loop = loop
        self._connection = connection
        self._respond = respond
        self._gone = gone
        self._request = bytearray()
        self._rest = memoryview(b"")
        self._closed = False
        self._deadline = loop.call_later(CLIENT_SECONDS, self.close)
        loop.watch(connection, selectors.EVENT_READ, self._readable)

    def close(self) -> None:
        self._closed = True
        self._deadline.cancel()
        self._loop.unwatch(self._connection)
        self._connection.close()
        self._gone(self)

    def answer(self, answer: bytes) -> None:
        """Send the line `answer` as fast as the client takes it, then close."""
        if self._closed:
            return  # it did not wait
        self._rest = memoryview(answer + b"\n")
        self._deadline.cancel()
        self._deadline = self._loop.call_later(CLIENT_SECONDS, self.close)
        self._writable(0)

    def _readable(self, _events: int) -> None:
        try:
            data = self._connection.recv(MAX_REQUEST_BYTES + 1 - len(self._request))
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._request += data
        line, newline, _ = self._request.partition(b"\n")
        if newline:
            self._loop.unwatch(self._connection)  # nothing more is asked
            self._respond(bytes(line), self)
        elif not data:
            self.close()
        elif len(self._request) > MAX_REQUEST_BYTES:
            self.answer(_error(f"a request has at most {MAX_REQUEST_BYTES} bytes"))

    def _writable(self, _events: int) -> None:
        try:
            while self._rest:
                self._rest = self._rest[self._connection.send(self._rest) :]
        except BlockingIOError:
            self._loop.watch(self._connection, selectors.EVENT_WRITE, self._writable)
            return
        except OSError:
            pass  # the client left without its answer
        self.close()


def ask(path: Path, verb: str, **arguments: object) -> dict[str, object]:
    """The running agent's answer; waits up to CLIENT_SECONDS for each step.

    Raises NotRunningError when nothing listens, ControlError when there is no answer.
    """
    request = json.dumps({"verb": verb, "arguments": arguments}).encode() + b"\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(CLIENT_SECONDS)
        try:
            connection.connect(os.fspath(path))
            try:
                connection.sendall(request)
            except BrokenPipeError:
                pass  # a busy server answers and closes without reading
            answer = _read_line(connection)
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotRunningError(
                f"no agent listens on {path}; start it (`edge-agent run`), or name the "
                "configuration that it runs with (-c)"
            ) from None
        except PermissionError:
            raise ControlError(
                f"{path} may be opened only by the user that runs the agent; try with sudo"
            ) from None
        except TimeoutError:
            raise ControlError(
                f"the agent on {path} did not answer within {CLIENT_SECONDS:g} s; see its log"
            ) from None
        except OSError as error:
            raise ControlError(f"asking the agent on {path} failed: {error}") from error
    try:
        reply = json.loads(answer)
    except ValueError:
        reply = None
    reply = reply if isinstance(reply, dict) else {}
    found = reply.get("answer")
    if isinstance(found, dict):
        return found
    reason = reply.get("error")
    raise ControlError(f"the agent on {path} said: {reason or 'nothing that makes sense'}")


def _encoded(answer: Answer) -> bytes:
    return json.dumps({"answer": answer}).encode()


def _error(message: str) -> bytes:
    return json.dumps({"error": message}).encode()


def _read_line(connection: socket.socket) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n") and len(line) <= MAX_ANSWER_BYTES:
        data = connection.recv(65536)
        if not data:
            break
        line += data
    return bytes(line)


def _remove_stale(path: Path) -> None:
    """Make room at `path`: remove what a dead agent left, refuse anything else."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ControlError(f"{path} is no socket; remove it or choose another control_socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # its queue is full, so an agent does listen
    raise ControlError(
        f"another agent listens on {path}; stop it, or give this one its own control_socket"
    )


def _inode_of(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino
