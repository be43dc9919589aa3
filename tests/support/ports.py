"""Ports for servers that a test starts."""

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

LOWEST = 10_000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_random = random.SystemRandom()  # the module's own is seeded by hypothesis
_given: set[int] = set()
# One byte for each port, locked by the process that it was given to, until that process ends.
_file = os.open(
    Path(tempfile.gettempdir(), f"edge-agent-ports-{os.getuid()}"), os.O_RDWR | os.O_CREAT, 0o600
)


def free_port() -> int:
    """A port of the loopback that nobody uses and that is given to nobody else.

    It is below those that the kernel gives to clients: before the server listens, or while a
    killed one is away, another test's connection could otherwise take it, or a client that looks
    whether somebody listens could be connected with itself.
    """
    end = int(_RANGE.read_text().split()[0])
    while True:
        port = _random.randrange(min(LOWEST, end - 1), end)
        if port in _given or not _locked(port):
            continue
        _given.add(port)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _locked(port: int) -> bool:
    """For this process. Until a server listens, a probe tells nothing to tests in another one."""
    try:
        fcntl.lockf(_file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True
