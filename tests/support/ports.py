"""Ports for servers that a test starts."""

import random
import socket
from pathlib import Path

LOWEST = 10_000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_random = random.SystemRandom()  # the module's own is seeded by hypothesis


def free_port() -> int:
    """A port of the loopback that nobody uses.

    It is below those that the kernel gives to clients: before the server listens, or while a
    killed one is away, another test's connection could otherwise take it, or a client that looks
    whether somebody listens could be connected with itself.
    """
    end = int(_RANGE.read_text().split()[0])
    while True:
        port = _random.randrange(min(LOWEST, end - 1), end)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
