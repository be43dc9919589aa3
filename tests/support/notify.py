"""The service manager's end of the notify protocol: a real socket that keeps what comes."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

LOOK_S = 0.1


class NotifySocket:
    """A context manager. `path` None: an abstract name, which no file system sees."""

    def __init__(self, path: Path | None = None) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind("" if path is None else str(path))  # "" lets the kernel choose a name
        name = self._socket.getsockname()
        self.address: str = name if isinstance(name, str) else "@" + name[1:].decode()
        self.received: list[str] = []
        self._taking = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def messages(self) -> list[str]:
        """All messages so far."""
        with self._taking:
            while True:
                try:
                    self.received.append(self._socket.recv(4096).decode())
                except BlockingIOError:
                    return list(self.received)

    def forget(self) -> None:
        self.messages()
        with self._taking:
            self.received.clear()

    @contextmanager
    def served(self) -> Iterator[Self]:
        """Take messages all the while, as a service manager does: the kernel keeps ten or so, and
        whoever sends another has to drop one."""
        over = threading.Event()

        def take() -> None:
            while not over.is_set():
                if select.select([self._socket], [], [], LOOK_S)[0]:
                    self.messages()

        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield self
        finally:
            over.set()
            thread.join()

    def has(self, start: str, times: int = 1) -> bool:
        """Whether so many messages that begin like this have come."""
        return sum(each.startswith(start) for each in self.messages()) >= times
