"""A session's unix socket on the loop: connect, bytes in, bytes out, one end.

The peer is the container runtime, or whoever put a socket where it should be: what it
sends is checked by the session, what it does not read is kept up to a bound.
"""

import errno
import selectors
import socket
import stat
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from edge_agent.errors import ProtocolError
from edge_agent.loop import Loop
from edge_agent.nri.session import Incoming, Refused, Session

RECEIVE_BYTES = 64 << 10  # one read; events are of a few KiB
MAX_UNSENT_BYTES = 8 << 20  # ours: two of the largest messages; a peer that stops reading
_READS_PER_TURN = 8  # then the other sessions get their turn
_MAX_PIECES = 512  # half of IOV_MAX of Linux

_CREDENTIALS = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid

_buffer = bytearray(RECEIVE_BYTES)  # links share the loop's thread, and so this
_view = memoryview(_buffer)


class SocketFile(NamedTuple):
    """One socket file. A runtime that listens anew at the same path makes another.

    File systems on disks give an inode's number to the next file at once: the time at which a
    socket was bound tells the two apart. Unlike ctime it stays with chown, chmod and rename.
    """

    device: int
    inode: int
    bound_ns: int


def find_socket(path: Path) -> SocketFile | None:
    """The socket file at this path, if there is one.

    Runtimes keep it on a tmpfs: the answer comes from memory.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    if not stat.S_ISSOCK(status.st_mode):
        return None
    return SocketFile(status.st_dev, status.st_ino, status.st_mtime_ns)


def listener_pid(path: Path) -> int:
    """The process that listens at this path; 0: outside of this process's PID namespace.

    Connects and closes again, which the runtime logs as a plugin that did not register.
    OSError: nothing listens there.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        probe.connect(str(path))
        return _peer_pid(probe)


def _peer_pid(connected: socket.socket) -> int:
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid: int = _CREDENTIALS.unpack(credentials)[0]
    return pid


class Link:
    """Connects in the constructor; `closed(reason)` is called exactly once, never by it.

    OSError from the constructor: nothing listens there (yet).
    """

    def __init__(
        self,
        loop: Loop,
        path: Path,
        session: Session,
        received: Callable[[Incoming], None],
        closed: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._session = session
        self._received = received
        self._closed: Callable[[str], None] | None = closed
        self._finishing = False  # nothing more is taken
        self._unsent = bytearray()  # one buffer: many small answers would cost more as pieces
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.file = find_socket(path)
        try:
            # A unix socket connects at once or not at all; EAGAIN: its backlog is full.
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise
        self.peer_pid = _peer_pid(
            self._socket
        )  # of the process that called listen(2); see `listener_pid`
        session.register()
        self._writing = True  # the registration goes out with the loop's next turn
        loop.watch(self._socket, selectors.EVENT_READ | selectors.EVENT_WRITE, self._ready)

    def flush(self) -> None:
        """Send what the session has to say; what the socket does not take now, goes later."""
        if self._closed is None:
            return
        output = self._session.take_output()
        if self._unsent:
            self._unsent += b"".join(output)
            sent = self._send([self._unsent])
            del self._unsent[:sent]
        elif output:
            sent = self._send(output[:_MAX_PIECES])
            if sent != sum(map(len, output)):
                self._unsent += b"".join(output)[sent:]
        if not self.open:
            self._unsent = bytearray()
            return
        if len(self._unsent) > MAX_UNSENT_BYTES:
            self.close("the runtime does not read what it asked for")
        elif self._writing != bool(self._unsent):
            self._writing = not self._writing
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._writing else 0)
            self._loop.watch(self._socket, events, self._ready)

    def close(self, reason: str) -> None:
        """End the session; the reason is for people. Harmless when repeated."""
        closed, self._closed = self._closed, None
        if closed is not None:
            self._loop.unwatch(self._socket)
            self._socket.close()
            closed(reason)

    def finish(self) -> bool:
        """Take nothing more, and answer what had come. Whether anything had.

        From now on the peer cannot send; what it had sent is no longer left unread, as by `close`.
        """
        if self._closed is None:
            return False
        try:
            self._socket.shutdown(socket.SHUT_RD)
        except OSError:
            return False  # the peer is gone
        self._finishing = True
        found = False
        while self._closed is not None and (more := self._read()) is not None:
            found = found or more
        return found

    @property
    def open(self) -> bool:
        return self._closed is not None

    @property
    def waiting(self) -> bool:
        """Whether the peer has sent something that was not read yet."""
        if self._closed is None:
            return False
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            pass  # the loop's to find out, as the end of the stream
        return True

    def _send(self, pieces: Sequence[bytes | bytearray]) -> int:
        """How many bytes the socket took; the link is closed if the peer is gone."""
        try:
            return self._socket.sendmsg(pieces)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                self.close(f"the runtime went away: {error.strerror}")
            return 0

    def _ready(self, events: int) -> None:
        if events & selectors.EVENT_READ:
            self._read()
        if self._closed is not None and (events & selectors.EVENT_WRITE):
            self.flush()

    def _read(self) -> bool | None:
        """Whether anything happened; None: there is nothing more to read."""
        for _ in range(_READS_PER_TURN):
            if self._closed is None:
                return None
            try:
                size = self._socket.recv_into(_buffer)
            except BlockingIOError:
                return None
            except OSError as error:
                self.close(f"the runtime went away: {error.strerror}")
                return None
            if not size:
                if not self._finishing:
                    self.close("the runtime closed the connection")
                return None
            try:
                # Whole messages are copies: the buffer is free again for calls to come.
                happened = self._session.receive(_view[:size])
            except Refused as error:
                self.close(str(error))
                return None
            except ProtocolError as error:
                self.close(f"the runtime broke the protocol: {error}")
                return None
            for incoming in happened:
                if self._closed is None:
                    return None
                self._received(incoming)
            self.flush()
            if happened:
                return True  # answered: the runtime will be a while
        return False
