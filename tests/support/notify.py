"""The service manager's end of the notify protocol: a real socket that keeps what comes."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Self


class NotifySocket:
    """A context manager. `path` None: an abstract name, which no file system sees."""

    def __init__(self, path: Path | None = None) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind("" if path is None else str(path))  # "" lets the kernel choose a name
        name = self._socket.getsockname()
        self.address: str = name if isinstance(name, str) else "@" + name[1:].decode()
        self.received: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def messages(self) -> list[str]:
        """All messages so far."""
        while True:
            try:
                self.received.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return self.received

    def forget(self) -> None:
        self.messages()
        self.received.clear()

    def has(self, start: str, times: int = 1) -> bool:
        """Whether so many messages that begin like this have come."""
        return sum(each.startswith(start) for each in self.messages()) >= times
